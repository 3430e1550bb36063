"""Batches of the array engine: a text gets what it would get alone, whatever is beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.engines.engine import BATCH_BYTES, MAX_ROWS
from etude.gpt.config import Architecture, GPTConfig, parameter_shapes
from etude.gpt.directory import Weights


def ids_of(config: GPTConfig, length: int, seed: int = 0) -> list[int]:
    """Ids that repeat, so that matches are found."""
    rng = np.random.default_rng(seed)
    return [int(token) for token in rng.choice(rng.integers(0, config.vocab_size, 5), length)]


ARCHITECTURES: tuple[Architecture, ...] = ("micro", "gpt2", "modern")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_text_of_a_batch_is_the_text_alone(architecture: Architecture, dtype: str) -> None:
    """Ragged prompts, some over the block's end at once, some later; texts leave, go on twice, change places."""
    config = GPTConfig(architecture, 61, block_size=24, n_layer=2, n_head=2, n_embd=16)
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, 0.3, shape).astype(dtype) for n, shape in parameter_shapes(config).items()}
    prompts = [ids_of(config, length, seed) for seed, length in enumerate([1, 3, 1, 24, 11, 40, 2, 8])]
    batch, alone = ArrayEngine(config, weights), [ArrayEngine(config, weights) for _ in prompts]
    logits, wanted = batch.start_batch(prompts), [e.start(p) for e, p in zip(alone, prompts, strict=True)]
    stepped: list[list[int]] = [[] for _ in prompts]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for step in range(40):
        assert logits.shape == (len(alone), 61)
        assert logits.dtype == dtype
        assert np.abs(logits - np.array(wanted)).max() < tolerance
        assert [int(row.argmax()) for row in logits] == [int(row.argmax()) for row in wanted]
        if step in (5, 12, 20):
            rows = {5: [0, 1, 3, 4, 5, 7], 12: [2, 0, 0, 4, 0], 20: [1, 2, 3]}[step]
            batch.keep(rows)
            logits = logits[rows]
            prompts, stepped = [prompts[row] for row in rows], [list(stepped[row]) for row in rows]
            alone = [ArrayEngine(config, weights) for _ in rows]
            for engine, prompt, added in zip(alone, prompts, stepped, strict=True):
                engine.start(prompt)
                for token in added:
                    engine.step(token)
        tokens = [(int(row.argmax()) + index) % 61 for index, row in enumerate(logits)]  # the same texts part
        for added, token in zip(stepped, tokens, strict=True):
            added.append(token)
        logits = batch.step_batch(tokens)
        wanted = [engine.step(token) for engine, token in zip(alone, tokens, strict=True)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_of_many_texts_is_to_the_bit_the_step_of_each(architecture: Architecture) -> None:
    """By construction: the same calls to BLAS, of matrices that are taken in parts too."""
    config = GPTConfig(architecture, 3_000, block_size=16, n_layer=1, n_head=2, n_embd=64)
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, 0.1, shape).astype("float32") for n, shape in parameter_shapes(config).items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("etude.engines.array._CACHED", 50_000)
        batch, alone = ArrayEngine(config, weights), [ArrayEngine(config, weights) for _ in range(5)]
        logits = batch.start_batch([[token] for token in range(5)])
        wanted = [engine.start([token]) for token, engine in enumerate(alone)]
        for _ in range(12):
            assert (logits == np.array(wanted)).all()
            tokens = logits.argmax(axis=1).tolist()
            logits = batch.step_batch(tokens)
            wanted = [engine.step(token) for engine, token in zip(alone, tokens, strict=True)]
    engine = ArrayEngine(config, weights)
    assert np.abs(engine.start([0]) - batch.start([0])).max() < 1e-5


def test_the_width_of_a_batch_keeps_to_its_memory() -> None:
    config, weights = GPTConfig("gpt2", 50_000, 1024, 12, 12, 768), {"any": np.zeros(1, np.float32)}
    engine = ArrayEngine(config, weights)
    a_token = 2 * 12 * 768 * 4  # a key and a value in each layer
    for tokens, room in ((1, 64), (64, 64), (65, 128), (700, 1024), (1024, 1024), (1 << 40, 1024)):
        rows, text = engine.most_rows(tokens), room * a_token + 2 * 50_000 * 4
        assert rows * text <= BATCH_BYTES < (rows + 1) * text
    huge = GPTConfig("gpt2", 50, 1 << 20, 48, 25, 1600)
    assert ArrayEngine(huge, weights).most_rows(1 << 20) == 1
    wordy = GPTConfig("gpt2", 1 << 20, 64, 1, 1, 4)  # nothing but logits
    assert ArrayEngine(wordy, weights).most_rows(64) == BATCH_BYTES // (2 * 64 * 4 * 4 + 2 * (1 << 20) * 4)
    assert ArrayEngine(GPTConfig("micro", 27, 8, 1, 1, 4), weights).most_rows(8) == MAX_ROWS


def test_a_cache_grows_with_its_text(config: GPTConfig, weights: Weights) -> None:
    wide = replace(config, block_size=300)
    engine, whole = ArrayEngine(wide, weights), ArrayEngine(wide, weights)
    ids = ids_of(wide, 200)
    engine.start(ids[:1])
    steps = [engine.step(token) for token in ids[1:]]
    assert np.abs(np.array(steps) - whole.start_all(ids)[1:]).max() < 1e-5
    assert engine._texts[0].keys.shape[2] == 256


def test_a_batch_refuses_what_is_none(config: GPTConfig, weights: Weights) -> None:
    engine = ArrayEngine(config, weights)
    before = engine.start_batch([[1], [2, 3]])
    for prompts in ([[1], []], [[1], [-1]], [[10_000_000]]):
        with pytest.raises(ValueError, match="token ids must be"):
            engine.start_batch(prompts)
    with pytest.raises(ValueError, match="token ids must be"):
        engine.step_batch([1, -1])
    with pytest.raises(ValueError, match="zip"):
        engine.step_batch([1])
    engine.step_batch([4, 5])  # what was refused is not kept
    fresh = ArrayEngine(config, weights)
    assert (fresh.start_batch([[1], [2, 3]]) == before).all()
    assert [text.ids for text in engine._texts] == [[1, 4], [2, 3, 5]]
