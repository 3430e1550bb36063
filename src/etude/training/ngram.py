"""N-gram models of integer tokens: the baselines that stand beside every accuracy of a chord model.

A newcomer needs one sentence: count what followed every context of 0 to order - 1 tokens in the training songs, then
mix the orders, and a context that was followed by many different tokens leaves more to the next shorter one.

The mixture is Witten-Bell's (I. H. Witten and T. C. Bell, "The zero-frequency problem", IEEE Transactions on
Information Theory 37(4), 1991, method C), in the interpolated form of S. F. Chen and J. Goodman, "An empirical study of
smoothing techniques for language modeling" (TR-10-98, Harvard University, 1998). With c(h, w) the count of token w
after context h, c(h) their sum over w, T(h) the number of distinct w, and h' the context without its oldest token:

    P(w | h) = (c(h, w) + T(h) P(w | h')) / (c(h) + T(h))

The recursion ends in the uniform distribution. A context never counted has P(w | h) = P(w | h'). There are no begin
markers: near the start of a sequence the contexts are shorter.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from etude.files import atomic_write

UNSAYABLE = -1
"""The id of a token outside the vocabulary: it takes its place in contexts and is never predicted."""

MAX_FILE_BYTES = 256 << 20
"""The largest file that `NGramModel.load` opens."""

# Inside, a token is its code: 0 is "before the start", 1 is UNSAYABLE, and id + 2 is a token of the vocabulary.
_OUTSIDE = 0
_FIRST = 2
_BLOCK_ROWS = 128  # rows made at once: at 2,600 tokens, 2.7 MB an array, which stays in a core's cache

_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Level:
    """What followed the contexts of one length k.

    A context is found in two steps, newest token first: `branches` finds its k - 1 newer tokens, and with the oldest
    `contexts` finds the context itself. Both are sorted keys, `parent * codes + code`; an index in them is an id.
    """

    contexts: _Ints  # [C]
    branches: _Ints  # [N] the parents of the next level
    offsets: _Ints  # [C + 1] context i was followed by tokens[offsets[i]:offsets[i + 1]]
    tokens: _Ints  # [P] ids
    counts: _Floats  # [P]


@dataclass(frozen=True, slots=True, eq=False)
class NGramModel:
    """Counts of every n-gram up to `order`; made by `fit` or `load`, asked by `predict` or `blocks`."""

    grams: NDArray[np.unsignedinteger]
    """[G, order] the distinct n-grams as codes, oldest first, sorted; short ones, at a start, have 0s on the left."""
    counts: NDArray[np.unsignedinteger]
    """[G] how often each occurred; lower orders are sums over these."""
    edge: NDArray[np.unsignedinteger]
    """[vocab_size] the token that stands for each token where it is the oldest of a context; see `fit`."""
    _levels: tuple[_Level, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_levels", _count(self.grams, self.counts, _edge_codes(self.edge)))

    @property
    def order(self) -> int:
        """The length of the longest n-gram: it predicts from `order` - 1 tokens."""
        return int(self.grams.shape[1])

    @property
    def vocab_size(self) -> int:
        """The number of tokens that are predicted."""
        return len(self.edge)

    @classmethod
    def fit(
        cls,
        sequences: Iterable[NDArray[np.integer]],
        vocab_size: int,
        order: int,
        edge: NDArray[np.integer] | None = None,
    ) -> NGramModel:
        """Count the n-grams of orders 1 to `order` in `sequences`, each [T] of ids 0 to `vocab_size` - 1 or UNSAYABLE.

        `edge` [vocab_size] is for tokens that say where they came from, as a chord's interval from the chord before.
        The oldest token of a context then tells of a chord outside it; `edge[token]` is the token that stands for it
        there (the same chord with interval 0), so that an n-gram is n chords up to transposition. Without `edge` each
        token stands for itself. Raises ValueError for ids out of range, an order below 1, and nothing to count.
        """
        if order < 1 or vocab_size < 1:
            raise ValueError(f"order and vocab_size must be at least 1, not {order} and {vocab_size}")
        small = np.dtype(np.uint16 if vocab_size + _FIRST <= 1 << 16 else np.uint32)
        kept = np.arange(vocab_size) if edge is None else np.asarray(edge)
        if not _is_edge(kept) or len(kept) != vocab_size:
            raise ValueError(f"edge must name a token for each of {vocab_size} tokens, and those must name themselves")
        windows = [np.empty((0, order), small)]
        for sequence in sequences:
            padded = np.concatenate([np.full(order - 1, _OUTSIDE), _codes(sequence, vocab_size)])  # [order - 1 + T]
            if len(padded) >= order:
                windows.append(np.lib.stride_tricks.sliding_window_view(padded, order).astype(small))  # [T, order]
        grams = np.concatenate(windows)
        grams = grams[grams[:, -1] >= _FIRST]
        if not len(grams):
            raise ValueError("nothing to count: the training sequences hold no token of the vocabulary")
        if order > 1:
            grams[:, 0] = _edge_codes(kept)[grams[:, 0]]
        grams, counts = np.unique(grams, axis=0, return_counts=True)
        return cls(grams, counts.astype(np.min_scalar_type(int(counts.max()))), kept.astype(small))

    def predict(self, sequence: NDArray[np.integer], order: int | None = None, song: float = 0.0) -> _Floats:
        """The distribution of each token but the first, given all before it: [T - 1, vocab_size], rows that sum to one.

        `order` (the model's own by default) is the longest n-gram used. `song` is how many training occurrences one
        occurrence earlier in this same sequence counts for (True is 1): added at every order before mixing, it copies
        loops. Time grows with the square of T where `song` is used; memory is the result's, or see `blocks`.
        Raises ValueError for ids out of range and an order that was not counted.
        """
        return np.concatenate([np.empty((0, self.vocab_size)), *self.blocks(sequence, order, song)])

    def blocks(self, sequence: NDArray[np.integer], order: int | None = None, song: float = 0.0) -> Iterator[_Floats]:
        """The rows of `predict`, in order, at most 128 at a time."""
        order = self.order if order is None else order
        if not 1 <= order <= self.order:
            raise ValueError(f"order must be 1 to {self.order}, not {order}")
        if not 0 <= song < np.inf:
            raise ValueError(f"song must be a finite weight of at least 0, not {song}")
        codes = _codes(sequence, self.vocab_size)
        return (
            self._block(codes, np.arange(start, min(start + _BLOCK_ROWS, len(codes))), order, float(song))
            for start in range(1, len(codes), _BLOCK_ROWS)
        )

    def _block(self, codes: _Ints, places: _Ints, order: int, song: float) -> _Floats:
        """The distributions at `places` [B] of `codes` [T]: [B, V]."""
        rows, vocab = len(places), self.vocab_size
        edge = _edge_codes(self.edge)
        past = codes[: places[-1]]  # [S] what the last row may see
        mixed = np.full((rows, vocab), 1 / vocab)
        parent = np.zeros(rows, np.int64)  # [B] the k - 1 newer tokens of each context as an id, -1 where never counted
        # [B, S] is a place of the past earlier than the row's, sayable, and after the same k - 1 tokens?
        alike = (np.arange(len(past)) < places[:, None]) & (past >= _FIRST)
        for length, level in enumerate(self._levels[:order]):
            context, same = parent, alike
            if length:
                oldest, oldest_past = _back(codes, length)[places], _back(codes, length)[: len(past)]  # [B], [S]
                context = _find(level.contexts, parent, edge[oldest], len(edge))
                parent = _find(level.branches, parent, oldest, len(edge))
                same = alike & (edge[oldest][:, None] == edge[oldest_past])
                alike = alike & (oldest[:, None] == oldest_past)
            row, pair = _ranges(context, level.offsets)
            flat = np.zeros(rows * vocab)
            flat += np.bincount(row * vocab + level.tokens[pair], level.counts[pair], rows * vocab)
            if song:
                row, place = np.nonzero(same)
                flat += song * np.bincount(row * vocab + past[place] - _FIRST, minlength=rows * vocab)
            counts = flat.reshape(rows, vocab)
            total, distinct = counts.sum(axis=1), np.count_nonzero(counts, axis=1)  # c(h), T(h): [B], [B]
            distinct[distinct == 0] = 1  # never counted: (0 + 1 P) / (0 + 1) leaves the shorter context's P
            mixed *= distinct[:, None]
            mixed += counts
            mixed /= (total + distinct)[:, None]
        return mixed

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as one safetensors file; equal models make equal bytes."""
        # One place of the n-grams a row: they are sorted, so the first rows are long runs, which a wheel's zip shrinks.
        tensors = {"grams": np.ascontiguousarray(self.grams.T), "counts": self.counts, "edge": self.edge}
        tensors["checksum"] = np.array([_checksum(tensors)], np.uint32)
        with atomic_write(Path(path)) as file:
            file.write(save_safetensors(tensors))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NGramModel:
        """Read what `save` wrote. Raises ValueError for anything else, OSError where there is no file to read."""
        if os.path.getsize(path) > MAX_FILE_BYTES:
            raise ValueError(f"{path}: not an n-gram model: larger than {MAX_FILE_BYTES:,} bytes")
        try:
            tensors = load_safetensors(Path(path).read_bytes())
        except (SafetensorError, KeyError) as error:  # KeyError: a number type that numpy lacks
            raise ValueError(f"{path}: not an n-gram model: cannot be read as safetensors ({error})") from None
        problem = _problem(tensors)
        if problem:
            raise ValueError(f"{path}: not an n-gram model, or a damaged one: {problem}")
        return cls(np.ascontiguousarray(tensors["grams"].T), tensors["counts"], tensors["edge"])


def _count(grams: NDArray[np.unsignedinteger], counts: NDArray[np.unsignedinteger], edge: _Ints) -> tuple[_Level, ...]:
    """The levels of all n-grams [G, order] with `counts` [G]: the shorter ones are sums over the longest."""
    codes, order = grams.astype(np.int64), grams.shape[1]
    times, width, vocab = counts.astype(np.float64), len(edge), len(edge) - _FIRST
    parent = context = np.zeros(len(codes), np.int64)  # [G]
    contexts = branches = np.zeros(1, np.int64)
    levels = []
    for length in range(order):
        if length:
            inside = codes[:, -1 - length] != _OUTSIDE
            codes, times, parent = codes[inside], times[inside], parent[inside]
            oldest = codes[:, -1 - length]
            contexts, context = np.unique(parent * width + edge[oldest], return_inverse=True)
            branches, parent = np.unique(parent * width + oldest, return_inverse=True)
        pairs, pair = np.unique(context * vocab + codes[:, -1] - _FIRST, return_inverse=True)
        offsets = np.searchsorted(pairs, np.arange(len(contexts) + 1) * vocab)
        sums = np.bincount(pair, times, len(pairs)).astype(np.float64)  # [P]
        levels.append(_Level(contexts, branches, offsets, pairs % vocab, sums))
    return tuple(levels)


def _codes(sequence: NDArray[np.integer], vocab_size: int) -> _Ints:
    """The codes [T] of the ids [T]; raises ValueError for ids out of range."""
    ids = np.asarray(sequence)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"a sequence must be one row of integers, not {ids.dtype} of shape {ids.shape}")
    if ids.size and not UNSAYABLE <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise ValueError(f"ids must be -1 to {vocab_size - 1}, not {int(ids.min())} to {int(ids.max())}")
    return ids.astype(np.int64) + _FIRST


