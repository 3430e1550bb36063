"""A song of a number as a score: each digit a sixteenth note, its sargam letter, and the digit itself below."""

from __future__ import annotations

from pathlib import Path

from etude.files import atomic_write
from etude.music.score.melody import Sheet, Written, draw

from .notes import LETTERS
from .song import Song, midi_key

# The keynote by its piano key, C first: its letter, what alters it, and the sharps (or flats) of its major scale, to
# which the seven unaltered swaras belong.
_KEYS = (
    ("C", 0, 0),
    ("D", -1, -5),
    ("D", 0, 2),
    ("E", -1, -3),
    ("E", 0, 4),
    ("F", 0, -1),
    ("F", 1, 6),
    ("G", 0, 1),
    ("A", -1, -4),
    ("A", 0, 3),
    ("B", -1, -2),
    ("B", 0, 5),
)
_STEPS = (0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 6)  # of the scale, for each semitone above Sa
_ALTERED = (0, -1, 0, -1, 0, 0, 1, 0, -1, 0, -1, 0)  # from the major scale: komal -1, tivra 1
_MIDDLE = 34  # the staff's middle line, a B, in steps from the C below the lowest A of a piano


def write_score(song: Song, path: Path) -> None:
    """Write the song as SVG: pages of staff notation with sargam. The same song gives the same bytes."""
    with atomic_write(path) as file:
        for line in draw(sheet(song), written(song)):
            file.write(f"{line}\n".encode())


def sheet(song: Song) -> Sheet:
    """What stands around the notes."""
    letter, alter, signature = _KEYS[midi_key(song.sa)[0] % 12]
    name = letter + {0: "", -1: "\u266d", 1: "\u266f"}[alter]
    raga = " ".join(word.capitalize() for word in song.raga.name.split("-"))
    about = f"Raga {raga} · Sa = {name} ({song.sa:g} Hz) · \u2669 = {song.tempo / 4:g}"
    if song.tala is not None:
        about += f" · {song.tala.name.capitalize()}"
    told = " · ".join(
        f"{digit} {LETTERS[degree % 12]}{chr(39) * (degree // 12)}{',' * -(degree // 12)}"
        for digit, degree in zip(song.table, song.raga.degrees, strict=True)
    )
    count = f"{len(song.digits):,}"
    title = f"A number of {count} digits" if song.whole else f"The first {count} digits of a number"
    lines = (about, f"Digits, commonest first: {told}", "S' is an octave above S, and N, an octave below N")
    if song.tala is None:
        return Sheet(title, lines, signature, _ottava(song), (4, 4, 4, 4), ("",) * 4)
    groups = tuple(len(part) for part in song.tala.theka)
    return Sheet(title, lines, signature, _ottava(song), groups, song.tala.marks)


def written(song: Song) -> list[Written | None]:
    """The notes as they stand on the staff, rests as None."""
    letter, _, signature = _KEYS[midi_key(song.sa)[0] % 12]
    keynote = 7 * (midi_key(song.sa)[0] // 12 - 1 + _ottava(song)) + "CDEFGAB".index(letter)
    key = _alterations(signature)
    digits = iter(song.sung)
    notes: list[Written | None] = []
    for degree in song.slots:
        if degree is None:
            notes.append(None)
            continue
        octave, semitone = divmod(degree, 12)
        steps = keynote + 7 * octave + _STEPS[semitone]
        alter = key["CDEFGAB"[steps % 7]] + _ALTERED[semitone]
        notes.append(Written(steps - _MIDDLE, alter, LETTERS[semitone], octave, next(digits)))
    return notes


def _alterations(signature: int) -> dict[str, int]:
    if signature >= 0:
        return {name: int(name in "FCGDAEB"[:signature]) for name in "CDEFGAB"}
    return {name: -int(name in "BEADGCF"[:-signature]) for name in "CDEFGAB"}


def _ottava(song: Song) -> int:
    """Octaves that are written higher than they sound, so that Sa stands at the foot of the staff."""
    return (68 - midi_key(song.sa)[0]) // 12
