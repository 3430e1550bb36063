"""The bench of training: two loops that do the same, and what it says where there is no GPU."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from etude.bench.train import CONFIG, RECIPE, bench, measure
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")


def test_both_loops_train_the_same_model() -> None:
    config = GPTConfig("gpt2", 64, 16, 2, 2, 16)
    settings = replace(RECIPE, batch_size=8, block_size=16, micro_batch_size=4, warmup=1, learning_rate=1e-2)
    found = {name: measure(name, config, settings, "cpu", 4) for name in ("etude", "plain PyTorch loop")}
    assert found["etude"]["loss"] == pytest.approx(found["plain PyTorch loop"]["loss"], abs=1e-5)
    assert found["etude"]["loss"] != pytest.approx(4.17, abs=0.02)  # ln 64, before anything is learnt
    assert all(each["tokens_per_second"] > 0 for each in found.values())


def test_a_step_is_half_a_million_tokens_of_gpt2() -> None:
    assert RECIPE.batch_size * RECIPE.block_size == 1 << 19
    sizes = (CONFIG.block_size, CONFIG.n_layer, CONFIG.n_head, CONFIG.n_embd)
    assert sizes == (RECIPE.block_size, RECIPE.n_layer, RECIPE.n_head, RECIPE.n_embd)


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(EtudeError, match="measures on a GPU, and PyTorch sees none here"):
        bench()


@pytest.mark.parametrize("arguments", [["decode", "--gpu"], ["micro", "--gpu"]])
def test_only_train_has_a_gpu(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "etude", "bench", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (result.returncode, result.stdout) == (2, "")
    assert "--gpu belongs to train" in result.stderr
