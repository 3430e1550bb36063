"""One meaning, several engines: the smallest GPT gives the same logits in all that are installed."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.engines.array import ArrayEngine
from etude.engines.engine import ENGINES, EngineError, check_engine, in_batches, is_installed, make_engine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import Weights

CONFIG = GPTConfig("micro", vocab_size=11, block_size=8, n_layer=2, n_head=3, n_embd=15)
OTHERS = [name for name, runs in ENGINES.items() if "micro" in runs and name != "array"]


def random_weights(config: GPTConfig, dtype: str = "float64") -> Weights:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.4, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}


WEIGHTS = random_weights(CONFIG)
token_lists = st.lists(st.integers(0, CONFIG.vocab_size - 1), min_size=1, max_size=CONFIG.block_size)


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_every_engine_gives_the_logits_of_array(name: str, dtype: str, tolerance: float) -> None:
    if not is_installed(name):
        pytest.skip(f"what the engine {name} needs is not installed")
    weights = random_weights(CONFIG, dtype)
    array, other = (make_engine(each, CONFIG, weights) for each in ("array", name))
    for prompt in ([3], [1, 2, 3], list(range(8)), list(range(11))):
        assert np.abs(np.asarray(other.start_all(prompt)) - array.start_all(prompt)).max() < tolerance
        ours, theirs = array.start(prompt), np.asarray(other.start(prompt))
        for token in range(10):  # over the end of the block
            assert theirs.shape == ours.shape == (CONFIG.vocab_size,)
            assert np.abs(theirs - ours).max() < tolerance
            ours, theirs = array.step(token), np.asarray(other.step(token))


def test_array_computes_the_formula() -> None:
    """One layer, one head, two tokens, written out once more by hand."""
    config = GPTConfig("micro", 5, 4, 1, 1, 3)
    w = random_weights(config)

    def norm(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / np.sqrt((x * x).mean() + 1e-5))

    xs = [norm(w["wte"][token] + w["wpe"][position]) for position, token in enumerate((4, 2))]
    q, k, v = np.split(w["h.0.attn.c_attn"], 3)
    scores = np.array([(q @ norm(xs[1])) @ (k @ norm(x)) / np.sqrt(3) for x in xs])
    shares = np.exp(scores) / np.exp(scores).sum()
    x = xs[1] + w["h.0.attn.c_proj"] @ sum(share * (v @ norm(x)) for share, x in zip(shares, xs, strict=True))
    x = x + w["h.0.mlp.c_proj"] @ np.maximum(w["h.0.mlp.c_fc"] @ norm(x), 0)
    logits = ArrayEngine(config, w).start([4, 2])
    assert logits.dtype == np.float64
    assert np.abs(logits - w["lm_head"] @ x).max() < 1e-12
    narrow = {name: array.astype(np.float32) for name, array in w.items()}
    assert ArrayEngine(config, narrow).start([4, 2]).dtype == np.float32


@given(token_lists, st.integers(1, CONFIG.block_size))
@settings(max_examples=30, deadline=None)
def test_steps_equal_one_pass_and_forks_go_on_alone(ids: list[int], split: int) -> None:
    split = min(split, len(ids))
    whole = ArrayEngine(CONFIG, WEIGHTS).start_all(ids)
    engine = ArrayEngine(CONFIG, WEIGHTS)
    engine.start(ids[:split])
    twin = engine.fork()
    for token in ids[split:]:
        engine.step(token)
    twin_logits = [twin.step(token) for token in ids[split:]]
    assert np.allclose(whole[split:], np.array(twin_logits).reshape(-1, CONFIG.vocab_size), atol=1e-12)
    assert engine.ids == twin.ids == ids


def test_a_full_block_goes_on_with_its_newest_half() -> None:
    engine = ArrayEngine(CONFIG, WEIGHTS)
    engine.start(list(range(8)))
    assert (engine.step(9) == ArrayEngine(CONFIG, WEIGHTS).start([4, 5, 6, 7, 9])).all()


def test_engines_that_cannot_be_asked_for() -> None:
    for name, config, message in (
        ("abacus", CONFIG, "unknown engine 'abacus'; known: scalar, array, compiled, tensor"),
        ("scalar", GPTConfig("modern", 8, 4, 1, 1, 2), "scalar does not run modern models; these do: array, tensor"),
    ):
        with pytest.raises(EngineError, match=message):
            check_engine(name, config)


@pytest.mark.parametrize(("name", "module", "extra"), [("compiled", "numba", "fast"), ("tensor", "torch", "train")])
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert not is_installed(name)
    with pytest.raises(EngineError, match=rf"pip install 'etude\[{extra}\]'"):
        make_engine(name, CONFIG, WEIGHTS)


@pytest.mark.parametrize("ids", [[], [-1], [10_000_000]])
@pytest.mark.parametrize("name", [name for name, able in ENGINES.items() if "micro" in able])
def test_ids_that_are_none_are_refused_alike(name: str, ids: list[int]) -> None:
    if not is_installed(name):
        pytest.skip(f"what the engine {name} needs is not installed")
    config = GPTConfig("micro", 5, 4, 1, 2, 4)
    weights = {key: np.ones(shape) for key, shape in parameter_shapes(config).items()}
    engine = make_engine(name, config, weights)
    engine.start([1])
    with pytest.raises(ValueError, match="token ids must be"):
        engine.start(ids)
    if ids:
        with pytest.raises(ValueError, match="token ids must be"):
            engine.step(ids[0])
        assert len(engine.step(2)) == 5  # what was refused is not kept


@pytest.mark.parametrize("name", [name for name, able in ENGINES.items() if "micro" in able])
def test_every_engine_takes_batches_if_only_of_one(name: str) -> None:
    if not is_installed(name):
        pytest.skip(f"what the engine {name} needs is not installed")
    alone = make_engine(name, CONFIG, WEIGHTS)
    engine = in_batches(make_engine(name, CONFIG, WEIGHTS))
    logits, wanted = engine.start_batch([[1, 2]]), np.asarray(alone.start([1, 2]))
    engine.keep([0])
    for token in range(9):
        assert logits.shape == (1, CONFIG.vocab_size)
        assert (logits[0] == wanted).all()
        logits, wanted = engine.step_batch([token]), np.asarray(alone.step(token))
    assert engine.most_rows(8) >= 1


def test_an_engine_of_one_row_says_that_it_has_no_other() -> None:
    engine = in_batches(make_engine("scalar", CONFIG, WEIGHTS))
    assert engine.most_rows(8) == 1
    engine.start_batch([[1]])
    with pytest.raises(ValueError, match="one text"):
        engine.keep([0, 0])
    with pytest.raises(ValueError, match="unpack"):
        engine.start_batch([[1], [2]])