def _back(codes: _Ints, length: int) -> _Ints:
    """For each place, the code `length` places before it: [T] -> [T]."""
    return np.concatenate([np.full(length, _OUTSIDE), codes])[: len(codes)]


def _edge_codes(edge: NDArray[np.integer]) -> _Ints:
    """`edge` by codes instead of ids: [V] -> [V + 2]."""
    return np.concatenate([np.arange(_FIRST), edge.astype(np.int64) + _FIRST])


def _is_edge(edge: NDArray[np.integer]) -> bool:
    if edge.ndim != 1 or edge.dtype.kind not in "iu" or not len(edge) or not 0 <= edge.min() <= edge.max() < len(edge):
        return False
    return bool((edge[edge] == edge).all())


def _find(keys: _Ints, parent: _Ints, code: _Ints, width: int) -> _Ints:
    """The ids of (parent, code) in sorted `keys`, -1 where there is none or no parent: [B], [B] -> [B]."""
    wanted = parent * width + code  # negative where there is no parent, for code < width
    if not len(keys):
        return np.full(len(wanted), -1)
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[found] == wanted, found, -1)


def _ranges(context: _Ints, offsets: _Ints) -> tuple[_Ints, _Ints]:
    """All (row, index) with offsets[context[row]] <= index < offsets[context[row] + 1]; a context of -1 has none."""
    rows = np.flatnonzero(context >= 0)
    start, stop = offsets[context[rows]], offsets[context[rows] + 1]
    sizes = stop - start
    first = np.cumsum(sizes) - sizes  # where each row's run begins in the answer
    return np.repeat(rows, sizes), np.arange(sizes.sum()) + np.repeat(start - first, sizes)


