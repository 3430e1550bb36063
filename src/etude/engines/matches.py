"""How the context went on last time: for what it ends with, the longest earlier occurrences and what followed them.

A song repeats itself, and attention learns late to copy (the "induction heads" of Olsson et al. 2022). Looking the
copy up takes no parameters, so `modern` gets it as an input: a few continuations, each with the length of its match.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import MAX_MATCH, N_MATCH

Ints = NDArray[np.int64]


def find_matches(ids: Ints) -> tuple[Ints, Ints]:
    """Continuations and match lengths, [batch, t, N_MATCH] each, after every token of `ids` [batch, t]."""
    batch, t = ids.shape
    finder = MatchFinder(batch)
    found, lengths = np.zeros((2, batch, t, N_MATCH), np.int64)
    for position in range(t):
        found[:, position], lengths[:, position] = finder.add(ids[:, position])
    return found, lengths


class MatchFinder:
    """Takes contexts token by token; each token costs one pass over what is behind it."""

    def __init__(self, batch: int = 1) -> None:
        self._size = 0
        self._ids = np.zeros((batch, 64), np.int64)
        # _ends[:, j]: how many tokens up to and with position j equal the context's last ones.
        self._ends = np.zeros((batch, 64), np.int64)

    def fork(self) -> MatchFinder:
        twin = MatchFinder()
        twin._size, twin._ids, twin._ends = self._size, self._ids.copy(), self._ends.copy()
        return twin

    def add(self, tokens: Ints) -> tuple[Ints, Ints]:
        """Append tokens [batch]; return continuations and match lengths, [batch, N_MATCH] each.

        Longest match first, among equally long ones the latest; each continuation differs from those before it.
        Lengths are capped at MAX_MATCH; where nothing matches, both numbers are 0.
        """
        n, rows = self._size, np.arange(len(tokens))
        if n == self._ids.shape[1]:
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)], axis=1)
            self._ends = np.concatenate([self._ends, np.zeros_like(self._ends)], axis=1)
        self._ids[:, n] = tokens
        self._size = n + 1
        found, lengths = np.zeros((2, len(tokens), N_MATCH), np.int64)
        if n == 0:
            return found, lengths
        # A match that ends at j is one longer than the match that ended at j - 1 before this token came.
        ends = np.zeros((len(tokens), n), np.int64)
        ends[:, 1:] = self._ends[:, : n - 1]
        ends = self._ends[:, :n] = np.where(self._ids[:, :n] == tokens[:, None], ends + 1, 0)  # [batch, n]
        follows = self._ids[:, 1 : n + 1]  # [batch, n]: what came after each position
        rank = np.where(ends > 0, ends * n + np.arange(n), -1)  # [batch, n]: longest, then latest
        for m in range(N_MATCH):
            best = rank.argmax(axis=1)  # [batch]
            matched = rank[rows, best] >= 0
            found[:, m] = np.where(matched, follows[rows, best], 0)
            lengths[:, m] = np.where(matched, np.minimum(ends[rows, best], MAX_MATCH), 0)
            rank = np.where(follows == follows[rows, best, None], -1, rank)
        return found, lengths
