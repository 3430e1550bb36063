"""What all runs share: a folder that says the same whatever was killed when."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from etude.training.checkpoint import CheckpointError, check_fit, load_checkpoint, save_checkpoint
from etude.training.recipes import MicroRecipe
from etude.training.runs import RunFolder, _is_timed, saved_recipe

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(7, np.int64)}


def test_what_was_recorded_after_the_last_checkpoint_is_recorded_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, MicroRecipe(), resume=False)
    folder.create(ARRAYS, "corpus")
    folder.record([{"step": 1}])
    folder.state["step"] = 1
    folder.save(ARRAYS)
    folder.record([{"step": 2, "loss": 9.0}])  # of a run that was killed here
    again = RunFolder(tmp_path, MicroRecipe(), resume=True)
    again.go_on("corpus")
    assert again.state["step"] == 1
    assert again.arrays.keys() == ARRAYS.keys()
    assert all((again.arrays[name] == array).all() for name, array in ARRAYS.items())
    assert {name: array.shape for name, array in again.arrays.items()} == {"a": (2, 3), "b": ()}
    again.record([{"step": 2}])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    "wrong",
    [
        {"step": "x"},
        {"step": -3},
        {"step": 2.5},
        {"step": True},
        {"metrics_bytes": "x"},
        {"metrics_bytes": -5},
        {"seconds": None},
        {"losses": ["a"]},
        {"losses": 3},
        {"corpus": 5},
        {"fitted": "no"},
        {"recipe": []},
        {"best": 3},
        {"best": {"step": 1}},
        {"best": {"nats_per_token": 1.0}, "best_nats": 1.0},
        {"worse": "x"},
        {"validation": []},
    ],
)
def test_a_state_that_is_none_is_a_damaged_checkpoint(tmp_path: Path, wrong: dict[str, object]) -> None:
    folder = RunFolder(tmp_path, MicroRecipe(), resume=False)
    folder.create(ARRAYS, "corpus")
    save_checkpoint(tmp_path, ARRAYS, {"losses": [1.5], **folder.state})
    assert load_checkpoint(tmp_path)[1]["step"] == 0
    save_checkpoint(tmp_path, ARRAYS, {"losses": [1.5], **folder.state, **wrong})
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(tmp_path)


def test_what_a_killed_run_left_half_written_is_taken_away(tmp_path: Path) -> None:
    RunFolder(tmp_path, MicroRecipe(), resume=False).create(ARRAYS, "corpus")
    for name in ("loss.svg", "checkpoint.safetensors", "README.md"):
        (tmp_path / f".{name}.0123456789ab.tmp").touch()
    (tmp_path / ".mine.tmp").touch()
    RunFolder(tmp_path, MicroRecipe(), resume=True).go_on("corpus")
    assert [path.name for path in tmp_path.glob(".*.tmp")] == [".mine.tmp"]


def test_metrics_that_are_cut_or_gone_are_noticed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, MicroRecipe(), resume=False)
    folder.create(ARRAYS, "corpus")
    folder.record([{"step": 1}])
    folder.save(ARRAYS)
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(CheckpointError, match="shorter than"):
        RunFolder(tmp_path, MicroRecipe(), resume=True).go_on("corpus")
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        RunFolder(tmp_path, MicroRecipe(), resume=True).go_on("corpus")


def test_a_run_in_minutes_knows_its_steps_from_the_checkpoint(tmp_path: Path) -> None:
    """A run killed between the two files goes on by what the checkpoint says."""
    folder = RunFolder(tmp_path, MicroRecipe(minutes=3), resume=False)
    folder.create(ARRAYS, "corpus")
    unfitted = (tmp_path / "recipe.json").read_bytes()
    folder.fit(1234)
    folder.save(ARRAYS)
    (tmp_path / "recipe.json").write_bytes(unfitted)
    found = saved_recipe(tmp_path)
    assert found == MicroRecipe(minutes=3, steps=1234)
    again = RunFolder(tmp_path, found, resume=True)
    assert again.state["fitted"]
    again.go_on("corpus")
    assert json.loads((tmp_path / "recipe.json").read_text())["steps"] == 1234


def test_arrays_that_do_not_fit_are_named(tmp_path: Path) -> None:
    fitting: dict[str, tuple[int, ...]] = {"a": (2, 3), "b": ()}
    check_fit(ARRAYS, fitting, tmp_path)
    for shapes, name in ((fitting | {"a": (3, 2)}, "a"), (fitting | {"c": ()}, "c"), ({"a": (2, 3)}, "b")):
        with pytest.raises(CheckpointError, match=rf"at {name}\); start the run again"):
            check_fit(ARRAYS, shapes, tmp_path)


def test_few_steps_do_where_they_take_much_of_a_budget() -> None:
    assert not _is_timed([1.0] * 24, 24.0, 10)
    assert _is_timed([1.0] * 25, 25.0, 10)
    assert not _is_timed([1.0] * 26, 26.0, 10)  # a run that was resumed has counted once
    assert not _is_timed([20.0], 20.0, 1)  # the first is slower than all others
    assert _is_timed([20.0] * 2, 40.0, 1)
