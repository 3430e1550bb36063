"""One way to turn logits into a token, for every model and engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError

Floats = NDArray[np.float64]


class SamplingError(EtudeError):
    """Settings that cannot be."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose. Temperature 0 is greedy; top_k 0 and top_p 1 leave every token in."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise SamplingError(f"temperature must be 0 to 100, not {self.temperature:g}")
        if self.top_k < 0:
            raise SamplingError(f"top-k must be 0 (off) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise SamplingError(f"top-p must be above 0 and at most 1, not {self.top_p:g}")


GREEDY = Sampling(temperature=0.0)


def probabilities(logits: NDArray[np.floating], allowed: NDArray[np.bool_] | None = None) -> Floats:
    """Softmax [V] of logits [V] in float64, over the tokens that are allowed (all by default)."""
    x = logits.astype(np.float64)
    if allowed is not None:
        x = np.where(allowed, x, -np.inf)
    e = np.exp(x - x.max())
    total: Floats = e / e.sum()
    return total


def choose(
    logits: NDArray[np.floating],
    sampling: Sampling,
    rng: np.random.Generator,
    allowed: NDArray[np.bool_] | None = None,
) -> int:
    """The next token. At least one token must be allowed.

    Of equally likely tokens the smallest id counts as the likelier one. The nucleus (Holtzman et al. 2020) is the
    fewest likeliest tokens whose probabilities, after temperature and top-k, sum to `top_p`.
    """
    if allowed is not None and not allowed.any():
        raise SamplingError("no token is allowed here")
    if sampling.temperature == 0:
        return int((logits if allowed is None else np.where(allowed, logits, -np.inf)).argmax())
    p = probabilities(logits / sampling.temperature, allowed)  # [V]
    order = np.argsort(-p, kind="stable")  # [V], likeliest first
    if sampling.top_k:
        order = order[: sampling.top_k]
    kept = p[order] / p[order].sum()  # [k]
    if sampling.top_p < 1:
        n = int(np.searchsorted(np.cumsum(kept), sampling.top_p)) + 1
        order, kept = order[:n], kept[:n] / kept[:n].sum()
    # One uniform number a token, whatever the settings: a seed's stream stays in step.
    position = int(np.searchsorted(np.cumsum(kept), rng.random(), side="right"))
    return int(order[min(position, len(order) - 1)])
