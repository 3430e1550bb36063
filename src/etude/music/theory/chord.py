"""A chord symbol as music: a root, a quality and a bass.

`Chord.parse` reads what people write (`F#m7b5`, `F#-7b5`, `F#ø`, `Bb7(b9,#11)`, `D/F#`, `N.C.`) and two spellings of
the same chord give equal objects. What it cannot read, or what musicians read in two ways (`C2`), is a
`ChordError` that says where and offers the nearest readings; it never guesses.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from functools import lru_cache

from etude.errors import EtudeError

NO_CHORD = "N.C."
MAX_SYMBOL_LENGTH = 64

# The names that most charts use where no key says otherwise.
COMMON_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_COMMON_QUALITIES = (
    "", "m", "7", "maj7", "m7", "6", "m6", "9", "maj9", "m9", "11", "m11", "13", "69", "sus4", "sus2", "7sus4", "9sus4",
    "add9", "madd9", "add11", "dim", "dim7", "m7b5", "aug", "7#5", "7b5", "7b9", "7#9", "7#11", "7b13", "7alt", "5",
    "mMaj7",
)  # fmt: skip

# Grammar: a root, a head (triad and extension), modifiers, a bass. Characters are replaced one for one, so that an
# error's position stays right.
_UNICODE = str.maketrans("♭♯−–‐△∆ºØ⌀⁰¹²³⁴⁵⁶⁷⁸⁹₆₉", "b#---ΔΔ°øø012345678969")  # noqa: RUF001
_NO_CHORD = re.compile(r"(?:N\.?C\.?|n\.?c\.?|no chord)$")
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NOTE = re.compile(r"[A-G](?:#{1,2}|b{1,2}|𝄪|𝄫)?")
_BASS = re.compile(rf"/({_NOTE.pattern})$")
# `Cmadd9` is minor, `Comit3` major, `Con` nothing: `ma` and `o` are no heads where they begin another word.
_TRIAD = re.compile(
    r"(?P<delta>[Δ^]|j(?=\d))"
    r"|(?P<major>[mM]ajor|[mM]aj|MAJ|MA|[mM]a(?!dd|lt|ug)|M(?![iI]))"
    r"|(?P<minor>[mM]inor|[mM]in|MIN|MI|[mM]i|m|-)"
    r"|(?P<half>ø|h)"
    r"|(?P<dim>[dD]im|DIM|°|o(?!mit|n))"
    r"|(?P<aug>[aA]ug|AUG|\+)"
    r"|(?P<plain>(?:dom(?=7))?)"
)
_SIXTHS_AND_DOMINANTS = r"6/9|69|6|7(?:M|maj)(?!aj)|7|9|11|13"
_EXTENSION = {
    "delta": re.compile(r"7|9|11|13"),
    "major": re.compile(r"6/9|69|6|7|9|11|13"),
    "minor": re.compile(_SIXTHS_AND_DOMINANTS),
    "half": re.compile(r"7|9|11"),
    "dim": re.compile(r"7"),
    "aug": re.compile(r"7|9"),
    "plain": re.compile(_SIXTHS_AND_DOMINANTS + "|5"),
}
_MODIFIER = re.compile(
    r"[sS]us(?P<sus>2/?4|4/?2|2sus4|4sus2|4|2|)"
    r"|[aA]dd(?P<add>[#b]?(?:13|11|9|6|4|3|2))"
    r"|(?:no|omit)\s*(?P<omit>[35])(?:rd|th)?"
    r"|(?P<alt>alt)"
    r"|[/-]?(?:(?:[mM]aj|MAJ|MA|[mM]a|M|[Δ^])(?P<maj>7|9|11|13)|(?P<delta>[Δ^]))"
    r"|/?(?P<sign>[#b+-])(?P<degree>13|11|10|9|6|5|4)"
    r"|(?P<aug>\+|aug)(?!\d)"
    r"|(?P<slash>/?)(?P<plain>13|11|9)"
)  # fmt: skip
_BLANKS = " ,"

# Semitones above the root; common practice, e.g. Levine, The Jazz Theory Book (1995).
_TRIADS = {"": (0, 4, 7), "m": (0, 3, 7), "dim": (0, 3, 6), "aug": (0, 4, 8), "5": (0, 7)}
_EXTENSIONS = {
    "": (), "6": (9,), "69": (9, 2), "7": (10,), "9": (10, 2), "11": (10, 2, 5), "13": (10, 2, 9),
    "maj7": (11,), "maj9": (11, 2), "maj11": (11, 2, 5), "maj13": (11, 2, 9), "dim7": (9,),
}  # fmt: skip
_SUSPENSIONS = {"": (), "sus2": (2,), "sus4": (5,)}
_TONES = {
    "b5": (6,), "#5": (8,), "b6": (8,), "b9": (1,), "#9": (3,), "#11": (6,), "b13": (8,),
    "add3": (4,), "add9": (2,), "add11": (5,), "add13": (9,), "addb9": (1,), "add#9": (3,), "add#11": (6,),
    "addb13": (8,), "alt": (1, 3, 6, 8), "no3": (), "no5": (),
}  # fmt: skip
# Which natural tones an altered one stands in for.
_REPLACES = {
    "b5": {7}, "#5": {7}, "b9": {2}, "#9": {2}, "alt": {7}, "no3": {3, 4}, "no5": {7},
}  # fmt: skip
# A chord tone's letter, in steps above the root's.
LETTER_STEPS = {3: 2, 4: 2, 6: 4, 7: 4, 8: 4, 10: 6, 11: 6}
# `C7(9)` and `C9`, `C9(11)` and `C11`, `C7(13)` and `C13` are one chord each.
_JOINED = {
    "add9": {"6": "69", "7": "9", "maj7": "maj9"},
    "add11": {"9": "11", "maj9": "maj11"},
    "add13": {"7": "13", "9": "13", "maj7": "maj13", "maj9": "maj13"},
}


class ChordError(EtudeError):
    """A chord that cannot be read: where (a 0-based character position in `text`), why, and the nearest readings.

    `text` is all that was being read. Where that is more than one chord, `symbol` is the part at fault, and the message
    gives its place in the text.
    """

    def __init__(
        self, text: str, position: int, reason: str, suggestions: tuple[str, ...] = (), symbol: str | None = None
    ) -> None:
        self.text, self.position, self.reason, self.suggestions = text, position, reason, suggestions
        self.symbol = text if symbol is None else symbol
        shown = self.symbol if len(self.symbol) <= 24 else self.symbol[:24] + "…"
        before = text[:position].split("\n")
        place = f"line {len(before)}, character" if "\n" in text.strip("\n") else "character"
        nearest = f"; nearest: {', '.join(suggestions)}" if suggestions else ""
        super().__init__(f"cannot read {shown!r} at {place} {len(before[-1]) + 1}: {reason}{nearest}")


@dataclass(frozen=True, slots=True)
class Chord:
    """Root and bass as pitch classes (C is 0, B is 11; both None in `N.C.`), and the canonical name of the quality.

    Equality is musical: `Chord.parse("C#-7") == Chord.parse("Dbm7")`. How a root is spelled belongs to the key
    (`Key.name(chord)`); `str(chord)` uses the commonest names.
    """

    root: int | None
    quality: str
    bass: int | None

    @staticmethod
    def parse(text: str, dialect: str | None = None) -> Chord:
        """Read one chord symbol. Raises `ChordError`; `dialect` is kept for chart formats (None: common notation)."""
        if dialect is not None:
            raise EtudeError(f"unknown chord dialect {dialect!r}: only None, the common notation, is known")
        return _parse(text)

    @property
    def is_no_chord(self) -> bool:
        return self.root is None

    @property
    def intervals(self) -> tuple[int, ...]:
        """Semitones above the root, ascending, without a foreign bass: `m7` gives (0, 3, 7, 10)."""
        return () if self.root is None else _quality(self.quality)[1]

    @property
    def pitch_classes(self) -> frozenset[int]:
        """The sounding pitch classes, 0 to 11, the bass among them; empty for `N.C.`"""
        if self.root is None or self.bass is None:
            return frozenset()
        return frozenset((self.root + i) % 12 for i in self.intervals) | {self.bass}

    def transpose(self, semitones: int) -> Chord:
        if self.root is None or self.bass is None:
            return self
        return Chord((self.root + semitones) % 12, self.quality, (self.bass + semitones) % 12)

    def name(self, names: tuple[str, ...] = COMMON_NAMES) -> str:
        """The symbol: roots spelled as in `names`, a chord tone in the bass by its letter above the root (`E/G#`)."""
        if self.root is None or self.bass is None:
            return NO_CHORD
        root = names[self.root]
        return root + self.quality + ("" if self.bass == self.root else "/" + self._bass_name(root, names[self.bass]))

    def _bass_name(self, root: str, name: str) -> str:
        """A third, fifth or seventh in the bass takes its letter from the root: `E/G#` in any key."""
        interval = (pitch_class(name) - pitch_class(root)) % 12
        letter = "CDEFGAB"[("CDEFGAB".index(root[0]) + LETTER_STEPS.get(interval, 0)) % 7]
        spelled = next((letter + sign for sign in ("", "#", "b") if pitch_class(letter + sign) == self.bass), name)
        return spelled if interval in self.intervals and interval in LETTER_STEPS else name

    def __str__(self) -> str:
        return self.name()


def pitch_class(name: str) -> int:
    """The pitch class of a note name: `Bb` is 10. Raises `ChordError` where it is none."""
    note = name.translate(_UNICODE)
    if not _NOTE.fullmatch(note):
        raise ChordError(name, 0, "not a note name (A to G, then # or b)")
    sharps, flats = note.count("#") + 2 * note.count("𝄪"), note.count("b") + 2 * note.count("𝄫")
    return (_LETTERS[note[0]] + sharps - flats) % 12


@lru_cache(maxsize=4096)
def _parse(text: str) -> Chord:
    if not text.strip():
        raise ChordError(text, 0, "empty")
    if len(text) > MAX_SYMBOL_LENGTH:
        raise ChordError(text, MAX_SYMBOL_LENGTH, f"longer than {MAX_SYMBOL_LENGTH} characters")
    symbol = text.strip().translate(_UNICODE)
    offset = len(text) - len(text.lstrip())
    if _NO_CHORD.match(symbol):
        return Chord(None, "", None)
    note = _NOTE.match(symbol)
    if note is None:
        raise ChordError(text, offset, "a chord begins with its root, A to G", _nearest(symbol))
    slash = _BASS.search(symbol, note.end())
    try:
        quality, _ = _quality(symbol[note.end() : slash.start() if slash else len(symbol)])
    except ChordError as error:
        position = note.end() + error.position
        nearest = _nearest(symbol, position, error.suggestions)
        raise ChordError(text, offset + position, error.reason, nearest) from None
    return Chord(pitch_class(note.group()), quality, pitch_class(slash.group(1) if slash else note.group()))


def _nearest(symbol: str, readable: int = 0, readings: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Up to three symbols that can be read: known readings, else what stands before the fault and what looks alike."""
    upright = ("B" if symbol[0] in "hH" else symbol[0].upper()) + symbol[1:]
    note = _NOTE.match(upright)
    if note is None:
        return ()
    quality, _, below = upright[note.end() :].partition("/")
    bass = _NOTE.fullmatch(below[:1].upper() + below[1:])
    tail = f"/{bass.group()}" if bass else ""
    before_fault = upright[note.end() : readable]
    close = [each for each in (quality, before_fault) if each in _COMMON_QUALITIES]
    close += difflib.get_close_matches(quality, _COMMON_QUALITIES, n=3, cutoff=0.0)
    return tuple(note.group() + each + tail for each in (readings or list(dict.fromkeys(close))[:3]))


