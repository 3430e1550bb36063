"""The rungs of `lesson`: array and tensor say the same, each rung is the one before and one thing more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.engines.engine import make_engine
from etude.explain import record
from etude.explain.words import Word
from etude.gpt.config import RUNGS, GPTConfig, parameter_shapes
from etude.gpt.directory import Weights

torch = pytest.importorskip("torch", reason="the engine tensor needs PyTorch (the train extra)")

from etude.engines.tensor_lesson import Lesson, initial_weights  # noqa: E402 - only where PyTorch is installed


def make_config(rung: str) -> GPTConfig:
    """Three layers of four heads where the rung has them."""
    n_layer = 3 if RUNGS.index(rung) >= RUNGS.index("residual") else 1
    n_head = 4 if RUNGS.index(rung) >= RUNGS.index("heads") else 1
    return GPTConfig("lesson", 21, 16, n_layer, n_head, 21 if rung == "bigram" else 16, rung=rung)


def random_weights(config: GPTConfig, dtype: str = "float64") -> Weights:
    """Every parameter random, so that each of them matters."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.25, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_array_and_tensor_give_the_same_logits(rung: str, dtype: str, tolerance: float) -> None:
    config = make_config(rung)
    weights = random_weights(config, dtype)
    array, tensor = (make_engine(name, config, weights) for name in ("array", "tensor"))
    for prompt in ([3], [1, 2, 3], list(range(16)), list(range(20))):
        ours = array.start_all(prompt)
        assert ours.dtype == dtype
        assert ours.shape == (min(16, len(prompt)), 21)
        assert np.abs(ours - tensor.start_all(prompt)).max() < tolerance
        ours, theirs = array.start(prompt), tensor.start(prompt)
        for token in range(12):  # over the end of the block
            assert np.abs(ours - theirs).max() < tolerance
            ours, theirs = array.step(token), tensor.step(token)


@pytest.mark.parametrize("rung", RUNGS)
def test_both_write_the_same_greedy_tokens(rung: str) -> None:
    config = make_config(rung)
    written = []
    for name in ("array", "tensor"):
        engine, tokens = make_engine(name, config, random_weights(config, "float32")), [7]
        logits = engine.start(tokens)
        for _ in range(40):
            tokens.append(int(logits.argmax()))
            logits = engine.step(tokens[-1])
        written.append(tokens)
    assert written[0] == written[1]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_text_of_a_batch_is_the_text_alone(rung: str, dtype: str) -> None:
    config = make_config(rung)
    weights, prompts = random_weights(config, dtype), [[1], [5, 6, 7], [2], list(range(20)), [9, 9]]
    batch, alone = ArrayEngine(config, weights), [ArrayEngine(config, weights) for _ in prompts]
    logits, wanted = batch.start_batch(prompts), [e.start(p) for e, p in zip(alone, prompts, strict=True)]
    for _ in range(20):
        assert (logits == np.array(wanted)).all()
        tokens = [(int(row.argmax()) + index) % 21 for index, row in enumerate(logits)]
        logits = batch.step_batch(tokens)
        wanted = [engine.step(token) for engine, token in zip(alone, tokens, strict=True)]


@pytest.mark.parametrize("rung", RUNGS)
def test_parameters_have_the_names_and_shapes_of_a_model_directory(rung: str) -> None:
    config = make_config(rung)
    named = {name: tuple(parameter.shape) for name, parameter in Lesson(config).named_parameters()}
    assert named == parameter_shapes(config)


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(scores) / np.exp(scores).sum())


def norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]  # type: ignore[no-any-return]


def by_hand(rung: str, w: Weights, ids: list[int]) -> np.ndarray:
    """The last logits, token by token and head by head: what each rung is, without an array operation in common."""
    has, layers, heads = RUNGS.index(rung), 3, 4
    if rung == "bigram":
        return np.asarray(w["wte"][ids[-1]])
    xs = [w["wte"][token] + w["wpe"][place] for place, token in enumerate(ids)]
    for layer in range(layers if has >= 5 else 1):
        inner = [norm(x, w, f"h.{layer}.ln_1") if has >= 6 else x for x in xs]
        if has < 2:
            found = [sum(inner[: t + 1]) / (t + 1) for t in range(len(xs))]
        else:
            q, k, v = ([part @ x for x in inner] for part in np.split(w[f"h.{layer}.attn.c_attn"], 3))
            cuts = np.split(np.arange(16), heads if has >= 3 else 1)
            found = []
            for t in range(len(xs)):
                parts = []
                for cut in cuts:
                    shares = softmax(np.array([q[t][cut] @ k[s][cut] / math.sqrt(len(cut)) for s in range(t + 1)]))
                    parts.append(sum(share * v[s][cut] for s, share in enumerate(shares)))
                found.append(np.concatenate(parts))
            if has >= 3:
                found = [w[f"h.{layer}.attn.c_proj"] @ y for y in found]
        xs = [x + y for x, y in zip(xs, found, strict=True)] if has >= 5 else found
        if has >= 4:
            inner = [norm(x, w, f"h.{layer}.ln_2") if has >= 6 else x for x in xs]
            made = [w[f"h.{layer}.mlp.c_proj"] @ np.maximum(w[f"h.{layer}.mlp.c_fc"] @ x, 0) for x in inner]
            xs = [x + y for x, y in zip(xs, made, strict=True)] if has >= 5 else made
    last = norm(xs[-1], w, "ln_f") if has >= 6 else xs[-1]
    return np.asarray(w["lm_head"] @ last)


