"""Scores: what counts as right, as first, and how sure the means are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.corpus.songs import SongDocument, read_songs
from etude.engines.array import ArrayEngine
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.music.theory import Chord
from etude.tokens.chords import ChordTokenizer
from etude.training.batches import encode_plain
from etude.training.evaluation import (
    UNSAYABLE_NATS,
    baseline_predictors,
    first_occurrences,
    fit_ngrams,
    score,
    score_stream,
    score_text,
    summarize,
    to_intervals,
    windows,
)


def chords(text: str) -> tuple[Chord, ...]:
    return tuple(map(Chord.parse, text.split()))


def document(text: str) -> SongDocument:
    return SongDocument(text, text, "", "", chords(text), None)


def test_firsts_are_new_with_the_two_chords_before_in_any_key() -> None:
    assert first_occurrences(chords("C F G C F G C F")).tolist() == [True] * 5 + [False] * 3
    assert first_occurrences(chords("C F G D G A E"))[4:6].tolist() == [True, False]
    assert first_occurrences(chords("C F Gm C F G"))[5]
    assert not first_occurrences(chords("C N.C. C F C N.C. C"))[-1]


def test_first_occurrences_of_the_test_songs_as_published(shared_chords: Path) -> None:
    """The count stands in the notes beside the collection: 18,877 changes, 8,887 of them first."""
    firsts = [first_occurrences(song.changes)[1:] for song in read_songs(shared_chords / "test.jsonl.gz")]
    assert (sum(map(len, firsts)), sum(int(each.sum()) for each in firsts)) == (18_877, 8_887)


def test_scores_of_a_known_distribution(tokenizer: ChordTokenizer) -> None:
    logits = np.zeros((3, tokenizer.n_chords))
    song = document("D A D C13#11")  # the last cannot be said
    ids = [tokenizer.chord_id(chord, 2) for chord in song.changes]
    logits[0, ids[1]] = 2.0
    logits[1, [0, 1, 2, 3]] = 5.0
    logits[1, ids[2]] = 4.0
    scores = score([song], tokenizer, lambda ids, said: logits)
    assert scores.rank[0] == 0
    assert scores.nats[0] == pytest.approx(math.log(tokenizer.n_chords - 1 + math.e**2) - 2)
    assert scores.rank[1] == (4 if ids[2] > 3 else 3)
    assert scores.nats[2] == UNSAYABLE_NATS
    summary = summarize(scores)
    assert summary["top1"]["value"] == pytest.approx(1 / 3)
    assert summary["changes"] == 3


def test_of_equal_logits_only_one_is_first(tokenizer: ChordTokenizer) -> None:
    song = document("D A Bm G D A7 D")
    scores = score([song], tokenizer, lambda ids, said: np.zeros((6, tokenizer.n_chords)))
    assert scores.rank.tolist() == [tokenizer.chord_id(chord, 2) for chord in song.changes[1:]]


def test_the_standard_error_has_songs_as_units(tokenizer: ChordTokenizer) -> None:
    """Doubling every song by a copy of its changes must not make the mean surer."""
    song, other = document("D A D A D A D A"), document("D Bm D Bm D Bm D Bm")
    a = tokenizer.chord_id(Chord.parse("A"), 2)
    d = tokenizer.chord_id(Chord.parse("D"), 2)

    def predict(ids: np.ndarray, said: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(ids) - 2, tokenizer.n_chords))
        logits[0::2, a] = 1.0
        logits[1::2, d] = 1.0
        return logits

    mean = summarize(score([song, other], tokenizer, predict))["top1"]
    assert mean["value"] == pytest.approx((7 + 3) / 14)
    # Two songs of 7 changes with residuals of +2 and -2 changes: sqrt(2 * (4 + 4)) / 14.
    assert mean["se"] == pytest.approx(4 / 14)


@given(st.integers(1, 300), st.integers(2, 40).map(lambda n: 2 * n))
def test_windows_score_every_input_once_with_context(length: int, block: int) -> None:
    cut = windows(length, block)
    assert [i for _, scored, end in cut for i in range(scored, end)] == list(range(length))
    assert all(end - start <= block for start, _, end in cut)
    assert all(scored - start >= block // 2 for start, scored, _ in cut[1:])


def test_intervals_say_the_same_in_every_key_and_baselines_sum_to_one(
    songs: list[SongDocument], tokenizer: ChordTokenizer
) -> None:
    ids = np.array(tokenizer.encode_changes(chords("D A Bm N.C. G D")).ids)[1:]
    steps = to_intervals(ids, tokenizer) // len(tokenizer.shapes)
    assert steps.tolist() == [0, 7, 2, 12, 8, 7]
    predictors = baseline_predictors(fit_ngrams(songs, tokenizer), tokenizer)
    for name, predict in predictors.items():
        p = np.exp(predict(*encode_plain(songs[0], tokenizer)))
        assert p.shape == (len(songs[0].changes) - 1, tokenizer.n_chords), name
        assert np.allclose(p.sum(axis=1), 1)
    # D A Bm G stands in the songs; in F it is F C Dm Bb.
    fourth = predictors["5-gram"](*encode_plain(document("F C Dm F"), tokenizer))[2]
    assert fourth.argmax() == tokenizer.chord_id(Chord.parse("Bb"), 5)


def test_counts_of_other_chords_are_refused(songs: list[SongDocument], tokenizer: ChordTokenizer) -> None:
    other = ChordTokenizer(tokenizer.shapes[:-1])
    with pytest.raises(EtudeError, match="another tokenizer"):
        baseline_predictors(fit_ngrams(songs, tokenizer), other)


@pytest.mark.parametrize("block_size", [7, 8])
@pytest.mark.parametrize("length", [2, 8, 9, 30, 41])
def test_a_stream_is_scored_as_one_document_whatever_the_batch(length: int, block_size: int) -> None:
    config = GPTConfig("micro", 6, 8, 1, 2, 8)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, shape) for name, shape in parameter_shapes(config).items()}
    ids, engine = rng.integers(0, 6, length), ArrayEngine(config, weights)

    def nats(rows: np.ndarray) -> np.ndarray:
        assert len(rows) <= batch_size
        logits = np.stack([engine.start_all(row[:-1].tolist()) for row in rows])  # [b, t, V]
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return np.asarray(-np.take_along_axis(log_p, rows[:, 1:, None], axis=2)[:, :, 0])

    wanted = score_text([ids.tolist()], engine, block_size)
    for batch_size in (1, 3, 100):
        found = score_stream(ids, nats, block_size, batch_size)
        assert found["tokens"] == wanted["tokens"] == length - 1
        assert found["nats_per_token"]["value"] == pytest.approx(wanted["nats_per_token"]["value"], abs=1e-12)
