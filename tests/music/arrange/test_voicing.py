"""Voicings say what the chord is, stay clear and move little."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.arrange import movement, voice, voiced_intervals
from etude.music.theory import Chord

# Every quality of the training songbooks.
QUALITIES = (  # noqa: SIM905
    " m 7 maj7 m7 6 add9 m7b5 7b9 5 7sus4 sus4 m9 9 m6 dim7 maj9 9sus4 dim 7#5 7#9 69 m11 7#11 13 7b13 11 madd9 aug"
    " maj7#11 mMaj7 sus2 7alt maj13 mb6 9#11 7#5#9 sus4add9 madd11 7sus4b9 7b9b13 13sus4 7b5 add11 maj9#11 7b9#11"
    " 7#5b9 5add11 m13 m69 13b9 maj7#5 9#5 7sus2 7sus4b13 13#11 maj13#11 add#11 7#11b13 9b13 7#9#11 5#5 addb9 6sus2"
    " m#5 5add9add11 m7b13 9sus4#11 m9b13 madd9add11 maj7#9 mMaj13 mMaj9#11 5addb9 5b13 m6add#11 7#9b13 6addb9"
    " sus2add#11 add9add#11 sus2add11 m9b5 m7b9 9#5#11 maj7#9#11 69add#11 7b9#9"
).split(" ")


def chords(text: str) -> list[Chord]:
    return [Chord.parse(symbol) for symbol in text.split()]


@pytest.mark.parametrize("quality", QUALITIES)
def test_every_chord_on_every_root_is_clear_and_says_what_it_is(quality: str) -> None:
    canonical = Chord.parse("C" + quality if quality[:1] != "b" else f"C({quality})").quality
    for root in range(12):
        for bass in (root, (root + 4) % 12):
            chord = Chord(root, canonical, bass)
            (voicing,) = voice([chord])
            sounding = {(pitch - root) % 12 for pitch in voicing}
            tones = set(chord.intervals)
            assert sounding <= tones, "no tone that the chord has not"
            assert sounding >= (tones & {3, 4} or tones & {2, 5}) | tones & {10, 11}, "third or suspension, and seventh"
            if len(tones) <= 5 and "alt" not in canonical:
                assert sounding >= tones & {1, 6, 8, 10, 11}, "sevenths and alterations"
            if bass != root and len(tones) < 6:
                assert 0 in sounding, "nobody else has the root"
            assert 3 <= len(voicing) <= 5
            assert voicing == tuple(sorted(set(voicing)))
            assert voicing[0] >= 52
            assert voicing[-1] <= 79
            assert voicing[-1] - voicing[0] <= 16
            for low, high in pairwise(voicing):
                assert high - low > 2 or low >= 57, "a whole tone is mud below A3"
                assert high - low > 1 or low >= 60, "a semitone is mud below C4"


def test_fifths_go_first_and_then_roots() -> None:
    assert voiced_intervals(Chord.parse("C")) == (0, 4, 7)
    assert voiced_intervals(Chord.parse("Cm7")) == (0, 3, 7, 10)
    assert voiced_intervals(Chord.parse("C9")) == (0, 2, 4, 10)
    assert voiced_intervals(Chord.parse("C13")) == (2, 4, 9, 10)
    assert voiced_intervals(Chord.parse("C7b9")) == (1, 4, 7, 10)
    assert voiced_intervals(Chord.parse("C13/E")) == (0, 4, 9, 10)
    assert voiced_intervals(Chord.parse("C7alt")) == (1, 3, 4, 8, 10)
    assert voiced_intervals(Chord.parse("N.C.")) == ()


def test_common_progressions_move_by_steps() -> None:
    assert movement((60, 64, 67), (60, 65, 69)) == 3
    assert movement((60, 64, 67), (59, 62, 65, 67)) == 1 + 1 + 0 + 2
    for text in ("C Am F G C", "Dm7 G7 Cmaj7 A7b9 Dm9 G13 C69", "Am F C G Am", "C7 F7 C7 G7 F7 C7", "E A B E"):
        voicings = voice(chords(text))
        for before, after in pairwise(voicings):
            assert movement(before, after) <= 2.0 * max(len(before), len(after)), text


def test_a_long_progression_does_not_drift() -> None:
    circle = chords("C F Bb Eb Ab Db F# B E A D G") * 8
    for voicing in voice(circle):
        assert 58 <= sum(voicing) / len(voicing) <= 71


def test_the_path_is_the_cheapest_not_the_greedy_one() -> None:
    """Voicing all chords at once never moves more than voicing them one by one."""
    progression = chords("Cmaj7 Eb7 Abmaj7 B7 Emaj7 G7 Cmaj7")
    together = sum(movement(a, b) for a, b in pairwise(voice(progression)))
    alone = sum(movement(a, b) for a, b in pairwise([voice([chord])[0] for chord in progression]))
    assert together < alone


def test_no_chord_is_silent_and_empty_is_empty() -> None:
    assert voice([]) == ()
    assert voice(chords("N.C.")) == ((),)
    first, rest, last = voice(chords("C N.C. C"))
    assert rest == ()
    assert first == last


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([Chord(r, q, r) for r in range(12) for q in ("", "m", "7", "maj7", "m7b5", "9", "5")])),
    st.integers(0, 11),
)
def test_transposition_moves_every_pitch_class(progression: list[Chord], semitones: int) -> None:
    there = voice([chord.transpose(semitones) for chord in progression])
    for chord, here, moved in zip(progression, voice(progression), there, strict=True):
        shifted = {(pitch + semitones) % 12 for pitch in here}
        assert {pitch % 12 for pitch in moved} == shifted, chord
        assert len(here) == len(moved)