@pytest.mark.parametrize("rung", RUNGS)
def test_each_rung_computes_what_it_says(rung: str) -> None:
    config, ids = make_config(rung), [4, 9, 4, 17, 2]
    weights = random_weights(config)
    assert np.abs(ArrayEngine(config, weights).start(ids) - by_hand(rung, weights, ids)).max() < 1e-10


@pytest.mark.parametrize("rung", RUNGS)
def test_the_gradient_is_the_slope_of_the_loss(rung: str) -> None:
    config = make_config(rung)
    weights = random_weights(config)
    ids = np.random.default_rng(1).integers(0, 21, (2, 9))
    rows, columns = np.indices((2, 8))

    def cost(weights: Weights) -> float:
        logits = np.stack([ArrayEngine(config, weights).start_all(row[:-1].tolist()) for row in ids])  # [2, 8, V]
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return float(-log_p[rows, columns, ids[:, 1:]].mean())

    model = Lesson(config, dtype=torch.float64)
    model.adopt(weights)
    loss = model.nats(torch.tensor(ids[:, :-1]), torch.tensor(ids[:, 1:])).mean()
    assert loss.item() == pytest.approx(cost(weights), abs=1e-9)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        place = np.unravel_index(int(parameter.grad.abs().argmax()), parameter.shape)
        slopes = []
        for step in (1e-6, -1e-6):
            moved = {key: array.copy() for key, array in weights.items()}
            moved[name][place] += step
            slopes.append(cost(moved))
        assert float(parameter.grad[place]) == pytest.approx((slopes[0] - slopes[1]) / 2e-6, rel=1e-4), name


@pytest.mark.parametrize("rung", RUNGS)
def test_it_begins_at_random_and_sure_of_itself(rung: str) -> None:
    config = make_config(rung)
    weights = initial_weights(config, 3)
    assert {name: array.shape for name, array in weights.items()} == parameter_shapes(config)
    for name, array in weights.items():
        assert array.dtype == np.float32
        if array.ndim == 1:
            assert (array == (1 if name.endswith("weight") else 0)).all(), name
        else:
            assert array.std() == pytest.approx(1 if name in ("wte", "wpe") else array.shape[1] ** -0.5, rel=0.15), name
    again = initial_weights(config, 3)
    assert all((again[name] == array).all() for name, array in weights.items())
    assert (initial_weights(config, 4)["wte"] != weights["wte"]).any()


@pytest.mark.parametrize("rung", RUNGS)
def test_a_trace_has_the_names_that_its_rung_has(rung: str) -> None:
    config, ids = make_config(rung), [3, 1, 4, 1, 5]
    weights = random_weights(config)
    words = [Word(str(i), None) for i in range(21)]
    trace = record("m", config, weights, ids, 5, words.__getitem__, 21, 3, ["*"])
    names = ["attn.q", "attn.k", "attn.v", "attn.scores", "attn.weights", "attn.z", "resid_mid", "resid_post"]
    has = RUNGS.index(rung)
    if has >= 2:
        names.insert(0, "attn.c_attn")
    if has >= 3:
        names.insert(names.index("resid_mid"), "attn.c_proj")
    if has >= 4:
        names[-1:-1] = ["mlp.c_fc", "mlp.act", "mlp.c_proj"]
    if has >= 6:
        names.insert(0, "ln_1")
        names.insert(names.index("mlp.c_fc"), "ln_2")
    if rung == "bigram":
        names = ["attn.weights", "resid_post"]
    for layer in range(config.n_layer):
        assert [each.name[4:] for each in trace.operations if each.name.startswith(f"h.{layer}.")] == names
    assert trace.facts.startswith(f"lesson {rung}: ")
    attention = trace["h.0.attn.weights"]
    assert attention.shape == (config.n_head, 5, 5)
    if has < 2:
        wanted = np.eye(5) if rung == "bigram" else np.tri(5) / np.arange(1, 6)[:, None]
        assert np.abs(attention[0] - wanted).max() < 1e-12
    lens = trace.lens()
    assert list(lens) == ["resid_pre", *(f"h.{layer}.resid_post" for layer in range(config.n_layer))]
    assert lens[f"h.{config.n_layer - 1}.resid_post"] == trace.steps
    last = ArrayEngine(config, weights).head(trace[f"h.{config.n_layer - 1}.resid_post"])
    assert (last == trace["logits"]).all()