def _checksum(tensors: dict[str, NDArray[np.unsignedinteger]]) -> int:
    value = 0
    for name in ("grams", "counts", "edge"):
        value = zlib.crc32(np.ascontiguousarray(tensors[name]).tobytes(), value)
    return value


def _problem(tensors: dict[str, NDArray[np.unsignedinteger]]) -> str | None:
    """What keeps the tensors of a file from being a model, or None."""
    if set(tensors) != {"grams", "counts", "edge", "checksum"}:
        return f"it holds {', '.join(sorted(tensors)) or 'nothing'}, not checksum, counts, edge, grams"
    grams, counts, edge = tensors["grams"], tensors["counts"], tensors["edge"]
    if any(tensor.dtype.kind != "u" for tensor in tensors.values()):
        return "its numbers must be unsigned integers"
    if grams.ndim != 2 or not grams.size or counts.shape != grams.shape[1:]:
        return f"grams of shape {grams.shape} and counts of shape {counts.shape} do not fit together"
    if tensors["checksum"].tolist() != [_checksum(tensors)]:
        return "the checksum differs"
    if not _is_edge(edge):
        return "edge must name tokens that name themselves"
    late = (grams[1:] == _OUTSIDE) & (grams[:-1] != _OUTSIDE)
    if grams.max() >= len(edge) + _FIRST or grams[-1].min() < _FIRST or late.any() or counts.min() < 1:
        return "n-grams or counts out of range"
    return None
