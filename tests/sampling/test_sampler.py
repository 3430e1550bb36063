"""From logits to a token."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.sampling import GREEDY, Sampling, SamplingError, choose, log_probability, probabilities

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
    x, n = np.log(np.array([0.6, 0.3, 0.1])), 10_000
    for temperature in (1.0, 2.0, 0.5):
        wanted = probabilities(x / temperature)
        rng = np.random.default_rng(1)
        counts = Counter(choose(x, Sampling(temperature), rng) for _ in range(n))
        assert np.allclose([counts[i] / n for i in range(3)], wanted, atol=0.015)


def plainly(x: np.ndarray, s: Sampling, uniform: float, context: list[int], allowed: np.ndarray) -> int:
    """The definition, written for reading: everything is sorted, every cut is a loop."""
    x = x.astype(np.float64)
    for token in set(context):
        x[token] = x[token] / s.repetition_penalty if x[token] > 0 else x[token] * s.repetition_penalty
    x = x.astype(np.float32).astype(np.float64) / s.temperature
    largest = x[allowed].max()
    p = {token: math.exp(x[token] - largest) for token in np.flatnonzero(allowed).tolist()}
    ranked = sorted(p, key=lambda token: (-x[token], token))
    if s.top_k:
        ranked = ranked[: s.top_k]
    total, nucleus, reached = sum(p[token] for token in ranked), [], 0.0
    for token in ranked:
        nucleus.append(token)
        reached += p[token] / total
        if s.top_p < 1 and reached >= s.top_p:
            break
    kept = [token for token in nucleus if p[token] >= s.min_p * p[ranked[0]]]
    total, reached = sum(p[token] for token in kept), 0.0
    for token in kept:
        reached += p[token] / total
        if uniform < reached:
            return int(token)
    return int(kept[-1])


@given(
    seed=st.integers(0, 1 << 30),
    size=st.sampled_from([1, 2, 30, 63, 64, 65, 1_000, 9_000]),
    spread=st.sampled_from([0.0, 0.001, 1.0, 5.0, 40.0]),
    temperature=st.sampled_from([0.3, 1.0, 1.7, 50.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 40, 500, 100_000]),
    top_p=st.sampled_from([1.0, 1.0, 0.05, 0.5, 0.9, 0.999]),
    min_p=st.sampled_from([0.0, 0.0, 1e-9, 0.02, 0.5, 1.0]),
    penalty=st.sampled_from([1.0, 1.2, 5.0, 0.7]),
)
@settings(max_examples=60, deadline=None)
def test_the_quick_choice_is_the_plain_definitions(
    seed: int, size: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(0, spread, size) - 3).astype(np.float32)
    if seed % 2:
        x = np.round(x)  # many ties
    context = rng.integers(0, size, 10).tolist()
    allowed = rng.random(size) < 0.8
    allowed[rng.integers(size)] = True
    s = Sampling(temperature, top_k, top_p, min_p, penalty)
    for number in range(2):
        wanted = plainly(x, s, np.random.default_rng(number).random(), context, allowed)
        found = choose(x, s, np.random.default_rng(number), allowed, context)
        if found != wanted:  # float32 divided by a temperature may tie what float64 does not: then they are equals
            scaled = (x / np.float32(temperature)).astype(np.float32)
            assert abs(scaled[found] - scaled[wanted]) <= 1e-6 * abs(scaled[wanted])
    likeliest = choose(x, Sampling(0, top_k, top_p, min_p, penalty), rng, allowed, context)
    assert likeliest == plainly(x, Sampling(1, 1, repetition_penalty=penalty), 0.5, context, allowed)


def test_what_is_left_is_what_transformers_leaves() -> None:
    torch = pytest.importorskip("torch", reason="transformers needs PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the bench extra)")
    rng = np.random.default_rng(0)
    for index in range(20):
        x, context = rng.normal(0, 3, 200).astype(np.float32), rng.integers(0, 200, 30).tolist()
        s = Sampling(
            float(rng.choice([0.5, 1, 1.6])), int(rng.choice([0, 5, 50])), float(rng.choice([0.6, 0.95, 1])),
            float(rng.choice([0, 0.03, 0.2])), float(rng.choice([1, 1.3, 0.8])),
        )  # fmt: skip
        config = transformers.GenerationConfig(
            do_sample=True, temperature=s.temperature, top_k=s.top_k, top_p=s.top_p, min_p=s.min_p or None,
            repetition_penalty=s.repetition_penalty,
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=200, n_positions=4, n_embd=4, n_layer=1, n_head=1)
        )
        processors = model._get_logits_processor(config, input_ids_seq_length=30)
        scores = processors(torch.tensor([context]), torch.from_numpy(x)[None].clone())[0]
        theirs = torch.softmax(scores.double(), 0).numpy()
        draws = np.linspace(0, 1, 1_000, endpoint=False) + 1 / 2_000
        counts = Counter(choose(x, s, _Fixed(uniform), None, context) for uniform in draws)
        assert np.abs(np.array([counts[token] / 1_000 for token in range(200)]) - theirs).max() < 1.2e-3, (index, s)
        assert set(counts) <= set(np.flatnonzero(theirs).tolist())


class _Fixed(np.random.Generator):
    """A generator whose next number is known."""

    def __init__(self, uniform: float) -> None:
        super().__init__(np.random.PCG64(0))
        self._uniform = uniform

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self._uniform


def test_min_p_follows_the_likeliest() -> None:
    sure, unsure = np.log(np.array([0.9, 0.08, 0.02])), np.log(np.array([0.4, 0.35, 0.25]))
    rng = np.random.default_rng(0)
    assert {choose(sure, Sampling(min_p=0.1), rng) for _ in range(300)} == {0}
    assert {choose(unsure, Sampling(min_p=0.1), rng) for _ in range(300)} == {0, 1, 2}


def test_the_nucleus_is_the_fewest_that_reach_the_sum() -> None:
    rng = np.random.default_rng(0)
    assert {choose(np.zeros(4), Sampling(top_p=0.5), rng) for _ in range(100)} == {0, 1}
    assert {choose(np.zeros(4), Sampling(top_p=0.51), rng) for _ in range(100)} == {0, 1, 2}


def test_the_penalty_counts_a_token_once_and_greedy_too() -> None:
    x = np.array([2.0, 1.5, -1.0, -1.1], np.float32)
    penalty = Sampling(0, repetition_penalty=1.5)
    rng = np.random.default_rng(0)
    assert choose(x, penalty, rng) == 0
    assert choose(x, penalty, rng, None, [0]) == 1  # 2 / 1.5 is less than 1.5
    assert choose(x, penalty, rng, None, [0, 1, 1, 1]) == 0  # once, not thrice: 1.33 and 1
    below = np.array([False, False, True, True])
    assert choose(x, penalty, rng, below, [2, 2]) == 3  # a negative logit becomes more so
    assert (x == np.array([2.0, 1.5, -1.0, -1.1], np.float32)).all()


def test_no_temperature_is_too_cold_and_no_logit_too_low() -> None:
    x = np.array([-3.0, 2.0, 2.0, -np.inf], np.float32)
    assert {choose(x, Sampling(1e-320), np.random.default_rng(seed)) for seed in range(20)} == {1}
    assert {choose(x, Sampling(1e-3), np.random.default_rng(seed)) for seed in range(20)} == {1, 2}
    assert choose(np.array([0.0, -np.inf]), Sampling(100), _Fixed(1 - 2**-53)) == 0


@given(logits)
def test_log_probability_is_that_of_the_softmax(x: np.ndarray) -> None:
    for token in range(len(x)):
        assert log_probability(x, token) == pytest.approx(np.log(probabilities(x)[token]), abs=1e-5)
    wide = x.astype(np.float64)
    assert log_probability(wide, 0) == pytest.approx(np.log(probabilities(wide)[0]), abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_k": -1},
        {"top_k": 2.5}, {"top_p": 0}, {"top_p": 2}, {"top_p": float("nan")}, {"min_p": -0.1}, {"min_p": 1.1},
        {"min_p": float("nan")}, {"repetition_penalty": 0}, {"repetition_penalty": -1},
        {"repetition_penalty": float("inf")}, {"repetition_penalty": float("nan")},
    ],
)  # fmt: skip
def test_impossible_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(SamplingError, match="must be"):
        Sampling(**wrong)  # type: ignore[arg-type]
