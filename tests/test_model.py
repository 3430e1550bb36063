"""The bundled model: what it suggests, the same in every key."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etude
from etude.errors import EtudeError
from etude.gpt.directory import ModelError
from etude.model import ChordModel
from etude.music.theory import Chord, Key
from etude.sampling import GREEDY, Sampling

PROMPT = tuple(map(Chord.parse, ("D", "A", "Bm", "F#m")))
MODEL = etude.load("chords")
symbols = st.sampled_from(["C", "Am", "Dm7", "G7", "Fmaj7", "Bb", "E7b9", "F#m7b5", "C/E", "Gsus4", "N.C.", "Bdim7"])


@given(st.lists(symbols, min_size=1, max_size=12), st.integers(1, 11))
@settings(max_examples=25, deadline=None)
def test_the_same_probabilities_in_every_key_to_the_bit(prompt: list[str], semitones: int) -> None:
    chords = [Chord.parse(symbol) for symbol in prompt]
    here = MODEL.suggest(chords, top=8)
    there = MODEL.suggest([chord.transpose(semitones) for chord in chords], top=8)
    if any(chord.root is not None for chord in chords):
        assert here.key.transpose(semitones).pitch_class == there.key.pitch_class
        assert [c.chord.transpose(semitones) for c in here.candidates] == [c.chord for c in there.candidates]
        assert [c.numeral for c in here.candidates] == [c.numeral for c in there.candidates]
        assert [c.reason for c in here.candidates] == [c.reason for c in there.candidates]
    assert [c.probability for c in here.candidates] == [c.probability for c in there.candidates]


def test_a_famous_progression_goes_on_as_everybody_expects() -> None:
    assert MODEL.suggest("D A Bm F#m").candidates[0].symbol == "G"
    assert MODEL.suggest("Dm7 G7").candidates[0].symbol == "Cmaj7"
    looped = MODEL.suggest("C G Am F C G Am F C G Am").candidates[0]
    assert looped.symbol == "F"
    assert looped.probability > 0.8


def test_probabilities_over_all_chords_sum_to_one() -> None:
    everything = MODEL.suggest(PROMPT, top=MODEL.tokenizer.n_chords).candidates
    assert len(everything) == MODEL.tokenizer.n_chords
    assert sum(candidate.probability for candidate in everything) == pytest.approx(1)


def test_spelling_follows_the_key_and_what_was_typed() -> None:
    assert MODEL.suggest("Gb Db Ebm Cb").key == Key("Gb")
    assert MODEL.suggest("F# C# D#m B").key == Key("F#")
    assert MODEL.suggest("G♭ D♭ E♭m C♭").key == Key("Gb")
    assert not any("#" in c.symbol for c in MODEL.suggest("F Bb C", top=40).candidates if c.numeral[0] in "IViv")


def test_generate_is_seeded_and_never_repeats_a_chord_at_once() -> None:
    a, b, c = (MODEL.generate("Cm7 Ebmaj7", 20, Sampling(1.0), seed) for seed in (1, 1, 2))
    assert a == b != c
    assert all(x != y for x, y in pairwise(a))
    assert MODEL.generate(PROMPT, 0) == ()
    assert MODEL.generate(PROMPT, 5, GREEDY, 1) == MODEL.generate(PROMPT, 5, GREEDY, 2)


def test_a_long_prompt_and_a_silent_one() -> None:
    assert len(MODEL.suggest("C G " * 900).candidates) == 5
    assert MODEL.suggest("N.C.").key == Key("C")
    here, there = (MODEL.suggest("N.C.", key=key).candidates for key in ("C", "F#"))
    assert [c.chord.transpose(6) for c in here] == [c.chord for c in there]


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for name in ("nothing", tmp_path / "nothing"):
        with pytest.raises(ModelError, match="no such model directory"):
            etude.load(name)
    with pytest.raises(EtudeError, match="no chords"):
        MODEL.suggest([])


def test_a_trained_directory_loads_and_answers(model_directory: Path) -> None:
    model = etude.load(model_directory)
    assert isinstance(model, ChordModel)
    assert len(model.suggest("D A", top=3).candidates) == 3
    with pytest.raises(ModelError, match="no baselines"):
        model.baselines()


def test_suggestions_show_in_a_notebook() -> None:
    html = MODEL.suggest("D A")._repr_html_()
    assert all(f"<b>{candidate.symbol}</b>" in html for candidate in MODEL.suggest("D A").candidates)
