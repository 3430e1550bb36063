"""GPT-2 in the tensor engine: the logits and tokens of array, the slope of its loss, and GPT-2's own beginning."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.engines.engine import make_engine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import Weights

torch = pytest.importorskip("torch", reason="the engine tensor needs PyTorch (the train extra)")

from etude.engines.tensor_gpt2 import GPT2, initial_weights  # noqa: E402 - only where PyTorch is installed

CONFIG = GPTConfig("gpt2", vocab_size=61, block_size=32, n_layer=3, n_head=2, n_embd=16)
UNTIED = GPTConfig("gpt2", 61, 32, 3, 4, 16, 1e-3, tie_word_embeddings=False)


def random_weights(config: GPTConfig, dtype: str = "float32") -> Weights:
    """Every parameter random, so that each of them matters, and positions so large that greedy tokens vary."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.4, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}
    weights["wpe.weight"] *= 5
    return weights


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_it_gives_the_logits_of_array(config: GPTConfig, dtype: str, tolerance: float) -> None:
    weights = random_weights(config, dtype)
    array, tensor = (make_engine(name, config, weights) for name in ("array", "tensor"))
    for prompt in ([3], [1, 2, 3], list(range(32)), list(range(40))):
        ours = tensor.start_all(prompt)
        assert ours.dtype == dtype
        assert np.abs(ours - array.start_all(prompt)).max() < tolerance
        ours, theirs = tensor.start(prompt), array.start(prompt)
        for token in range(20):  # over the end of the block
            assert ours.shape == (61,)
            assert np.abs(ours - theirs).max() < tolerance
            ours, theirs = tensor.step(token), array.step(token)


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
def test_it_writes_the_greedy_tokens_of_array(config: GPTConfig) -> None:
    written = []
    for name in ("array", "tensor"):
        engine, tokens = make_engine(name, config, random_weights(config)), [7]
        logits = engine.start(tokens)
        for _ in range(60):
            tokens.append(int(logits.argmax()))
            logits = engine.step(tokens[-1])
        written.append(tokens)
    assert written[0] == written[1]
    assert len(set(written[0])) > 5


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
def test_parameters_have_the_names_and_shapes_of_a_model_directory(config: GPTConfig) -> None:
    named = dict(GPT2(config).named_parameters())
    assert {name: tuple(parameter.shape) for name, parameter in named.items()} == parameter_shapes(config)


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
def test_the_loss_is_the_models_in_nats_and_the_gradient_its_slope(config: GPTConfig) -> None:
    weights = random_weights(config, "float64")
    ids = np.random.default_rng(1).integers(0, 61, (2, 9))
    rows, columns = np.indices((2, 8))

    def cost(weights: Weights) -> np.ndarray:
        logits = np.stack([ArrayEngine(config, weights).start_all(row[:-1].tolist()) for row in ids])  # [2, 8, V]
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return np.asarray(-log_p[rows, columns, ids[:, 1:]])

    model = GPT2(config, dtype=torch.float64)
    model.adopt(weights)
    nats = model.nats(torch.tensor(ids[:, :-1]), torch.tensor(ids[:, 1:]))
    assert np.abs(nats.detach().numpy() - cost(weights)).max() < 1e-9
    nats.mean().backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        place = np.unravel_index(int(parameter.grad.abs().argmax()), parameter.shape)
        slopes = []
        for step in (1e-6, -1e-6):
            moved = {key: array.copy() for key, array in weights.items()}
            moved[name][place] += step
            slopes.append(cost(moved).mean())
        assert float(parameter.grad[place]) == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-4), name


def test_dropout_is_for_training_alone() -> None:
    model, plain = GPT2(CONFIG, dropout=0.5), GPT2(CONFIG)
    ids = torch.arange(20).view(2, 10)
    for each in (model, plain):
        each.adopt(random_weights(CONFIG))
    torch.manual_seed(1)
    assert (model(ids) - plain(ids)).abs().max() > 0.1
    assert (model.eval()(ids) == plain(ids)).all()


def test_it_begins_as_gpt2_does() -> None:
    config = replace(CONFIG, n_embd=64, n_layer=8)
    weights = initial_weights(config, 3)
    assert {name: array.shape for name, array in weights.items()} == parameter_shapes(config)
    for name, array in weights.items():
        assert array.dtype == np.float32
        if array.ndim == 1:
            assert (array == (1 if name.endswith("weight") else 0)).all(), name
        else:
            wanted = 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
            assert array.std() == pytest.approx(wanted, rel=0.06), name
            assert abs(array.mean()) < 0.1 * wanted, name
    again, other = initial_weights(config, 3), initial_weights(config, 4)
    assert all((again[name] == array).all() for name, array in weights.items())
    assert (other["wte.weight"] != weights["wte.weight"]).any()
