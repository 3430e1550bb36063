"""Whole songs: forms whose sections return, endings on the tonic, the same in every key."""

from __future__ import annotations

import pytest

import etude
from etude.composer import ComposeError, compose
from etude.music.chart import parse_progression
from etude.music.theory import Chord, Key, Meter, Song, merge_changes
from etude.sampling import GREEDY

MODEL = etude.load("chords")
PROMPT = "D A Bm F#m"


def letters(song: Song) -> str:
    return "".join(section.label for section in song.sections)


def test_the_prompt_opens_the_song_and_sections_return() -> None:
    song = compose(PROMPT, MODEL).song
    assert letters(song) == "AABA"
    first, second, third, last = (section.bars for section in song.sections)
    assert [bar.chords[0][0] for bar in first[:4]] == list(parse_progression(PROMPT).chords)
    assert first == second
    assert third[0] != first[0]
    assert last[:6] == first[:6]
    assert len(song.bars) == 32


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("prompt", "tonic"), [(PROMPT, "D"), ("Am F C G", "C"), ("Am Dm E7 Am", "Am"), ("Dm7 G7 Cmaj7", "C")]
)
def test_a_song_ends_on_a_cadence(prompt: str, tonic: str, seed: int) -> None:
    song = compose(prompt, MODEL, seed=seed, key=Key.parse(tonic)).song
    before, last = song.changes()[-2:]
    assert last.chord.root == Chord.parse(tonic).root == last.chord.bass
    assert (3 in last.chord.intervals) == tonic.endswith("m")
    assert last.length >= 1
    steps = (
        (before.chord.root - last.chord.root) % 12
        if before.chord.root is not None and last.chord.root is not None
        else -1
    )
    assert steps in (5, 7, 10)


@pytest.mark.parametrize("seed", range(4))
def test_a_new_section_is_no_loop_of_a_bar_or_two(seed: int) -> None:
    song = compose(PROMPT, MODEL, seed=seed).song
    assert len(set(song.sections[2].bars)) >= 4


def test_a_last_section_of_two_bars_is_a_cadence() -> None:
    song = compose("Am F C G", MODEL, bars=11, key="Am").song
    before, last = song.changes()[-2:]
    assert last.chord == Chord.parse("Am")
    assert before.chord.root in {2, 4, 5, 7}


def test_the_song_ends_on_the_tonic_as_the_prompt_has_it() -> None:
    for prompt, tonic in (("A7 D7 E7", "A7"), ("Dm7b5 G7b9 Cm6", "Cm6")):
        song = compose(
            prompt, MODEL, key=Chord.parse(tonic).transpose(0).name()[:1] + ("m" if "m" in tonic else "")
        ).song
        assert song.bars[-1].chords[0][0] == Chord.parse(tonic)


def test_sections_of_the_prompt_become_the_letters() -> None:
    song = compose("[Verse] Am F C G [Chorus] F G C C", MODEL, form="ABAB").song
    assert [section.label for section in song.sections] == ["Verse", "Chorus", "Verse", "Chorus"]
    assert [str(bar.chords[0][0]) for bar in song.sections[1].bars[:4]] == ["F", "G", "C", "C"]
    typed = "[Verse] Am F C G [Chorus] " + "F G C Am " * 2
    song = compose(typed, MODEL).song  # the prompt's own form, and none of its bars overwritten by the ending
    assert [section.label for section in song.sections] == ["Verse", "Chorus"]
    assert song.sections[1].bars[:8] == parse_progression("F G C Am " * 2).bars
    assert len(song.sections[1].bars) == 10
    with pytest.raises(ComposeError, match="leaves out B"):
        compose(typed, MODEL, form="AA")
    with pytest.raises(ComposeError, match="stands twice"):
        compose("[Verse] C F [Verse] C G", MODEL)
    with pytest.raises(ComposeError, match="names 5 sections"):
        compose("[A] C [B] F [C] G [D] C [E] F", MODEL)


