"""How well a model says a song's next chord: every change but the first, scored in full, beside n-gram baselines.

A chord is right when root, quality and bass are. Probabilities are over all chords that the tokenizer can say; one that
it cannot say counts as wrong and costs ln 10,000 nats. *First* occurrences are changes that, with the two chords before
them and in any transposition, have not yet come in the song; the others are *repeats*, which copying can get right.
Text is scored by its tokens, all of them (`score_text`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.corpus.songs import SongDocument
from etude.engines.engine import Engine
from etude.errors import EtudeError
from etude.music.theory import Chord
from etude.tokens.chords import ChordTokenizer

from .batches import encode_plain
from .ngram import UNSAYABLE, NGramModel

UNSAYABLE_NATS = math.log(10_000)
UNSAYABLE_RANK = 1 << 30
# Order, and how many training occurrences one occurrence in the song's own past counts for: 100 has the fewest nats at
# order 5 on the validation songs, of 1, 10, 100 and 1,000 (docs/log.md).
BASELINES = {"3-gram": (3, 0.0), "5-gram": (5, 0.0), "3-gram + song": (3, 100.0), "5-gram + song": (5, 100.0)}

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Predict = Callable[[Ints, NDArray[np.bool_]], NDArray[Any]]
"""Plain ids, and which of them say their chord exactly, [1 + changes] each -> logits or log-probabilities of chords
[changes - 1, n_chords], for all changes but the first."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One entry a scored change, song after song."""

    nats: Floats  # [n]
    rank: Ints  # [n]: how many chords were likelier
    first: NDArray[np.bool_]  # [n]
    song: Ints  # [n]


def score(songs: Iterable[SongDocument], tokenizer: ChordTokenizer, predict: Predict) -> Scores:
    """Score every change but each song's first. `predict` sees one song at a time."""
    parts: list[Scores] = []
    for index, document in enumerate(songs):
        if len(document.changes) < 2:
            continue
        ids, said = encode_plain(document, tokenizer)
        logits = np.asarray(predict(ids, said), np.float64)  # [changes - 1, n_chords]
        answers, rows = np.where(said, ids, 0)[2:], np.arange(len(logits))
        shifted = logits - logits.max(axis=1, keepdims=True)
        right = logits[rows, answers][:, None]
        # Of equally likely chords the one with the smaller id comes first, as argmax has it.
        rank = (logits > right).sum(axis=1) + ((logits == right) & (np.arange(logits.shape[1]) < answers[:, None])).sum(
            axis=1
        )
        nats = np.log(np.exp(shifted).sum(axis=1)) - shifted[rows, answers]
        parts.append(
            Scores(
                np.where(said[2:], nats, UNSAYABLE_NATS),
                np.where(said[2:], rank, UNSAYABLE_RANK),
                first_occurrences(document.changes)[1:],
                np.full(len(rank), index),
            )
        )
    if not parts:
        raise EtudeError("no song has two chords, so there is nothing to score")
    return Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in Scores.__slots__))


def score_text(documents: Sequence[Sequence[int]], engine: Engine, block_size: int) -> dict[str, Any]:
    """Mean nats a token, with the document as the sampling unit; each document is ids from BOS to BOS, scored in full.

    What is beyond a block is scored in the windows of `windows`.
    """
    nats: list[Floats] = []
    for document in documents:
        ids, parts = np.array(document), []
        for start, scored, end in windows(len(ids) - 1, block_size):
            logits = np.asarray(engine.start_all(ids[start:end].tolist()), np.float64)[scored - start :]  # [t, V]
            shifted = logits - logits.max(axis=1, keepdims=True)
            right = shifted[np.arange(len(shifted)), ids[scored + 1 : end + 1]]
            parts.append(np.log(np.exp(shifted).sum(axis=1)) - right)  # [t]
        nats.append(np.concatenate(parts))
    owner = np.repeat(np.arange(len(nats)), [len(each) for each in nats])
    measured = _mean(np.concatenate(nats), owner)
    return {"documents": len(nats), "tokens": len(owner), "nats_per_token": measured}


def score_stream(
    ids: NDArray[Any], nats: Callable[[NDArray[Any]], NDArray[Any]], block_size: int, batch_size: int
) -> dict[str, Any]:
    """Mean nats a token of a stream of ids [n], every one but the first scored in the windows of `windows`.

    `nats` says of rows of ids [b, t + 1] what each but the first costs, [b, t]; b is at most `batch_size`. The standard
    error takes a window as the sampling unit, so it is too small where neighbours are alike.
    """
    found: list[Floats] = []  # of each window
    for (length, scored), group in groupby(windows(len(ids) - 1, block_size), lambda w: (w[2] - w[0], w[1] - w[0])):
        starts = np.array([start for start, _, _ in group])
        for at in range(0, len(starts), batch_size):
            rows = ids[starts[at : at + batch_size, None] + np.arange(length + 1)]  # [b, t + 1]
            found.extend(np.asarray(nats(rows), np.float64)[:, scored:])
    owner = np.repeat(np.arange(len(found)), [len(each) for each in found])
    return {"tokens": len(owner), "nats_per_token": _mean(np.concatenate(found), owner)}


def windows(length: int, block_size: int) -> list[tuple[int, int, int]]:
    """Cut `length` inputs into (start, scored from, end): each scored once, with at least half a block of context."""
    if length <= block_size:
        return [(0, 0, length)]
    half = block_size // 2
    later = [(at - half, at, min(at + half, length)) for at in range(2 * half, length, half)]
    return [(0, 0, 2 * half), *later]


