"""From logits to a token."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.sampling import GREEDY, Sampling, SamplingError, choose, probabilities

logits = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=30).map(lambda x: np.array(x, np.float32))


@given(logits)
def test_probabilities_sum_to_one_and_keep_the_order(x: np.ndarray) -> None:
    p = probabilities(x)
    assert p.sum() == pytest.approx(1)
    assert p[x.argmax()] == p.max()


@given(logits, st.integers(0, 1000))
def test_greedy_is_the_first_of_the_largest(x: np.ndarray, seed: int) -> None:
    assert choose(x, GREEDY, np.random.default_rng(seed)) == int(np.argmax(x))


@given(logits, st.integers(1, 5), st.integers(0, 1000))
def test_top_k_stays_among_the_k_largest(x: np.ndarray, k: int, seed: int) -> None:
    token = choose(x, Sampling(top_k=k), np.random.default_rng(seed))
    p = probabilities(x)
    assert (p > p[token]).sum() < k


@given(logits, st.floats(0.01, 0.99), st.integers(0, 1000))
def test_top_p_stays_in_the_nucleus(x: np.ndarray, top_p: float, seed: int) -> None:
    p = probabilities(x)
    token = choose(x, Sampling(top_p=top_p), np.random.default_rng(seed))
    assert p[p > p[token]].sum() < top_p + 1e-9


@given(logits, st.data())
def test_only_allowed_tokens(x: np.ndarray, data: st.DataObject) -> None:
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(x), max_size=len(x))))
    settings = data.draw(st.sampled_from([GREEDY, Sampling(), Sampling(0.5, 3, 0.8), Sampling(top_k=2)]))
    if allowed.any():
        assert allowed[choose(x, settings, np.random.default_rng(0), allowed)]
    else:
        with pytest.raises(SamplingError, match="no token"):
            choose(x, settings, np.random.default_rng(0), allowed)


def test_frequencies_follow_probabilities_and_temperature() -> None:
    x, n = np.log(np.array([0.6, 0.3, 0.1])), 20_000
    for temperature in (1.0, 2.0, 0.5):
        wanted = probabilities(x / temperature)
        rng = np.random.default_rng(1)
        counts = Counter(choose(x, Sampling(temperature), rng) for _ in range(n))
        assert np.allclose([counts[i] / n for i in range(3)], wanted, atol=0.015)


@pytest.mark.parametrize(
    "settings", [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 2}]
)
def test_impossible_settings(settings: dict[str, float]) -> None:
    with pytest.raises(SamplingError, match="must be"):
        Sampling(**settings)  # type: ignore[arg-type]