@pytest.mark.parametrize("semitones", range(12))
def test_the_same_song_in_every_key(semitones: int) -> None:
    here = compose(parse_progression(PROMPT).chords, MODEL, seed=3)
    there = compose([c.transpose(semitones) for c in here.prompt], MODEL, seed=3)
    assert [c.transpose(semitones) for c in here.continuation] == list(there.continuation)


@pytest.mark.parametrize("semitones", range(12))
def test_greedy_goes_on_with_the_canon(semitones: int) -> None:
    prompt = [c.transpose(semitones) for c in parse_progression(PROMPT).chords]
    result = compose(prompt, MODEL, chords=4, sampling=GREEDY)
    assert [str(chord.transpose(-semitones)) for chord in result.continuation] == ["G", "D", "G", "A"]
    assert len(result.song.bars) == 8


@pytest.mark.parametrize(
    ("form", "bars"),
    [("A", 8), ("A", 3), ("AB", 16), ("ABAB", 30), ("AABA", 33), ("ABCD", 12), ("ABABCB", 48), ("AAAA", 64)],
)
def test_forms_and_lengths_are_kept(form: str, bars: int) -> None:
    song = compose("C", MODEL, form=form, bars=bars).song
    assert letters(song) == form
    assert len(song.bars) == bars


@pytest.mark.parametrize("meter", ["3/4", "6/8", "12/8", "5/4", "7/8", "2/2", "2/4"])
def test_other_metres_put_chords_on_beats(meter: str) -> None:
    parsed = Meter.parse(meter)
    song = compose("Am F C G", MODEL, meter=parsed, genre="jazz", seed=2).song
    for change in song.changes():
        assert (change.start * parsed.beats).denominator == 1
    assert song.meter == parsed


def test_bar_lines_of_the_prompt_are_kept() -> None:
    song = compose("| Dm7 G7 | Cmaj7 . . A7 |", MODEL, genre="jazz").song
    assert song.bars[:2] == parse_progression("| Dm7 G7 | Cmaj7 . . A7 |").bars


def test_the_continuation_is_what_was_added() -> None:
    result = compose(PROMPT, MODEL, bars=16)
    assert result.prompt + result.continuation == tuple(change.chord for change in result.song.changes())


def test_a_prompt_may_be_longer_than_a_section_and_hold_strange_chords() -> None:
    song = compose("C Am F G " * 4 + "Am11b13", MODEL).song
    assert len(song.sections[0].bars) >= 17
    assert Chord.parse("Am11b13") in [change.chord for change in song.changes()]
    silent = compose("N.C.", MODEL).song
    assert silent.bars[0].chords[0][0] == Chord(None, "", None)


def test_seeds_differ_and_repeat() -> None:
    songs = [compose(PROMPT, MODEL, seed=seed).song for seed in (1, 1, 2, 3)]
    assert songs[0] == songs[1]
    assert len({song.changes() for song in songs}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": ""}, "letters"), ({"form": "AE"}, "letters"), ({"form": "BA"}, "begin with A"),
        ({"form": "A" * 99}, "letters"), ({"bars": 1}, "2 to"),
        ({"bars": 4}, "ask for 10"), ({"bars": 513}, "2 to 512"), ({"chords": 0}, "1 to"),
        ({"genre": "polka"}, "polka"), ({"chords": 2, "form": "AB"}, "without a form"),
        ({"form": "AB" * 16, "bars": 20}, "ask for 66"),
    ],
)  # fmt: skip
def test_what_cannot_be_composed(options: dict[str, object], message: str) -> None:
    with pytest.raises(ComposeError, match=message):
        compose(PROMPT, MODEL, **options)  # type: ignore[arg-type]


def test_python_has_the_same_verb() -> None:
    result = etude.compose(PROMPT, bars=8, form="A", seed=5)
    assert merge_changes(result.song.bars) == result.song.changes()
    assert "F#m" in result._repr_html_()
    listed = etude.compose(["D", "A"], key="D major", bars=8)
    assert listed.song.key == Key("D")
