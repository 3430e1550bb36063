"""`modern` of text in the tensor engine, held to the array engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etude.engines.array import ArrayEngine, rms_norm
from etude.engines.engine import make_engine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import Weights

torch = pytest.importorskip("torch", reason="the tensor engine needs PyTorch (the train extra)")

from etude.engines.tensor_engine import initial_weights  # noqa: E402 - only where PyTorch is installed
from etude.engines.tensor_modern import TextGPT, attend  # noqa: E402

CONFIG = GPTConfig("modern", 30, block_size=24, n_layer=2, n_head=2, n_embd=16, ngram_rows=64)


@pytest.fixture
def weights() -> Weights:
    rng = np.random.default_rng(0)
    found = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in parameter_shapes(CONFIG).items()}
    found["ngrams"][0] = 0
    return found


@pytest.mark.parametrize("length", [1, 2, 5, 24])
def test_logits_equal_the_array_engines(weights: Weights, length: int) -> None:
    ids = np.random.default_rng(1).integers(30, size=length).tolist()
    wanted = ArrayEngine(CONFIG, weights).start_all(ids)
    assert np.abs(make_engine("tensor", CONFIG, weights).start_all(ids) - wanted).max() < 1e-4


def test_greedy_tokens_are_the_same_past_a_block(weights: Weights) -> None:
    array, tensor, token = ArrayEngine(CONFIG, weights), make_engine("tensor", CONFIG, weights), 3
    a, b = array.start([token]), tensor.start([token])
    for _ in range(40):
        assert np.abs(a - b).max() < 1e-4
        token = int(a.argmax())
        a, b = array.step(token), tensor.step(token)


def test_texts_of_a_batch_know_their_own_ngrams(weights: Weights) -> None:
    engine = ArrayEngine(CONFIG, weights)
    together = [engine.start_batch([[1, 2, 3], [4, 5, 1, 2]]), engine.step_batch([7, 3])]
    for row, (prompt, token) in enumerate((([1, 2, 3], 7), ([4, 5, 1, 2], 3))):
        alone = ArrayEngine(CONFIG, weights)
        assert (together[0][row] == alone.start(prompt)).all()
        assert (together[1][row] == alone.step(token)).all()


def test_what_an_ngram_knows_changes_what_comes_next(weights: Weights) -> None:
    ids = [1, 2, 3, 4]
    before = ArrayEngine(CONFIG, weights).start_all(ids)
    model = TextGPT(CONFIG)
    model.adopt(weights)
    row = int(model.rows(torch.tensor([ids]))[0, 3, 3])  # of all four, at length 5: none; so of length 4
    assert row == 0
    row = int(model.rows(torch.tensor([ids]))[0, 3, 2])
    weights["ngrams"][row] += 1
    after = ArrayEngine(CONFIG, weights).start_all(ids)
    assert (before[:3] == after[:3]).all() and np.abs(before[3] - after[3]).max() > 0.01


def test_a_new_model_knows_nothing_and_a_seed_gives_the_same() -> None:
    first, again, other = (initial_weights(CONFIG, seed) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["wte"] != other["wte"]).any()
    wte = first["wte"]
    logits = ArrayEngine(CONFIG, first).start_all([1, 2, 3])
    # No layer and no n-gram says anything yet: each token is known by its own row, and all are about equally likely.
    assert np.allclose(logits, rms_norm(wte[[1, 2, 3]]) @ wte.T, atol=1e-3)
    for width in (16, 128, 384):
        wte = TextGPT(replace(CONFIG, n_embd=width)).wte.detach().numpy()
        assert 3 < (rms_norm(wte) * wte).sum(1).mean() < 7  # what each token's own logit begins at


def test_attention_written_out_for_bfloat16_is_the_same_attention() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 9, 8)
    wanted = attend(q, k, v)
    found = attend(*(each.bfloat16() for each in (q, k, v))).float()
    assert (found - wanted).abs().max() < 0.1
    first = attend(*(each[:, :, :4].bfloat16() for each in (q, k, v))).float()
    assert (first - found[:, :, :4]).abs().max() < 0.02  # nothing later is seen
