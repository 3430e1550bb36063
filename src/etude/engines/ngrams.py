"""Which rows of `modern`'s table know the last tokens by sight: for each length of n-gram one, found by hashing.

What follows two to five given characters need not be computed from each of them if it can be remembered. A model of
distinct n-grams would need a row for each; hashed, they share a table of any size, and those that collide are seldom
both common.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import NGRAMS

Ints = NDArray[np.int64]

# Odd numbers with bits all over, and shifts between them, so that every bit of a token moves every bit of a row
# (the finaliser of SplitMix64: Steele, Lea and Flood 2014).
_STEP, _MIX = np.uint64(0x9E3779B97F4A7C15), (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def ngram_rows(ids: NDArray[Any], rows: int) -> Ints:
    """Row numbers [b, t, len(NGRAMS)] for each token of ids [b, t] and those before it; each length has `rows` of them.

    0 stands for an n-gram that begins before the first token.
    """
    found = np.zeros((*ids.shape, len(NGRAMS)), np.int64)
    digest = ids.astype(np.uint64)  # [b, t], of one token; arithmetic is modulo 2^64
    for index, length in enumerate(NGRAMS):
        back = length - 1
        if back >= ids.shape[1]:
            break
        digest[:, back:] = (digest[:, back:] + np.uint64(1)) * _STEP + ids[:, :-back].astype(np.uint64)
        mixed = digest[:, back:].copy()
        for shift, factor in zip((30, 27), _MIX, strict=True):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
        mixed ^= mixed >> np.uint64(31)
        found[:, back:, index] = 1 + index * rows + (mixed % np.uint64(rows)).astype(np.int64)
    return found