def first_occurrences(changes: Sequence[Chord]) -> NDArray[np.bool_]:
    """For each change, whether it and the two before it have not yet come in this order, in any transposition.

    `N.C.` stands on the last root before it. The second change of a song has one chord before it, so it is a first.
    """
    roots, root = [], 0
    for chord in changes:
        root = root if chord.root is None else chord.root
        roots.append(root)
    seen: set[tuple[Any, ...]] = set()
    first = np.zeros(len(changes), bool)
    for i in range(len(changes)):
        window = range(max(0, i - 2), i + 1)
        shapes = tuple((changes[j].transpose(-roots[window[0]]), (roots[j] - roots[window[0]]) % 12) for j in window)
        first[i] = shapes not in seen
        seen.add(shapes)
    return first


def summarize(scores: Scores) -> dict[str, Any]:
    """The document of `etude eval`: means with standard errors, for all changes, first occurrences and repeats."""
    everything = np.ones(len(scores.rank), bool)
    document = _columns(scores, everything, tops=(1, 3, 5))
    for name, part in (("first", scores.first), ("repeat", ~scores.first)):
        document[name] = _columns(scores, part, tops=(1, 3))
    return document


def _columns(scores: Scores, part: NDArray[np.bool_], tops: tuple[int, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {"changes": int(part.sum())}
    for top in tops:
        columns[f"top{top}"] = _mean(scores.rank[part] < top, scores.song[part])
    columns["nats_per_chord"] = _mean(scores.nats[part], scores.song[part])
    return columns


def _mean(values: NDArray[Any], songs: Ints) -> dict[str, float | None]:
    """The mean over changes (or tokens), and its standard error with the song (or document) as the sampling unit, as
    changes of one song are not independent."""
    _, index = np.unique(songs, return_inverse=True)
    return ratio(np.bincount(index, weights=values), np.bincount(index))


def ratio(amounts: NDArray[Any], sizes: NDArray[Any]) -> dict[str, float | None]:
    """The sum of amounts over the sum of sizes, one of each for every sampling unit [n], and its standard error
    (Cochran, Sampling Techniques, 3rd ed., section 2.11). None where there is nothing, or one unit."""
    n, total = len(amounts), float(sizes.sum())
    if not total:
        return {"value": None, "se": None}
    value = float(amounts.sum()) / total
    residuals = amounts - value * sizes
    error = math.sqrt(float(np.square(residuals).sum()) * n / (n - 1)) / total if n > 1 else None
    return {"value": value, "se": error}


def baseline_predictors(model: NGramModel, tokenizer: ChordTokenizer) -> dict[str, Predict]:
    """The n-gram baselines as `score` wants them. Raises `EtudeError` for counts of other chords."""
    if not np.array_equal(model.edge, _edge(tokenizer)):
        raise EtudeError("the n-gram counts are of another tokenizer")

    def predictor(order: int, song: float) -> Predict:
        def predict(ids: Ints, said: NDArray[np.bool_]) -> Floats:
            steps = np.where(said[1:], to_intervals(ids[1:], tokenizer), UNSAYABLE)
            distribution = model.predict(steps, order, song)  # [changes - 1, n_chords]
            return np.log(_from_intervals(distribution, ids[1:], tokenizer))

        return predict

    return {name: predictor(order, song) for name, (order, song) in BASELINES.items()}


def fit_ngrams(songs: Iterable[SongDocument], tokenizer: ChordTokenizer, order: int = 5) -> NGramModel:
    """Count the training songs' n-grams of chords, each up to transposition."""
    sequences = []
    for document in songs:
        ids, said = encode_plain(document, tokenizer)
        sequences.append(np.where(said[1:], to_intervals(ids[1:], tokenizer), UNSAYABLE))
    return NGramModel.fit(sequences, tokenizer.n_chords, order, _edge(tokenizer))


def _edge(tokenizer: ChordTokenizer) -> Ints:
    """The oldest chord of an n-gram has no interval: it stands as the same shape with interval 0; N.C. as itself."""
    return np.concatenate([np.tile(np.arange(len(tokenizer.shapes)), 12), [tokenizer.n_chords - 1]])


def to_intervals(chords: Ints, tokenizer: ChordTokenizer) -> Ints:
    """Chord ids with roots counted from the last root before each (0 for the first) instead of the song's first."""
    shapes, rootless = len(tokenizer.shapes), tokenizer.n_chords - 1
    step = (chords // shapes - _roots_before(chords, tokenizer)) % 12
    return np.where(chords == rootless, rootless, step * shapes + chords % shapes)


def _from_intervals(distribution: Floats, chords: Ints, tokenizer: ChordTokenizer) -> Floats:
    """Rows over interval ids, one for each of `chords` but the first, as rows over ids from the song's first root."""
    rows, shapes = len(distribution), len(tokenizer.shapes)
    by_step = distribution[:, :-1].reshape(rows, 12, shapes)
    step = (np.arange(12) - _roots_before(chords, tokenizer)[1:, None]) % 12  # [rows, 12]
    by_root = np.take_along_axis(by_step, step[:, :, None], axis=1)  # [rows, 12, shapes]
    return np.concatenate([by_root.reshape(rows, -1), distribution[:, -1:]], axis=1)


def _roots_before(chords: Ints, tokenizer: ChordTokenizer) -> Ints:
    """For each chord the relative root of the last sounding chord before it; the first chord's own for the first."""
    roots = chords // len(tokenizer.shapes)
    sounding = chords != tokenizer.n_chords - 1
    last = np.maximum.accumulate(np.where(sounding, np.arange(len(chords)), -1))
    before = np.concatenate(([-1], last[:-1]))
    first = roots[sounding][0] if sounding.any() else 0
    return np.where(before >= 0, roots[np.maximum(before, 0)], first)