@dataclass(slots=True)
class _Parts:
    """What a quality is read into; two spellings with the same parts are the same quality."""

    triad: str
    extension: str
    modifiers: set[str] = field(default_factory=set)
    suspension: str = ""


@lru_cache(maxsize=4096)
def _quality(text: str) -> tuple[str, tuple[int, ...]]:
    """The canonical name and the intervals of the quality written in `text`, what stands between root and bass."""
    parts, position = _read_head(text)
    opened: int | None = None  # where the open bracket stands
    while position < len(text):
        if text[position] in _BLANKS:
            position += 1
        elif text[position] == "(" and opened is None:
            opened, position = position, position + 1
        elif text[position] == ")" and opened is not None:
            opened, position = None, position + 1
        elif modifier := _MODIFIER.match(text, position):
            for name in _tones(parts, modifier, bracketed=opened is not None):
                _add(parts, name, modifier)
            position = modifier.end()
        else:
            raise ChordError(text, position, f"{text[position:]!r} is not a chord quality")
    if opened is not None:
        raise ChordError(text, opened, "a bracket is not closed")
    parts = _normal(parts)
    return _name(parts), _intervals(parts)


def _read_head(text: str) -> tuple[_Parts, int]:
    """The triad and the extension, and where they end: `m7`, `^9`, `+7`, `h`, `6/9`, or nothing for a major triad."""
    match = _TRIAD.match(text, len(text) - len(text.lstrip(_BLANKS)))
    assert match is not None and match.lastgroup is not None  # a plain triad matches anywhere
    kind, end = match.lastgroup, match.end()
    number = _EXTENSION[kind].match(text, end)
    if number is None and text[end : end + 1] in ("2", "4"):
        added = text[:end] + ("add9" if text[end] == "2" else "add11")
        reason = f"{text[end]!r} alone can mean sus{text[end]} or {added}: say which"
        raise ChordError(text, end, reason, ("sus" + text[end], added))
    end = number.end() if number else end
    extension = number.group().replace("/", "") if number else ""
    if extension == "5":
        return _Parts("5", ""), end
    if kind == "half":
        return _Parts("m", extension or "7", {"b5"}), end
    if kind == "dim" and extension:
        extension = "dim7"
    elif kind == "delta" or (kind == "major" and extension not in ("", "6", "69")):
        extension = "maj" + (extension or "7")
    elif len(extension) > 1 and extension[0] == "7":  # the `7M` of Latin charts
        extension = "maj7"
    return _Parts({"minor": "m", "dim": "dim", "aug": "aug"}.get(kind, ""), extension), end


