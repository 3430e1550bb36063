"""What the bench counts, against counting by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from etude.bench.machine import corpus_file, machine
from etude.bench.micro import BATCHED, best_seconds, flops_per_sample
from etude.errors import EtudeError


def test_operations_are_counted_as_the_model_does_them() -> None:
    # Two documents of one character: two tokens each, a vocabulary of three. With d = 2 and one layer, a token passes
    # 12 d² + V d numbers of matrices; attention of two tokens looks at 3 pairs: d numbers for scores, d for values.
    recipe = replace(BATCHED, n_embd=2, n_head=1)
    matrices, attention = 2 * (12 * 4 + 3 * 2), 3 * (2 + 2)
    assert flops_per_sample(["a", "b"], recipe) == 6 * (matrices + attention)


def test_steps_are_timed_from_the_same_state(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Recorder:
        def state(self) -> dict[str, Any]:
            return {"kept": done}

        def restore(self, state: dict[str, Any]) -> None:
            state["kept"].append("restore")

        def run(self, order: Any, first_step: int, total_steps: int) -> None:
            done.append(f"{order.tolist()} from {first_step} of {total_steps}")

    monkeypatch.setattr("etude.bench.micro.make_trainer", lambda engine, beginning, recipe: Recorder())
    best_seconds("scalar", ["ab", "c"], replace(BATCHED, batch_size=1), 2, 3)
    assert done == ["restore", "[[0], [1]] from 0 of 2"] * 4


def test_the_machine_is_named() -> None:
    described = machine()
    assert described["processor"] and described["cores"] >= 1 and described["numpy"]
    json.dumps(described)


def test_names_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(EtudeError, match=r"no names\.txt"):
        corpus_file(None)
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "shared" / "data" / "names.txt").touch()
    assert corpus_file(None) == Path("../shared/data/names.txt")
    Path("names.txt").touch()
    assert corpus_file(None) == Path("names.txt")
    assert corpus_file(Path("mine.txt")) == Path("mine.txt")


def test_an_unknown_bench_is_wrong_usage() -> None:
    command = [sys.executable, "-m", "etude", "bench", "speed"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (result.returncode, result.stdout) == (2, "")
    assert "no bench 'speed'; known: micro" in result.stderr
