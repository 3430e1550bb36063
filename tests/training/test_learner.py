"""A step in parts, in bfloat16, compiled: the same step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import pytest

from etude.gpt.config import GPTConfig, parameter_shapes
from etude.training.recipes import RecipeError, TextRecipe, recipe, with_settings

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

from etude.engines.tensor_gpt2 import initial_weights  # noqa: E402 - only where PyTorch is installed
from etude.training.device import CPU, Device  # noqa: E402
from etude.training.learner import Learner  # noqa: E402

CONFIG = GPTConfig("gpt2", 130, 16, 2, 2, 16)
RECIPE = TextRecipe(n_layer=2, n_head=2, n_embd=16, block_size=16, batch_size=12, warmup=0, steps=10)


def trained(settings: TextRecipe = RECIPE, device: Device = CPU, steps: int = 3) -> tuple[list[float], Any]:
    rng = np.random.default_rng(0)
    learner = Learner(CONFIG, settings, device=device)
    learner.adopt(initial_weights(CONFIG, 0))
    losses = [learner.step(rng.integers(130, size=(12, 17)), settings, step).item() for step in range(steps)]
    return losses, learner


@pytest.mark.parametrize("size", [1, 4, 6])
def test_gradients_of_parts_are_summed_to_those_of_the_batch(size: int) -> None:
    wanted, whole = trained()
    found, parts = trained(replace(RECIPE, micro_batch_size=size))
    assert found == pytest.approx(wanted, abs=1e-6)
    for name, array in whole.weights().items():
        assert np.abs(parts.weights()[name] - array).max() < 2e-5, name
    rows = np.random.default_rng(1).integers(130, size=(5, 17))
    assert np.abs(parts.score(rows, size) - whole.score(rows)).max() < 1e-4


def test_in_bfloat16_the_loss_is_about_the_same_and_weights_are_not_rounded() -> None:
    wanted, _ = trained()
    found, learner = trained(device=Device(bfloat16=True))
    assert found == pytest.approx(wanted, abs=0.02) and found != wanted
    assert {array.dtype for array in learner.weights().values()} == {np.dtype(np.float32)}


def test_compiled_with_the_loss_of_the_gpu_a_step_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # All that `torch.compile` does but machine code, in one graph: what breaks it in two would be slow on a GPU.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    wanted, whole = trained(steps=2)
    found, learner = trained(replace(RECIPE, micro_batch_size=6), Device(compile=True, fused=True), steps=2)
    assert found == pytest.approx(wanted, abs=1e-5)
    for name, array in whole.weights().items():
        assert np.abs(learner.weights()[name] - array).max() < 2e-5, name


def test_the_recipe_of_gpt2() -> None:
    found = cast("TextRecipe", recipe("gpt2-124m"))
    assert found.batch_size * found.block_size == 1 << 19
    assert (found.learning_rate, found.final_learning_rate, found.beta1, found.beta2) == (6e-4, 6e-5, 0.9, 0.95)
    assert (found.weight_decay, found.clip, found.dropout) == (0.1, 1.0, 0.0)
    config = GPTConfig("gpt2", 50257, found.block_size, found.n_layer, found.n_head, found.n_embd)
    assert sum(int(np.prod(shape)) for shape in parameter_shapes(config).values()) == 124_439_808


def test_settings_that_are_true_or_false() -> None:
    assert with_settings(RECIPE, ["shard=true"]).shard and not with_settings(RECIPE, ["shard=False"]).shard
    with pytest.raises(RecipeError, match="shard takes true or false, not 'maybe'"):
        with_settings(RECIPE, ["shard=maybe"])
    with pytest.raises(RecipeError, match="shard is for gpt2, which AdamW trains, not for modern"):
        replace(RECIPE, architecture="modern", ngram_rows=64, shard=True)