def _tones(parts: _Parts, match: re.Match[str], bracketed: bool) -> tuple[str, ...]:
    """The tones that one modifier adds or alters, by name; suspensions and major sevenths go into `parts` here."""
    written, said = match.group(), match.groupdict()
    fits = True
    tones: tuple[str, ...] = ()
    if said["sus"] is not None:
        fits = parts.triad == "" and not parts.suspension
        parts.suspension = "sus2" if said["sus"] == "2" else "sus4"
        tones = ("add9",) if len(said["sus"]) > 1 else ()
    elif said["add"]:
        degree = said["add"].lstrip("#b")
        tones = ("add" + said["add"][: -len(degree)] + {"2": "9", "4": "11", "6": "13"}.get(degree, degree),)
    elif said["omit"]:
        tones = ("no" + said["omit"],)
    elif said["alt"]:
        fits = parts.extension in ("", "7")
        parts.extension, tones = "7", ("alt",)
    elif said["maj"] or said["delta"]:
        number = said["maj"] or "7"
        fits = not parts.extension or (number == "7" and parts.extension in ("9", "11", "13"))
        parts.extension = "maj" + (parts.extension or number)
    elif said["aug"]:
        tones = ("#5",)
    elif said["plain"]:
        # `7(9)`, `7/13`, `7sus13`, `C(9)`, `C/9`; but `sus9`, `m79` say too little.
        apart = said["slash"] or bracketed or match.string[match.start() - 1] in _BLANKS
        fits = bool(apart or parts.suspension) if parts.extension else bool(bracketed or said["slash"])
        tones = ("add" + said["plain"],)
    else:
        fits = said["sign"] in "#b" or said["degree"] == "5" or parts.extension != ""  # `Cm-9` is often meant as Cm9
        name = {"+": "#", "-": "b"}.get(said["sign"], said["sign"]) + said["degree"]
        name = {"b10": "#9", "b6": "b13", "#4": "#11"}.get(name, name)
        tones = ("b6" if name == "b13" and parts.triad in ("m", "dim") and not parts.extension else name,)
    if not fits:
        raise ChordError(match.string, match.start(), f"{written!r} does not go with what stands before it")
    return tones


