"""Grooves fit any song: every metre, genre and share of a bar."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.arrange import Note, arrange, programs, voiced_intervals
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song

GENRES = ("jazz", "pop", "rock", "c-pop", "folk, world, & country", "carol", "latin", "")
METERS = (
    "4/4", "3/4", "6/8", "12/8", "9/8", "5/4", "7/8", "2/2", "3/2", "2/4", "6/4", "7/4", "3/8", "1/4", "5/8", "4/2",
    "13/16", "6/16", "16/16", "1/1", "11/4",
)  # fmt: skip
SYMBOLS = ("C", "Am7", "F/A", "G7b9", "N.C.", "C5", "Bbmaj9", "F#m7b5", "E7alt", "Dsus4")


def song(text: str, meter: str = "4/4", genre: str = "pop", labels: tuple[str, ...] = ("verse",)) -> Song:
    """Bars parted by `|`, sections by `||`."""
    parts = [
        tuple(Bar.of(*[Chord.parse(symbol) for symbol in bar.split()]) for bar in part.split("|"))
        for part in text.split("||")
    ]
    sections = tuple(Section(labels[i % len(labels)], bars) for i, bars in enumerate(parts))
    return Song("A song", Key("C"), sections, Meter.parse(meter), 120.0, genre)


def part(notes: tuple[Note, ...], name: str) -> list[Note]:
    return [note for note in notes if note.part == name]


shares = st.sampled_from([(1,), (1, 1), (3, 1), (1, 2), (1, 1, 1), (1, 15), (5, 3), (1, 1, 1, 1), (31, 1), (2, 3)])


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    weights = draw(shares)
    chosen = [Chord.parse(draw(st.sampled_from(SYMBOLS))) for _ in weights]
    return Bar(tuple((c, Fraction(w, sum(weights))) for c, w in zip(chosen, weights, strict=True)))


@st.composite
def songs(draw: st.DrawFn) -> Song:
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    sections = tuple(Section("x", tuple(draw(bars()) for _ in range(length))) for length in lengths)
    meter = Meter.parse(draw(st.sampled_from(METERS)))
    return Song("t", Key("C"), sections, meter, 100.0, draw(st.sampled_from(GENRES)))


@settings(max_examples=150, deadline=None)
@given(songs(), st.integers(0, 3))
def test_every_song_is_played_as_written(song: Song, seed: int) -> None:
    notes = arrange(song, seed)
    quarters, total = song.meter.quarters, len(song.bars) * song.meter.quarters
    assert notes == arrange(song, seed)
    assert list(notes) == sorted(notes, key=lambda note: note.start)
    assert all(note.end <= total for note in notes)
    for name in ("chords", "bass", "drums"):  # no pitch is struck while it sounds
        last: dict[int, Fraction] = {}
        for note in part(notes, name):
            assert note.start >= last.get(note.pitch, Fraction(0)), (note, song.meter)
            last[note.pitch] = note.end
    swing = "jazz" in song.genre
    for change in song.changes():
        start, end = change.start * quarters, (change.start + change.length) * quarters
        if swing and song.meter.unit <= 4:
            start, end = swung(start), swung(end)
        chord_notes = [note for note in part(notes, "chords") if start <= note.start < end]
        bass_notes = [note for note in part(notes, "bass") if start <= note.start < end]
        assert all(note.end <= end for note in chord_notes + bass_notes), "nothing sounds into the next chord"
        if change.chord.is_no_chord:
            assert not chord_notes
            assert not bass_notes
            continue
        heard = {note.pitch % 12 for note in chord_notes}
        root = change.chord.root
        assert root is not None
        assert heard == {(root + tone) % 12 for tone in voiced_intervals(change.chord)}
        assert bass_notes[0].start == start
        assert bass_notes[0].pitch % 12 == change.chord.bass
        assert all(28 <= note.pitch <= 50 for note in bass_notes)


def swung(time: Fraction) -> Fraction:
    beat = time // 1
    within = time - beat
    return beat + (within * 4 / 3 if within < Fraction(1, 2) else Fraction(2, 3) + (within - Fraction(1, 2)) * 2 / 3)


@pytest.mark.parametrize("genre", GENRES)
@pytest.mark.parametrize("meter", METERS)
def test_all_three_play_in_every_metre_and_genre(meter: str, genre: str) -> None:
    piece = song("C|Am|F|G7|C|C", meter, genre)
    notes = arrange(piece)
    for bar in range(5):
        start, end = bar * piece.meter.quarters, (bar + 1) * piece.meter.quarters
        for name in ("chords", "bass", "drums"):
            assert any(start <= note.start < end for note in part(notes, name)), (name, bar)


@pytest.mark.parametrize("genre", GENRES)
def test_the_last_chord_is_held_for_the_last_bar_and_no_longer(genre: str) -> None:
    notes = arrange(song("C|F|F|F", "4/4", genre))
    ending = [note for note in notes if note.start >= 12 and note.part != "drums"]
    assert {note.start for note in ending} == {12}
    assert {note.length for note in ending} == {4}
    assert {note.pitch % 12 for note in ending} == {5, 9, 0}
    assert {note.start for note in part(notes, "drums") if note.start >= 12} == {12}
    divided = arrange(song("C|F G7", "4/4", genre))
    last = [note for note in divided if note.start >= 6 and note.part != "drums"]
    assert len(last) > 3
    assert all(note.start == 6 and note.length == 2 for note in last)


def test_drums_go_on_while_the_band_rests() -> None:
    notes = arrange(song("C|N.C.|C|C"))
    assert {note.part for note in notes if 4 <= note.start < 8} == {"drums"}
    ends_in_silence = arrange(song("C|C|N.C."))
    assert max(note.end for note in ends_in_silence) <= 8


def test_swing_walks_and_bends_the_offbeats() -> None:
    notes = arrange(song("Dm7|G7|Cmaj7|A7|Dm7|G7|C6|C6", genre="jazz"))
    walking = [note for note in part(notes, "bass") if note.start < 28]
    assert [note.start for note in walking] == list(range(28)), "a note on every beat"
    for before, after in zip(walking[3::4], walking[4::4], strict=False):  # into each new chord
        assert (before.pitch - after.pitch) % 12 in (1, 11, 7)
    assert {note.start % 1 for note in notes} == {0, Fraction(2, 3)}
    assert {note.start % 1 for note in arrange(song("C|F|C", genre="pop"))} <= {0, Fraction(1, 2)}


def test_waltz_and_six_eight() -> None:
    waltz = arrange(song("C|F|C", "3/4", "pop"))
    assert [note.start for note in part(waltz, "bass")] == [0, 3, 6]
    assert sorted({note.start for note in part(waltz, "chords") if note.start < 6}) == [1, 2, 4, 5]
    six = arrange(song("C|F|C", "6/8", "folk"))
    assert sorted({note.start for note in part(six, "chords") if note.start < 3}) == [Fraction(i, 2) for i in range(6)]


def test_a_broken_chord_rings_until_its_string_is_plucked_again() -> None:
    lengths = [note.length for note in part(arrange(song("C|C|C", "4/4", "folk")), "chords") if note.start < 4]
    assert lengths == [2, 1, 2, 1, 2, 1, 1, Fraction(1, 2)]


def test_a_new_section_has_a_fill_and_a_crash() -> None:
    notes = part(arrange(song("C|F|G|C||Am|F|G|C")), "drums")
    assert [note.start for note in notes if note.pitch == 49] == [16, 28]  # the chorus, and the final chord
    fill = [note for note in notes if 15 <= note.start < 16 and note.pitch in (38, 47, 41)]
    assert [note.start for note in fill] == [15, Fraction(61, 4), Fraction(31, 2), Fraction(63, 4)]
    quiet, loud = (arrange(song("C|F|C", labels=(label,))) for label in ("intro", "chorus"))
    assert sum(note.velocity for note in quiet) < sum(note.velocity for note in loud)


@given(songs(), st.integers(0, 11))
@settings(max_examples=60, deadline=None)
def test_transposition_keeps_the_rhythm_and_moves_the_pitches(song: Song, semitones: int) -> None:
    here, there = arrange(song), arrange(song.transpose(semitones))
    assert part(here, "drums") == part(there, "drums")
    for start in {note.start for note in here}:
        before = {(note.pitch + semitones) % 12 for note in part(here, "chords") if note.start == start}
        after = {note.pitch % 12 for note in part(there, "chords") if note.start == start}
        assert len(before) == len(after)
        assert before == after or len(before) < 3  # a broken chord begins with whichever voice is lowest
    rhythm = [(note.start, note.velocity) for note in part(here, "bass")]
    assert rhythm == [(note.start, note.velocity) for note in part(there, "bass")]


def test_the_seed_changes_a_little() -> None:
    piece = song("C|F|G|C|C")
    one, two = arrange(piece, 1), arrange(piece, 2)
    assert one != two
    assert [replace(note, velocity=64) for note in one] == [replace(note, velocity=64) for note in two]
    assert all(abs(a.velocity - b.velocity) <= 8 for a, b in zip(one, two, strict=True))


def test_odd_songs() -> None:
    assert arrange(Song("", Key("C"), ())) == ()
    assert arrange(Song("", Key("C"), (Section("", ()), Section("a", ())))) == ()
    assert part(arrange(song("C")), "chords")[0].length == 4
    assert all(note.part == "drums" for note in arrange(song("N.C.|N.C.|N.C.")))
    assert programs(song("C", genre="folk"))[0] == 25
    assert programs(song("C", genre="Jazz")) == (4, 32)


def test_a_note_that_cannot_be_is_refused() -> None:
    for wrong in (
        {"start": Fraction(-1)}, {"length": Fraction(0)}, {"pitch": 128}, {"velocity": 0}, {"part": "flute"},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"note|pitch"):
            replace(Note(Fraction(0), Fraction(1), 60, 64, "chords"), **wrong)
