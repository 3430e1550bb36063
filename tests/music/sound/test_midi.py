"""What mido reads back from the MIDI file is what was asked for."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import mido
import pytest

from etude.music.arrange import Note, arrange
from etude.music.sound import write_midi
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song


def song(text: str, meter: str = "4/4", genre: str = "pop", key: str = "C", tempo: float = 96.0) -> Song:
    bars = tuple(Bar.of(*[Chord.parse(symbol) for symbol in bar.split()]) for bar in text.split("|"))
    sections = (Section("verse", bars[:2]), Section("副歌", bars[2:]))
    return Song("Ein Lied", Key.parse(key), sections, Meter.parse(meter), tempo, genre)


def written(piece: Song, notes: tuple[Note, ...] | None = None) -> mido.MidiFile:
    file = io.BytesIO()
    write_midi(piece, arrange(piece) if notes is None else notes, file)
    return mido.MidiFile(file=io.BytesIO(file.getvalue()), charset="utf-8")


def sounding(track: mido.MidiTrack) -> list[tuple[int, int, int, int]]:
    """(start, stop, pitch, velocity) in ticks; fails where a pitch is struck twice or left hanging."""
    now, struck, notes = 0, {}, []
    for message in track:
        now += message.time
        if message.type == "note_on":
            assert message.note not in struck
            assert message.velocity > 0
            struck[message.note] = (now, message.velocity)
        elif message.type == "note_off":
            start, velocity = struck.pop(message.note)
            notes.append((start, now, message.note, velocity))
    assert not struck
    return sorted(notes)


def markers(file: mido.MidiFile) -> list[tuple[int, str]]:
    now, found = 0, []
    for message in file.tracks[0]:
        now += message.time
        if message.type == "marker":
            found.append((now, message.text))
    return found


@pytest.mark.parametrize("meter", ["4/4", "3/4", "6/8", "7/8", "5/4", "2/2", "12/8"])
def test_metadata_tracks_and_lengths(meter: str) -> None:
    piece = song("Bb7|Eb6 F7|Bb|Bb", meter, "jazz", "Bb")
    file = written(piece)
    assert file.type == 1
    assert file.ticks_per_beat == 480
    meta = {message.type: message for message in file.tracks[0]}
    assert meta["track_name"].name == "Ein Lied"
    assert meta["set_tempo"].tempo == 625000
    assert (meta["time_signature"].numerator, meta["time_signature"].denominator) == (
        piece.meter.beats,
        piece.meter.unit,
    )
    assert meta["key_signature"].key == "Bb"
    assert [track.name for track in file.tracks[1:]] == ["Chords", "Bass", "Drums"]
    for track, channel, program in zip(file.tracks[1:], (0, 1, 9), (4, 32, 0), strict=True):
        assert {message.channel for message in track if not message.is_meta} == {channel}
        assert [message.program for message in track if message.type == "program_change"] == [program]
        assert any(message.type == "note_on" for message in track)
    for track in file.tracks:
        assert sum(message.time for message in track) == 4 * piece.meter.quarters * 480
        assert all(message.time >= 0 for message in track)
        assert track[-1].type == "end_of_track"
    assert file.length == pytest.approx(piece.seconds, abs=1e-3)


def test_every_note_comes_back() -> None:
    for genre in ("jazz", "pop", "folk", "rock"):
        piece = song("Dm7|G7 Db7|C6|F|C", genre=genre)
        notes = arrange(piece)
        file = written(piece, notes)
        for track, part in zip(file.tracks[1:], ("chords", "bass", "drums"), strict=True):
            asked = [(n.start * 480, n.end * 480, n.pitch, n.velocity) for n in notes if n.part == part]
            assert sounding(track) == sorted((round(a), round(b), p, v) for a, b, p, v in asked)


def test_markers_name_chords_as_the_key_spells_them_and_sections() -> None:
    text = "Eb|G#7/C N.C.|C#|C#|Bb"
    flat, sharp = written(song(text, key="Ab")), written(song(text, key="E"))
    assert markers(flat) == [
        (0, "[verse]"), (0, "Eb"), (1920, "Ab7/C"), (2880, "N.C."), (3840, "[副歌]"), (3840, "Db"), (7680, "Bb"),
    ]  # fmt: skip
    assert [text for _, text in markers(sharp)] == ["[verse]", "D#", "G#7/B#", "N.C.", "[副歌]", "C#", "A#"]


@pytest.mark.parametrize(
    ("key", "signature"),
    [("C", "C"), ("F#", "F#"), ("Gb", "Gb"), ("Cb", "Cb"), ("C#m", "C#m"), ("Ebm", "Ebm"), ("D#m", "D#m"), ("G#", "Ab"),
     ("D#", "Eb"), ("Fb", "E"), ("Dbm", "C#m"), ("Gbm", "F#m"), ("Cbm", "Bm"), ("E#m", "Fm"), ("B#", "C")],
)  # fmt: skip
def test_every_key_has_a_signature(key: str, signature: str) -> None:
    file = written(song("C|C|C", key=key))
    assert next(m.key for m in file.tracks[0] if m.type == "key_signature") == signature


def test_notes_are_kept_apart_and_inside_the_song() -> None:
    def note(start: float, length: float | Fraction, pitch: int = 60) -> Note:
        return Note(Fraction(start), Fraction(length), pitch, 90, "chords")

    notes = (note(0, 4), note(1, 1), note(1, 2), note(11, 9), note(12, 1), note(2, Fraction(1, 10000), 62))
    track = written(song("C|C|C"), notes).tracks[1]
    assert sounding(track) == [(0, 480, 60, 90), (480, 1440, 60, 90), (960, 961, 62, 90), (5280, 5760, 60, 90)]


def test_bytes_are_reproducible_and_files_atomic(tmp_path: Path) -> None:
    piece = song("Am|F|C|G")
    for name in ("one.mid", "two.mid"):
        write_midi(piece, arrange(piece, 7), tmp_path / name)
    assert (tmp_path / "one.mid").read_bytes() == (tmp_path / "two.mid").read_bytes()
    assert (tmp_path / "one.mid").read_bytes()[:4] == b"MThd"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.mid", "two.mid"]
    with pytest.raises(FileNotFoundError):
        write_midi(piece, (), tmp_path / "nowhere" / "x.mid")


def test_an_empty_song_is_a_file_too() -> None:
    file = written(Song("", Key("C"), ()))
    assert len(file.tracks) == 4
    assert file.length == 0