def _add(parts: _Parts, tone: str, match: re.Match[str]) -> None:
    """Add a tone; a contradiction or a repetition is an error, not an overwrite."""
    if tone not in _TONES:
        raise ChordError(match.string, match.start(), f"{match.group()!r} is not a chord tone")
    both = {tone, *parts.modifiers}
    contradicted = (
        tone in parts.modifiers
        or "alt" in parts.modifiers
        or (tone == "alt" and bool(parts.modifiers or parts.triad or parts.suspension))
        or (tone in ("b5", "#5") and parts.triad in ("dim", "aug"))
        or (tone in ("#9", "add#9") and parts.triad in ("m", "dim"))
        or ("add9" in both and bool({"b9", "#9"} & both))
        or {"add13", "b13"} <= both
        or (tone == "no3" and bool(parts.triad or parts.suspension))
        or (tone == "add3" and not parts.suspension)
    )
    if contradicted:
        raise ChordError(match.string, match.start(), f"{match.group()!r} repeats or contradicts what stands before it")
    parts.modifiers.add(tone)


def _normal(parts: _Parts) -> _Parts:
    """The one form of what can be written in several: `+M7` is `maj7#5`, `m(b5)` `dim`, `7(9)` `9`, `(no3)` `5`."""
    triad, extension = parts.triad, parts.extension
    if extension == "11" and parts.suspension == "sus4":
        extension = "9"
    held = {*_EXTENSIONS[extension], *_SUSPENSIONS[parts.suspension]}
    modifiers = {each for each in parts.modifiers if not (each[:3] == "add" and set(_TONES[each]) <= held)}
    for added, joined in _JOINED.items():
        if added in modifiers and extension in joined and not (added == "add13" and triad in ("m", "dim")):
            extension = joined[extension]
            modifiers.remove(added)
    if "b6" in modifiers and extension:
        modifiers = modifiers - {"b6"} | {"b13"}
    one_fifth = not {"b5", "#5"} <= modifiers
    if triad == "m" and "b5" in modifiers and one_fifth and (extension in ("", "6") or extension.startswith("maj")):
        triad, extension = "dim", "dim7" if extension == "6" else extension
        modifiers.remove("b5")
    if triad == "aug" and extension:
        triad = ""
        modifiers.add("#5")
    if not triad and not extension and not parts.suspension and one_fifth:
        for modifier, other in (("no3", "5"), ("#5", "aug")):
            if modifier in modifiers and not triad:
                triad = other
                modifiers.remove(modifier)
    return _Parts(triad, extension, modifiers, parts.suspension)


def _name(parts: _Parts) -> str:
    if parts.extension == "dim7":
        head = "dim7"
    elif parts.triad and parts.extension.startswith("maj"):
        head = f"{parts.triad}Maj{parts.extension[3:]}"
    else:
        head = parts.triad + parts.extension
    head += parts.suspension
    tail = "".join(tone for tone in _TONES if tone in parts.modifiers)
    # `C(b5)`: without the brackets the accidental would belong to the root.
    return f"({tail})" if not head and tail[:1] in ("b", "#") else head + tail


def _intervals(parts: _Parts) -> tuple[int, ...]:
    tones = {*_TRIADS[parts.triad], *_EXTENSIONS[parts.extension]}
    if parts.triad == "m" and parts.extension == "13":
        tones.add(5)
    if parts.suspension:
        tones -= {3, 4}
    if "b13" in parts.modifiers and parts.extension.endswith("13"):
        tones.remove(9)
    for name in parts.modifiers:
        tones -= _REPLACES.get(name, set())
    for name in parts.modifiers:
        tones |= set(_TONES[name])
    return tuple(sorted(tones | set(_SUSPENSIONS[parts.suspension])))
