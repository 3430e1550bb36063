"""The array engine against the tensor engine, and its cache against no cache."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.engines.array import ArrayEngine
from etude.gpt.config import Architecture, GPTConfig, parameter_shapes
from etude.gpt.directory import Weights
from etude.tokens.chords import ChordTokenizer

torch = pytest.importorskip("torch", reason="the tensor engine needs PyTorch (the train extra)")


def ids_of(config: GPTConfig, length: int, seed: int = 0, few: int = 5) -> list[int]:
    """Ids that repeat, so that matches are found."""
    rng = np.random.default_rng(seed)
    return rng.choice(rng.integers(0, config.vocab_size, few), length).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("length", [1, 2, 7, 32])
def test_logits_equal_the_tensor_engines(config: GPTConfig, weights: Weights, length: int) -> None:
    from etude.engines.matches import find_matches
    from etude.engines.tensor_modern import ChordGPT

    model = ChordGPT(config)
    model.adopt(weights)
    ids = np.array([ids_of(config, length)])
    with torch.no_grad():
        wanted = model(*map(torch.from_numpy, (ids, *find_matches(ids))))[0].numpy()
    assert np.abs(ArrayEngine(config, weights).start_all(ids[0].tolist()) - wanted).max() < 1e-4


def test_export_gives_back_what_was_adopted_and_sums_features(
    config: GPTConfig, weights: Weights, tokenizer: ChordTokenizer
) -> None:
    from etude.engines.tensor_modern import ChordGPT

    model = ChordGPT(config, tokenizer.features())
    own, shared = model.wte.own.detach().numpy(), model.wte.shared.detach().numpy()
    assert np.allclose(model.export()["wte"][3], own[3] + shared[tokenizer.features()[3]].sum(axis=0), atol=1e-6)
    model.adopt(weights)
    exported = model.export()
    assert exported.keys() == weights.keys()
    assert all((exported[name] == weights[name]).all() for name in weights)


@given(split=st.integers(1, 19), seed=st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_steps_equal_one_pass(split: int, seed: int) -> None:
    config = GPTConfig("modern", 20, block_size=32, n_layer=2, n_head=2, n_embd=8)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    ids = ids_of(config, 20, seed)
    whole = ArrayEngine(config, weights).start_all(ids)
    engine = ArrayEngine(config, weights)
    steps = [engine.start(ids[:split]), *(engine.step(token) for token in ids[split:])]
    assert np.abs(np.array(steps) - whole[split - 1 :]).max() < 1e-5


def test_later_tokens_change_nothing_before_them(config: GPTConfig, weights: Weights) -> None:
    ids = ids_of(config, 12)
    engine = ArrayEngine(config, weights)
    before = engine.start_all(ids)[:6]
    assert np.abs(engine.start_all([*ids[:6], *reversed(ids[6:])])[:6] - before).max() < 1e-5


def test_a_fork_goes_on_alone(config: GPTConfig, weights: Weights) -> None:
    ids = ids_of(config, 10)
    engine = ArrayEngine(config, weights)
    engine.start(ids)
    twin = engine.fork()
    twin.step(1)
    assert np.abs(engine.step(2) - ArrayEngine(config, weights).start([*ids, 2])).max() < 1e-5


def test_a_full_block_goes_on_with_its_newest_half(config: GPTConfig, weights: Weights) -> None:
    ids = ids_of(config, config.block_size)
    engine = ArrayEngine(config, weights)
    engine.start(ids)
    logits = engine.step(3)
    assert len(engine.ids) == config.block_size // 2 + 1
    fresh = ArrayEngine(config, weights).start([*ids[config.block_size // 2 :], 3])
    assert (logits == fresh).all()


@pytest.mark.parametrize("ids", [[], [-1], [10_000_000]])
def test_ids_that_are_none_are_refused(config: GPTConfig, weights: Weights, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="token ids must be"):
        ArrayEngine(config, weights).start(ids)


@pytest.mark.parametrize("architecture", ["micro", "gpt2", "modern"])
def test_notes_are_every_intermediate_in_order_and_change_nothing(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = GPTConfig(architecture, 20, block_size=32, n_layer=2, n_head=2, n_embd=8)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.4, shape) for name, shape in parameter_shapes(config).items()}
    ids = ids_of(config, 9)
    noted: dict[str, np.ndarray] = {}

    def note(name: str, value: np.ndarray) -> np.ndarray:
        assert name not in noted
        noted[name] = value.copy()
        return value

    monkeypatch.setattr("etude.engines.array._PIECE", 4)  # what is noted is whole all the same
    engine = ArrayEngine(config, weights, note)
    logits = engine.start_all(ids)
    assert np.abs(logits - ArrayEngine(config, weights).start_all(ids)).max() < 1e-12
    names = list(noted)
    layer = ["ln_1", "attn.c_attn", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.weights", "attn.z"]
    layer += ["attn.c_proj", "resid_mid", "ln_2", "mlp.c_fc", "mlp.act", "mlp.c_proj", "resid_post"]
    if architecture == "modern":
        layer[2:2] = ["attn.q_norm", "attn.k_norm"]
    for index in range(2):
        assert [name[4:] for name in names if name.startswith(f"h.{index}.")] == layer
    assert names[0] in ("wte", "found") and names[-1] == "logits"
    # Each is the one that the next is made of.
    for index in range(2):
        value = {name: noted[f"h.{index}.{name}"] for name in layer}
        before = noted["resid_pre"] if index == 0 else noted[f"h.{index - 1}.resid_post"]
        assert np.allclose(value["resid_mid"], before + value["attn.c_proj"], atol=1e-12)
        assert np.allclose(value["resid_post"], value["resid_mid"] + value["mlp.c_proj"], atol=1e-12)
        scale = weights[f"h.{index}.attn.scale"][:, None, None] if architecture == "modern" else config.head_size**-0.5
        assert np.allclose(value["attn.scores"], value["attn.q"] @ value["attn.k"].transpose(0, 2, 1) * scale)
        seen = np.where(np.tri(9, dtype=bool), np.exp(value["attn.scores"]), 0)
        assert np.allclose(value["attn.weights"], seen / seen.sum(axis=-1, keepdims=True), atol=1e-12)
        z = value["attn.weights"] @ value["attn.v"]  # [h, t, k]
        assert np.allclose(value["attn.z"].reshape(9, 2, 4).transpose(1, 0, 2), z, atol=1e-12)
    head = ArrayEngine(config, weights).head(noted["h.1.resid_post"])
    assert np.allclose(head, noted["lm_head" if architecture == "modern" else "logits"], atol=1e-12)
