"""One way to turn logits into a token, for every model and engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError

Floats = NDArray[np.float64]
Logits = NDArray[Any]  # float32 or float64

_LEVELS, _PER_NAT = 1024, 16


class SamplingError(EtudeError):
    """Settings that cannot be."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose. Temperature 0 is greedy; top_k 0, top_p 1, min_p 0 and repetition_penalty 1 change nothing."""

    temperature: float = 1.0
    top_k: int = 0
    """Choose among so many likeliest tokens."""
    top_p: float = 1.0
    """Choose among the fewest likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Choose among the tokens that have at least this share of the likeliest one's probability."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that were there before, in the prompt or since, become less likely; greedy choices too."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise SamplingError(f"temperature must be 0 to 100, not {self.temperature:g}")
        if not isinstance(self.top_k, int) or self.top_k < 0:
            raise SamplingError(f"top-k must be a whole number, 0 (off) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top-p must be above 0 and at most 1, not {self.top_p:g}")
        if not 0 <= self.min_p <= 1:
            raise SamplingError(f"min-p must be 0 (off) to 1, not {self.min_p:g}")
        if not 0.01 <= self.repetition_penalty <= 100:
            raise SamplingError(f"repetition-penalty must be 0.01 to 100 (1 is off), not {self.repetition_penalty:g}")


GREEDY = Sampling(temperature=0.0)


def probabilities(logits: Logits, allowed: NDArray[np.bool_] | None = None) -> Floats:
    """Softmax [V] of logits [V] in float64, over the tokens that are allowed (all by default)."""
    x = logits.astype(np.float64)
    if allowed is not None:
        x = np.where(allowed, x, -np.inf)
    e = np.exp(x - x.max())
    total: Floats = e / e.sum()
    return total


def log_probability(logits: Logits, token: int) -> float:
    """The natural logarithm of softmax(logits [V]) at `token`, with the precision of the logits."""
    largest = logits.max()
    e = logits - largest  # [V]
    np.exp(e, out=e)
    return float(logits[token]) - float(largest) - float(np.log(e.sum(dtype=np.float64)))


def choose(
    logits: Logits,
    sampling: Sampling,
    rng: np.random.Generator,
    allowed: NDArray[np.bool_] | None = None,
    context: Sequence[int] = (),
) -> int:
    """The next token after the ids of `context`, from its logits [V]. At least one token must be allowed.

    In this order, which is that of `transformers`: the logit of every token in the context is divided by the
    repetition penalty where it is positive and multiplied where it is negative (CTRL, Keskar et al. 2019); all are
    divided by the temperature; top-k; the nucleus (top-p, Holtzman et al. 2020), the fewest likeliest of what is left
    whose probabilities sum to `top_p`; min-p (Nguyen et al. 2024), those of what is left with at least `min_p` of the
    likeliest one's probability. One of the rest is drawn by probability. Of equally likely tokens the smallest id
    counts as the likelier one.
    """
    if allowed is not None and not allowed.any():
        raise SamplingError("no token is allowed here")
    x = logits
    if sampling.repetition_penalty != 1 and len(context):
        seen, penalty = np.asarray(context), sampling.repetition_penalty
        x = x.copy()
        x[seen] = np.where(x[seen] > 0, x[seen] / penalty, x[seen] * penalty)
    if allowed is not None:
        x = np.where(allowed, x, -np.inf)
    if sampling.temperature == 0:
        return int(x.argmax())
    with np.errstate(over="ignore", divide="ignore"):
        scaled = x / sampling.temperature
    if not np.isfinite(scaled.max()):  # so cold that the largest logit is no number any more
        return int(x.argmax())
    # One uniform number a token, whatever the settings: a seed's stream stays in step.
    return _draw(scaled, sampling, rng.random())


def _draw(x: Logits, sampling: Sampling, uniform: float) -> int:
    """The token at `uniform` (0 to 1) of the probabilities laid end to end, likeliest first, after the cuts."""
    if 0 < sampling.top_k < len(x):
        ids = _largest(x, sampling.top_k)
        return int(ids[_draw(x[ids], replace(sampling, top_k=0), uniform)])
    ranks = _Ranks(x)
    end = ranks.total
    if sampling.top_p < 1:
        _, end = ranks.at(sampling.top_p * end, "left")
    if sampling.min_p:
        end = min(end, ranks.above(sampling.min_p))
    token, _ = ranks.at(uniform * end, "right")
    return token


def _largest(x: Logits, count: int) -> NDArray[np.intp]:
    """The ids, ascending, of the `count` (fewer than V) largest of x [V], of equals the smallest ids."""
    # Columns of 64 have maxima of which the `count`-th is no larger than the `count`-th of all, and they are few.
    maxima = x[: len(x) // 64 * 64].reshape(64, -1).max(axis=0)  # [V / 64]
    few = maxima if count < len(maxima) else x
    ids = np.flatnonzero(x >= np.partition(few, len(few) - count)[len(few) - count])
    return np.sort(ids[np.argsort(-x[ids], kind="stable")[:count]])


class _Ranks:
    """Tokens in the order of their logits x [V], as far as that is needed: to sort all takes longer than a fast step.

    They are laid into levels, 1/16 nat high and the likeliest first, and only the level that is asked for is sorted.
    A weight is e to the logit, 1 for the largest.
    """

    def __init__(self, x: Logits) -> None:
        self._x, self._largest = x, float(x.max())
        self._level, mass = np.empty(len(x), np.int16), np.zeros(_LEVELS)  # [V], [levels]
        # In parts: to the system, fresh memory for all in float64 is more work than the arithmetic.
        for start in range(0, len(x), 8192):
            part = x[start : start + 8192]
            level = np.minimum((self._largest - part) * _PER_NAT, _LEVELS - 1).astype(np.int16)
            mass += np.bincount(level, self._weights(part), _LEVELS)
            self._level[start : start + 8192] = level
        self._ends = np.cumsum(mass)  # [levels]
        self._last = int(np.flatnonzero(mass)[-1])
        self.total = float(self._ends[-1])

    def at(self, weight: float, side: Literal["left", "right"]) -> tuple[int, float]:
        """The token with which the sum of weights, the largest first, reaches (left) or passes (right) `weight`.

        And the sum with it. Rounding never leads to a token without any weight.
        """
        level = min(int(np.searchsorted(self._ends, weight, side)), self._last)
        ids = np.flatnonzero(self._level == level)
        ids = ids[np.argsort(-self._x[ids], kind="stable")]
        weights = self._weights(self._x[ids])
        sums = np.cumsum(weights) + (self._ends[level - 1] if level else 0.0)
        index = min(int(np.searchsorted(sums, weight, side)), int(np.count_nonzero(weights)) - 1)
        return int(ids[index]), float(sums[index])

    def above(self, least: float) -> float:
        """The sum of all weights that are `least` or more."""
        level = int(min(1 - _PER_NAT * math.log(least), _LEVELS - 1))
        near = self._weights(self._x[self._level <= level])
        return float(near[near >= least].sum())

    def _weights(self, x: Logits) -> Floats:
        weights = x.astype(np.float64)
        weights -= self._largest
        return np.exp(weights, out=weights)
