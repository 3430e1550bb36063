"""Songs on paper: metres, bars, and the chords in time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.theory import Bar, Change, Chord, Key, Meter, Section, Song, merge_changes, split_into_bars

D, A, BM, G = (Chord.parse(symbol) for symbol in ("D", "A", "Bm", "G"))
QUARTER, HALF = Fraction(1, 4), Fraction(1, 2)
lengths = st.fractions(Fraction(1, 16), 5, max_denominator=16)
changes = st.lists(st.tuples(st.sampled_from([D, A, BM, G]), lengths), min_size=1, max_size=8)


def song(*bars: Bar, meter: Meter | None = None, tempo: float = 120.0) -> Song:
    return Song("Song", Key("D"), (Section("A", bars),), meter or Meter(), tempo)


@pytest.mark.parametrize(("text", "quarters"), [("4/4", 4), ("3/4", 3), ("6/8", 3), ("7/8", Fraction(7, 2))])
def test_meter(text: str, quarters: Fraction) -> None:
    assert Meter.parse(text).quarters == quarters and str(Meter.parse(text)) == text


@pytest.mark.parametrize("text", ["4", "4/5", "0/4", "33/4", "4/4/4", "", "-3/4", "four/four"])
def test_what_is_no_meter_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="metre"):
        Meter.parse(text)


def test_a_bar_is_shared_equally_or_as_told() -> None:
    assert Bar.of(D, A).chords == ((D, HALF), (A, HALF))
    assert Bar(((D, 1 - QUARTER), (A, QUARTER))) != Bar.of(D, A)


@pytest.mark.parametrize("shares", [(), (HALF,), (HALF, QUARTER), (HALF, HALF, HALF), (Fraction(3, 2), -HALF)])
def test_the_shares_of_a_bar_are_positive_and_sum_to_one(shares: tuple[Fraction, ...]) -> None:
    with pytest.raises(ValueError, match="sum to one"):
        Bar(tuple((D, share) for share in shares))


@pytest.mark.parametrize("tempo", [19.9, 400.1, 0, -1, float("nan"), float("inf")])
def test_tempo_limits(tempo: float) -> None:
    with pytest.raises(ValueError, match="tempo"):
        song(Bar.of(D), tempo=tempo)


def test_a_song_lasts_as_long_as_its_bars() -> None:
    assert song(Bar.of(D), Bar.of(A)).seconds == 4.0
    assert song(Bar.of(D), Bar.of(A), meter=Meter(6, 8), tempo=60).seconds == 6.0


def test_a_chord_that_stays_over_a_bar_line_is_one_change() -> None:
    written = song(Bar.of(D, A), Bar.of(A), Bar.of(BM))
    assert written.changes() == (
        Change(D, Fraction(0), HALF),
        Change(A, HALF, Fraction(3, 2)),
        Change(BM, Fraction(2), Fraction(1)),
    )


def test_transposing_a_song_moves_key_and_chords_and_nothing_else() -> None:
    moved = song(Bar.of(D, A), Bar.of(BM)).transpose(2)
    assert moved.key == Key("E")
    assert [str(change.chord) for change in moved.changes()] == ["E", "B", "Dbm"]
    assert moved.transpose(-2) == song(Bar.of(D, A), Bar.of(BM))


@settings(deadline=None)
@given(changes)
def test_changes_laid_out_in_bars_keep_their_lengths(parts: list[tuple[Chord, Fraction]]) -> None:
    bars = list(split_into_bars(parts))
    total = sum(length for _, length in parts)
    assert len(bars) == -(-total // 1)
    filled = [*parts, (parts[-1][0], Fraction(len(bars) - total))]
    expected = [Change(chord, Fraction(0), length) for chord, length in filled if length]
    merged: list[tuple[Chord, Fraction]] = []
    for change in expected:
        if merged and merged[-1][0] == change.chord:
            merged[-1] = (change.chord, merged[-1][1] + change.length)
        else:
            merged.append((change.chord, change.length))
    assert [(change.chord, change.length) for change in merge_changes(bars)] == merged


@settings(deadline=None)
@given(changes)
def test_changes_follow_each_other_without_gaps(parts: list[tuple[Chord, Fraction]]) -> None:
    found = merge_changes(split_into_bars(parts))
    assert found[0].start == 0
    for before, after in pairwise(found):
        assert before.start + before.length == after.start and before.chord != after.chord
