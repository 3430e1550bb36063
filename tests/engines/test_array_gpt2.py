"""GPT-2 in the array engine: the formula by hand, and the logits and tokens of transformers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.engines.array import ArrayEngine
from etude.engines.engine import make_engine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import Weights

CONFIG = GPTConfig("gpt2", vocab_size=61, block_size=32, n_layer=3, n_head=2, n_embd=16)
UNTIED = GPTConfig("gpt2", 61, 32, 3, 2, 16, 1e-4, tie_word_embeddings=False)


def random_weights(config: GPTConfig, dtype: str = "float32", seed: int = 0) -> Weights:
    """Every parameter random, so that each of them matters, and positions so large that greedy tokens vary."""
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, 0.4, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}
    weights["wpe.weight"] *= 5
    return weights


def transformers_model(config: GPTConfig, weights: Weights) -> Any:
    torch = pytest.importorskip("torch", reason="the parity tests need PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the dev extra)")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config.from_dict(config.to_dict())).eval()
    state = {f"{'' if name == 'lm_head.weight' else 'transformer.'}{name}": w for name, w in weights.items()}
    state.setdefault("lm_head.weight", weights["wte.weight"])
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model


def their_logits(model: Any, ids: list[int]) -> np.ndarray:
    import torch

    with torch.no_grad():
        logits: np.ndarray = model(torch.tensor([ids])).logits[0].numpy()
    return logits


def test_the_formula_by_hand() -> None:
    """Two tokens, two heads, one layer, written out once more with nothing shared."""
    config = GPTConfig("gpt2", 7, 4, 1, 2, 4, layer_norm_epsilon=1e-3)
    w = random_weights(config, "float64")

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        z = (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + 1e-3)
        return np.asarray(z * w[f"{name}.weight"] + w[f"{name}.bias"])

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.einsum("i,io->o", x, w[f"{name}.weight"]) + w[f"{name}.bias"])

    xs = [w["wte.weight"][token] + w["wpe.weight"][position] for position, token in enumerate((5, 2))]
    q, k, v = zip(*(np.split(linear("h.0.attn.c_attn", norm("h.0.ln_1", x)), 3) for x in xs), strict=True)
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        scores = np.exp(np.array([q[1][head] @ key[head] for key in k]) / math.sqrt(2))
        heads.append(sum(s / scores.sum() * value[head] for s, value in zip(scores, v, strict=True)))
    x = xs[1] + linear("h.0.attn.c_proj", np.concatenate(heads))
    hidden = linear("h.0.mlp.c_fc", norm("h.0.ln_2", x))
    hidden = 0.5 * hidden * (1 + np.tanh(math.sqrt(2 / math.pi) * (hidden + 0.044715 * hidden**3)))
    x = x + linear("h.0.mlp.c_proj", hidden)
    logits = ArrayEngine(config, w).start([5, 2])
    assert logits.dtype == np.float64
    assert np.abs(logits - w["wte.weight"] @ norm("ln_f", x)).max() < 1e-12


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
def test_logits_equal_those_of_transformers(config: GPTConfig) -> None:
    weights = random_weights(config)
    model, engine = transformers_model(config, weights), make_engine("array", config, weights)
    ids = np.random.default_rng(1).integers(0, 61, 32).tolist()
    assert np.abs(engine.start_all(ids) - their_logits(model, ids)).max() < 1e-4
    steps = [engine.start(ids[:5]), *map(engine.step, ids[5:])]
    assert np.abs(np.array(steps) - their_logits(model, ids)[4:]).max() < 1e-4


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
def test_200_greedy_tokens_equal_those_of_transformers_over_many_blocks(config: GPTConfig) -> None:
    """Transformers has no sliding window, so it is told each window: a full block restarts with its newest half."""
    weights = random_weights(config)
    model, engine = transformers_model(config, weights), ArrayEngine(config, weights)
    context = [3, 1, 4]
    logits, ours, theirs = engine.start(context), [], []
    for _ in range(200):
        ours.append(int(logits.argmax()))
        logits = engine.step(ours[-1])
        theirs.append(int(their_logits(model, context)[-1].argmax()))
        if len(context) == config.block_size:
            context = context[config.block_size // 2 :]
        context.append(theirs[-1])
    assert ours == theirs
    assert len(set(ours)) > 5  # a model that repeats one token would prove little


def test_200_greedy_tokens_equal_those_that_transformers_generates() -> None:
    config = GPTConfig("gpt2", 97, 256, 2, 4, 32)
    weights = random_weights(config)
    model, engine = transformers_model(config, weights), ArrayEngine(config, weights)
    import torch

    wanted = model.generate(torch.tensor([[3, 1, 4]]), do_sample=False, max_new_tokens=200, pad_token_id=0)[0, 3:]
    token = int(engine.start([3, 1, 4]).argmax())
    ours = [token]
    for _ in range(199):
        ours.append(token := int(engine.step(token).argmax()))
    assert ours == wanted.tolist()
    assert len(set(ours)) > 5


@given(ids=st.lists(st.integers(0, 60), min_size=2, max_size=32), data=st.data())
@settings(max_examples=20, deadline=None)
def test_steps_equal_one_pass_and_forks_go_on_alone(ids: list[int], data: st.DataObject) -> None:
    split = data.draw(st.integers(1, len(ids) - 1))
    weights = random_weights(CONFIG, "float64")
    whole = ArrayEngine(CONFIG, weights).start_all(ids)
    engine = ArrayEngine(CONFIG, weights)
    first = engine.start(ids[:split])
    twin = engine.fork()
    engine.step(ids[0])
    steps = [first, *map(twin.step, ids[split:])]
    assert np.abs(np.array(steps) - whole[split - 1 :]).max() < 1e-11


def test_a_full_block_goes_on_with_its_newest_half() -> None:
    weights = random_weights(CONFIG)
    engine = ArrayEngine(CONFIG, weights)
    engine.start(list(range(32)))
    assert (engine.step(9) == ArrayEngine(CONFIG, weights).start([*range(16, 32), 9])).all()
    assert engine.ids == [*range(16, 32), 9]


def test_a_prompt_beyond_the_block_counts_with_its_newest_block() -> None:
    weights = random_weights(CONFIG)
    ids = np.random.default_rng(0).integers(0, 61, 50).tolist()
    assert (ArrayEngine(CONFIG, weights).start(ids) == ArrayEngine(CONFIG, weights).start(ids[-32:])).all()


def test_weights_stay_as_they_are() -> None:
    weights = random_weights(CONFIG)
    for array in weights.values():
        array.flags.writeable = False  # as they are where a file is mapped
    engine = ArrayEngine(CONFIG, weights)
    engine.start([1, 2, 3])
    assert all(engine.weights[name] is array for name, array in weights.items())


def test_a_prompt_in_pieces_is_one_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = random_weights(CONFIG, "float64")
    ids = np.random.default_rng(0).integers(0, 61, 30).tolist()
    whole = ArrayEngine(CONFIG, weights).start_all(ids)
    monkeypatch.setattr("etude.engines.array._PIECE", 7)
    engine = ArrayEngine(CONFIG, weights)
    assert np.abs(engine.start_all(ids) - whole).max() < 1e-12
    assert np.abs(engine.start(ids) - whole[-1]).max() < 1e-12
    assert np.abs(engine.step(5) - ArrayEngine(CONFIG, weights).start([*ids, 5])).max() < 1e-12
