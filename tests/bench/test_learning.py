"""The bench of training on text, on a text and with recipes that take a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etude.bench import learning
from etude.errors import EtudeError
from etude.training.recipes import RECIPES, TextRecipe

pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

TINY: dict[str, Any] = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "batch_size": 4, "steps": 100, "samples": 0, "warmup": 2,
}  # fmt: skip


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("classic", "modern"):
        settings = RECIPES[name]
        assert isinstance(settings, TextRecipe)
        monkeypatch.setitem(RECIPES, name, replace(settings, **TINY))
    for name, value in (("SEEDS", (1, 2)), ("SOON", 4), ("_ROUNDS", 1), ("_ROUND_STEPS", 1)):
        monkeypatch.setattr(learning, name, value)
    path = tmp_path / "plays.txt"
    path.write_text("Over the hills and far away, the fiddler's playing;\n" * 40)
    return path


def test_rows_say_how_soon_a_loss_is_reached(plays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "REACH", 20.0)  # at the first look
    rows = learning.bench(plays)
    found = {(row["subject"], row["metric"]): row["value"] for row in rows}
    slow = found["classic, seed 1", "training until 20.0"]
    soon = found["modern, 4 steps, mean of 2 seeds", "training until 20.0"]
    assert found["modern, 4 steps, mean of 2 seeds", "speed beside classic"] == pytest.approx(slow / soon)
    own, plain = found["classic", "training step"], found["plain PyTorch loop, as nanoGPT's", "training step"]
    assert found["classic", "speed beside the plain loop"] == pytest.approx(plain / own)
    last = "modern, 100 steps, mean of 2 seeds"
    assert found[last, "the worst of them"] >= found[last, "validation after 6,400 tokens"] > 0
    assert all(row["value"] > 0 and row["unit"] for row in rows)


def test_a_text_on_which_the_loss_is_not_reached_is_one_line(plays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "REACH", 0.01)
    with pytest.raises(EtudeError, match=r"classic, seed 1: 100 steps did not reach 0\.01 on this text, but \d"):
        learning.bench(plays)
