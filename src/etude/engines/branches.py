"""Many short continuations of one text, from any of its places: the `array` engine, whose keys and values they share.

To ask what could stand at each place of a text, instead of what does, every continuation would read the text before it
anew. Here the text is read once; a continuation is a row of a few tokens that looks back on the text up to its own
place, and all rows are products of large matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import NGRAMS, GPTConfig

from .array import Array, ArrayEngine, softmax
from .ngrams import ngram_rows

Ints = NDArray[np.int64]

_SCORES = 1 << 24  # numbers of attention that are made at once


class BranchEngine(ArrayEngine):
    """`start_all` reads the text; `branch` then changes nothing, and may be asked again. R rows of s tokens each."""

    def __init__(self, config: GPTConfig, weights: Mapping[str, Array]) -> None:
        super().__init__(config, weights)
        self._rows: Ints | None = None  # [R, s], while they are read
        self._after: Ints = np.zeros(0, np.int64)  # [R]

    def branch(self, after: Ints, rows: Ints) -> Array:
        """The logits [R, V] after rows of ids [R, s], row r of which follows the text's first `after[r]` tokens (one at
        least). With its row a text is at most a block."""
        length, count = len(self.ids), rows.shape[1]
        if not count or (after < 1).any() or (after > length).any() or (after + count > self.config.block_size).any():
            raise ValueError(f"rows of {count} tokens must follow 1 to {length} tokens, and stay within a block")
        if not len(rows):
            return np.empty((0, self.config.vocab_size), self._dtype)
        self._checked(rows.ravel().tolist())
        most = max(1, _SCORES // (self.config.n_head * count * (length + count)))
        parts = [self._branch(after[at : at + most], rows[at : at + most]) for at in range(0, len(rows), most)]
        return np.concatenate(parts)

    def _branch(self, after: Ints, rows: Ints) -> Array:
        self._after, self._rows = after, rows
        try:
            if self.config.architecture == "gpt2":
                return self.head(self._done((), self._gpt2_layers(()), True))
            layers = {"micro": self._micro, "modern": self._modern, "lesson": self._lesson}
            return layers[self.config.architecture]((), True)
        finally:
            self._rows = None

    # What `ArrayEngine` asks of the texts of a batch, asked of rows: they stand one after another, t = R s.

    def _tokens(self, new: Sequence[Any]) -> tuple[Any, Any]:
        if self._rows is None:
            return super()._tokens(new)
        return self._rows.ravel(), (self._after[:, None] + np.arange(self._rows.shape[1])).ravel()

    def _done(self, new: Sequence[Any], x: Array, last_only: bool) -> Array:
        if self._rows is None:
            return super()._done(new, x, last_only)
        last: Array = x.reshape(*self._rows.shape, -1)[:, -1]  # [R, d]
        return last

    def _ngrams(self, new: Sequence[Any]) -> Array:
        if self._rows is None:
            return super()._ngrams(new)
        count, back = self._rows.shape[1], np.minimum(self._after, max(NGRAMS) - 1)
        text = np.array(self.ids)
        found = np.empty((*self._rows.shape, len(NGRAMS)), np.int64)  # [R, s, lengths]
        for before in np.unique(back):
            some = np.flatnonzero(back == before)
            places = self._after[some, None] + np.arange(-before, 0)  # [rows, before]
            context = np.concatenate([text[places], self._rows[some]], axis=1)
            found[some] = ngram_rows(context, self.config.ngram_rows)[:, -count:]
        summed: Array = self.weights["ngrams"][found.reshape(-1, len(NGRAMS))].sum(axis=1)  # [t, lengths, d] -> [t, d]
        return summed

    def _mix(self, layer: int, q: Array, k: Array, v: Array, scale: float | Array, new: Sequence[Any]) -> Array:
        if self._rows is None:
            return super()._mix(layer, q, k, v, scale, new)
        (rows, count), (heads, t, size) = self._rows.shape, q.shape
        text, length = self._texts[0], len(self.ids)
        past_k, past_v = text.keys[layer, :, :length], text.values[layer, :, :length]  # [h, n, k] each
        q, apart = q * scale, (heads, rows, count, size)
        past = (q @ past_k.transpose(0, 2, 1)).reshape(heads, rows, count, length)  # [h, R, s, n]
        own = q.reshape(apart) @ k.reshape(apart).transpose(0, 1, 3, 2)  # [h, R, s, s]
        np.copyto(past, -np.inf, where=(np.arange(length) >= self._after[:, None])[:, None])
        np.copyto(own, -np.inf, where=np.triu(np.ones((count, count), bool), 1))
        scores = np.concatenate([past, own], axis=-1).reshape(heads, t, -1)  # [h, R s, n + s]
        attention = softmax(scores).reshape(heads, rows, count, -1)
        mixed = attention[..., :length].reshape(heads, t, length) @ past_v  # [h, R s, k]
        mixed += (attention[..., length:] @ v.reshape(apart)).reshape(mixed.shape)
        y: Array = mixed.transpose(1, 0, 2).reshape(t, self.config.n_embd)
        return y
