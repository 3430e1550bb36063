"""What a model in training writes, and how much of it stands word for word in the text that it is trained on.

A token of a sample counts as *verbatim* when it lies in a run of `window` tokens or more that occurs in the training
stream: `window` is 32 where tokens are characters or bytes and 10 where they are pieces of words, about as much text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.engines.array import ArrayEngine
from etude.generation import Plan, Task, Voice, write
from etude.gpt.config import GPTConfig
from etude.sampling import Sampling

SAMPLES = "samples.txt"
VERBATIM_CHARACTERS, VERBATIM_PIECES = 32, 10
"""The shortest run of tokens that is verbatim, of characters or bytes and of BPE."""
SEARCHED = 1 << 25
"""Verbatim runs are searched in the first so many tokens of the training stream, a second or less of work."""
_CHUNK = 1 << 20  # tokens that are looked at together
_BASE = 0x9E3779B97F4A7C15  # of the hashes of windows: odd, and its bits look random

Ids = NDArray[np.integer[Any]]


def write_samples(
    config: GPTConfig,
    weights: Mapping[str, NDArray[Any]],
    writable: int,
    beginning: int,
    n: int,
    tokens: int,
    seed: int,
    end: int | None = None,
) -> list[list[int]]:
    """`n` samples of at most `tokens` ids each, all after the id `beginning`, of the first `writable` ids.

    They are a function of weights and seed alone, and change nothing in a run. The id `end` ends a sample.
    """
    allowed = None if writable == config.vocab_size else np.arange(config.vocab_size) < writable  # [V]
    plan = Plan(tokens, Sampling(), seed, config.vocab_size, lambda last: allowed, end)
    task = Task("", (beginning,), lambda: Voice(lambda token: ""))
    return [list(sample.tokens) for sample in write(ArrayEngine(config, weights), [task], n, plan)]


def verbatim_share(samples: Sequence[Sequence[int]], stream: Ids, window: int) -> float:
    """The share of the samples' tokens in runs of `window` or more that stand in the first `SEARCHED` of `stream`.

    0 where there are no tokens. Windows are found by their hashes and then compared: none is counted that is not there.
    """
    runs = [np.array(sample, np.int64) for sample in samples]
    grams = [np.lib.stride_tricks.sliding_window_view(run, window) for run in runs if len(run) >= window]
    total = sum(map(len, runs))
    if not grams:
        return 0.0
    rows = np.concatenate(grams)  # [windows, window]
    hashes = np.concatenate([_hashes(run, window) for run in runs if len(run) >= window])  # [windows]
    wanted, first = np.unique(hashes, return_index=True)
    near = np.zeros(1 << 20, bool)  # by the first bits of a hash, whether one is wanted: almost all of a stream is not
    near[wanted >> np.uint64(44)] = True
    there = np.zeros(len(wanted), bool)
    stream = stream[:SEARCHED]
    for start in range(0, len(stream) - window + 1, _CHUNK):
        part = stream[start : start + _CHUNK + window - 1]
        found = _hashes(part, window)
        at = np.flatnonzero(near[found >> np.uint64(44)])
        for hashed, place in zip(*np.unique(found[at], return_index=True), strict=True):
            i = int(np.searchsorted(wanted, hashed))
            if i < len(wanted) and wanted[i] == hashed and not there[i]:
                there[i] = np.array_equal(part[at[place] : at[place] + window], rows[first[i]])
    stands = there[np.searchsorted(wanted, hashes)]  # [windows]
    covered, before = 0, 0
    for gram in grams:
        marks = np.zeros(len(gram) + window, np.int64)
        marks[: len(gram)] += stands[before : before + len(gram)]
        marks[window:] -= stands[before : before + len(gram)]
        covered += int((np.cumsum(marks) > 0).sum())
        before += len(gram)
    return covered / total


def samples_text(lines: Sequence[Mapping[str, Any]]) -> str:
    """`samples.txt`: the samples of every validation, from the lines of the metrics that have some."""
    parts = []
    for line in lines:
        nats, samples = line["validation"]["nats_per_token"]["value"], line["samples"]
        parts.append(f"== step {line['step']:,}: {nats:.4f} nats a token, {samples['verbatim']:.1%} verbatim ==\n")
        parts += [f"{text}\n--\n" for text in samples["texts"]]
    return "\n".join(parts)


def _hashes(ids: Ids, window: int) -> NDArray[np.uint64]:
    """A hash of every `window` neighbours, [n - window + 1]: the polynomial sum of id * base^place modulo 2^64.

    Of 2 k neighbours it is made of those of the first k and the last k, so that few passes do.
    """
    single = ids.astype(np.uint64) + np.uint64(1)
    hashes, size = single, 1
    for bit in f"{window:b}"[1:]:
        shift = np.uint64(pow(_BASE, size, 1 << 64))
        hashes, size = hashes[:-size] * shift + hashes[size:], 2 * size
        if bit == "1":
            hashes, size = hashes[:-1] * np.uint64(_BASE) + single[size:], size + 1
    return hashes
