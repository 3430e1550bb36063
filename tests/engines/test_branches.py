"""Continuations from any place of a text are what the text itself, so continued, would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.engines.branches import BranchEngine
from etude.gpt.config import GPTConfig, parameter_shapes

CONFIGS = [
    GPTConfig("gpt2", 11, block_size=12, n_layer=2, n_head=2, n_embd=8),
    GPTConfig("micro", 11, block_size=12, n_layer=2, n_head=2, n_embd=8),
    GPTConfig("modern", 11, block_size=12, n_layer=2, n_head=2, n_embd=8, ngram_rows=31),
    GPTConfig("lesson", 11, block_size=12, n_layer=2, n_head=2, n_embd=8, rung="norm"),
    GPTConfig("lesson", 11, block_size=12, n_layer=1, n_head=1, n_embd=8, rung="average"),
    GPTConfig("lesson", 11, block_size=12, n_layer=1, n_head=1, n_embd=11, rung="bigram"),
]


def engines(config: GPTConfig) -> tuple[BranchEngine, ArrayEngine]:
    rng = np.random.default_rng(1)
    weights: dict[str, Any] = {name: rng.normal(0, 0.4, shape) for name, shape in parameter_shapes(config).items()}
    return BranchEngine(config, weights), ArrayEngine(config, weights)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.architecture}-{config.rung or ''}")
@pytest.mark.parametrize("count", [1, 3])
def test_a_branch_is_the_text_continued(config: GPTConfig, count: int) -> None:
    engine, other = engines(config)
    rng = np.random.default_rng(2)
    text = rng.integers(0, 11, 9).tolist()
    after = np.array([1, 2, 3, 4, 5, 7, 9, 9, 2])
    rows = rng.integers(0, 11, (len(after), count))
    assert np.allclose(engine.start_all(text), other.start_all(text), rtol=0, atol=1e-12)
    for _ in range(2):  # it changes nothing
        logits = engine.branch(after, rows)
        for place, row, found in zip(after, rows, logits, strict=True):
            expected = other.start([*text[:place], *row.tolist()])
            assert np.allclose(found, expected, rtol=0, atol=1e-10)
    assert engine.ids == text


def test_rows_in_parts_are_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _ = engines(CONFIGS[0])
    engine.start_all([1, 2, 3])
    after, rows = np.array([1, 2, 3, 3]), np.array([[4], [5], [6], [7]])
    whole = engine.branch(after, rows)
    monkeypatch.setattr("etude.engines.branches._SCORES", 1)
    assert np.allclose(engine.branch(after, rows), whole, rtol=0, atol=1e-12)
    assert engine.branch(after[:0], rows[:0]).shape == (0, 11)


@pytest.mark.parametrize(("after", "rows"), [([0], [[1]]), ([4], [[1]]), ([3], [[1] * 10]), ([1], [[11]]), ([1], [[]])])
def test_what_cannot_follow(after: list[int], rows: list[list[int]]) -> None:
    engine, _ = engines(CONFIGS[0])
    engine.start_all([1, 2, 3])
    with pytest.raises(ValueError, match="must"):
        engine.branch(np.array(after), np.array(rows, np.int64))
