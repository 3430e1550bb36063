"""Several processes against one: the same losses, the same bytes when resumed, and one line when a process is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import etude
from etude.gpt.directory import load_model
from etude.training.checkpoint import CheckpointError, load_checkpoint
from etude.training.ranks import ALONE
from etude.training.recipes import RecipeError
from etude.training.runs import Interrupted, Progress

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")
pytest.importorskip("torch.distributed", reason="this PyTorch is built without distributed training")

TEXT = "Over the hills and far away,\nthe fiddler's playing;\n\nwe'll dance till day.\n" * 8
MODERN: dict[str, Any] = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "batch_size": 4, "steps": 8, "ngram_rows": 64,
    "dropout": 0.0, "ngram_dropout": 0.0,
    "precision": "float32",
}  # fmt: skip
SETTINGS: dict[str, Any] = {
    "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16, "batch_size": 4, "steps": 50, "warmup": 3,
    "validate_every": 20,
}  # fmt: skip
STOP = 23
# What one pair of processes does, one run after another: starting a pair takes longer than all of them.
PAIR = """
import json, os, shutil, signal, sys
import etude
from etude.errors import EtudeError
from etude.training.ranks import joined

folder, settings, modern, stop = sys.argv[1], *map(json.loads, sys.argv[2:])

def asked(progress):
    if progress.step == stop:
        os.kill(os.getpid(), signal.SIGTERM)  # of the first process alone: only it reports

def run(name, recipe="classic", report=None, resume=False, **more):
    try:
        recipe = None if resume else recipe
        etude.train(f"{folder}/hills.txt", f"{folder}/{name}", recipe, report=report, resume=resume, **more)
    except EtudeError as error:
        if ranks.first:
            print(f"{name}: {error}")

with joined() as ranks:
    run("two", **settings)
    run("two-again", report=asked, **settings)
    run("two-again", resume=True)
    run("one-then-two", resume=True)
    run("micro-batches", **settings | {"micro_batch_size": 1})
    run("modern-two", "modern", **modern)
    run("shards", **settings | {"shard": True})
    run("shards-again", report=asked, **settings | {"shard": True})
    if ranks.first:
        shutil.copytree(f"{folder}/shards-again", f"{folder}/shards-then-one")
    run("shards-again", resume=True)
    run("odd", **settings | {"batch_size": 3})
    run("uneven", **settings | {"batch_size": 12, "micro_batch_size": 4})
"""


def stop_at(step: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process: `one`, and `one-then-two`, stopped. Then those of a pair, whose words are in `words`."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "hills.txt").write_text(TEXT, encoding="utf-8")
    etude.train(folder / "hills.txt", folder / "one", "classic", **SETTINGS)
    etude.train(folder / "hills.txt", folder / "modern-one", "modern", **MODERN)
    with pytest.raises(Interrupted):
        etude.train(folder / "hills.txt", folder / "one-then-two", "classic", report=stop_at(STOP), **SETTINGS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", PAIR, str(folder), *map(json.dumps, (SETTINGS, MODERN, STOP))]
    meet = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [
        subprocess.Popen(
            command, env=environment(RANK=rank, LOCAL_RANK=rank, **meet), stdout=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    words = [process.communicate(timeout=240)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert words[1] == ""
    (folder / "words").write_text(words[0])
    return folder


def losses(run: Path) -> list[float]:
    found: list[float] = load_checkpoint(run)[1]["losses"]
    return found


def same_files(a: Path, b: Path) -> None:
    for name in ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json", "README.md", "recipe.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.parametrize("name", ["two", "micro-batches", "shards", "one-then-two", "shards-again"])
def test_several_processes_have_the_losses_of_one(folder: Path, name: str) -> None:
    assert len(losses(folder / name)) == SETTINGS["steps"]
    assert np.abs(np.subtract(losses(folder / name), losses(folder / "one"))).max() < 1e-5
    ours, theirs = load_model(folder / name), load_model(folder / "one")
    for parameter, array in theirs.weights.items():
        assert np.abs(ours.weights[parameter] - array).max() < 1e-4, parameter
    found, wanted = ((folder / each / "metrics.jsonl").read_text().splitlines() for each in (name, "one"))
    assert len(found) == len(wanted)  # one process writes
    validations = [json.loads(lines[-1])["validation"]["nats_per_token"] for lines in (found, wanted)]
    assert validations[0] == pytest.approx(validations[1], abs=1e-5)


def test_what_modern_knows_by_sight_is_learnt_from_the_rows_of_all(folder: Path) -> None:
    ours, theirs = load_model(folder / "modern-two"), load_model(folder / "modern-one")
    assert np.abs(np.subtract(losses(folder / "modern-two"), losses(folder / "modern-one"))).max() < 1e-4
    assert np.abs(ours.weights["ngrams"] - theirs.weights["ngrams"]).max() < 1e-3


def test_resumed_with_as_many_processes_a_run_ends_in_the_same_bytes(folder: Path) -> None:
    same_files(folder / "two-again", folder / "two")
    same_files(folder / "shards-again", folder / "shards")
    words = (folder / "words").read_text()
    for name in ("two-again", "shards-again"):
        assert f"{name}: stopped after step {STOP}; everything is saved, go on with --resume" in words


def test_shards_of_two_go_on_in_one_process(folder: Path) -> None:
    run = folder / "shards-then-one"
    arrays, state = load_checkpoint(run)
    assert (arrays, state["shards"]) == ({}, f"shards-{STOP:08d}")
    assert [path.suffix for path in (run / state["shards"]).iterdir()] == [".safetensors"] * 2  # and no pickle
    etude.train(folder / "hills.txt", run, resume=True)
    assert np.abs(np.subtract(losses(run), losses(folder / "one"))).max() < 1e-5
    assert not list(run.glob("*shards-*"))  # all of it is in one file again


def test_shards_after_a_validation_hold_the_moments_of_every_parameter(folder: Path) -> None:
    held = set[str]()
    for path in (folder / "shards" / "shards-00000050").iterdir():
        with safe_open(path, "np") as file:
            held |= set(file.keys())
    names = {name.removeprefix("model.") for name in held if name.startswith("model.")}
    assert "wte.weight" in names  # outside of the layers
    assert {name.removeprefix("adam.exp_avg.") for name in held if name.startswith("adam.exp_avg.")} == names


def test_shards_that_are_damaged_or_gone_are_one_line(folder: Path, tmp_path: Path) -> None:
    from etude.training.distributed import load_shards

    tensors = {"model.wte.weight": torch.zeros(3, 2)}
    with pytest.raises(CheckpointError, match=r"shards-1: damaged .no such folder"):
        load_shards(tmp_path, "shards-1", tensors, ALONE)
    (tmp_path / "shards-1").mkdir()
    (tmp_path / "shards-1" / "a.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="shards-1: damaged"):
        load_shards(tmp_path, "shards-1", tensors, ALONE)
    with pytest.raises(CheckpointError, match="shards-00000050: damaged"):
        load_shards(folder / "shards", "shards-00000050", {"model.nothing": torch.zeros(3, 2)}, ALONE)


def test_a_batch_that_cannot_be_divided_is_one_line_and_writes_nothing(folder: Path) -> None:
    words = (folder / "words").read_text().splitlines()
    assert [line for line in words if line.startswith("odd")] == [
        "odd: batch_size 3 cannot be divided among 2 processes; start a number of processes that divides it, or begin "
        "with another batch_size"
    ]
    assert [line for line in words if line.startswith("uneven")] == [
        "uneven: micro_batch_size 4 does not divide the 6 windows of a process; choose one that does"
    ]
    assert not (folder / "odd").exists() and not (folder / "uneven").exists()


def torchrun(folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "127.0.0.1:0", "-m", "etude", "train", str(folder / "hills.txt")]
    return subprocess.Popen(
        [*command, "-o", str(folder / name), *arguments], env=environment(), stderr=subprocess.PIPE, text=True
    )


def of_rank(parent: int, rank: int) -> int:
    """The process that torchrun started with a rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    wanted = f"RANK={rank}".encode()
    (found,) = [int(child) for child in children if wanted in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")]
    return found


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the process to kill in /proc")
def test_a_killed_process_ends_the_run_with_one_line_and_the_run_goes_on(folder: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items() if key != "steps"]
    process = torchrun(folder, "killed", "--recipe", "classic", "--steps", "50", *settings)
    lines, ends = folder / "killed" / "metrics.jsonl", time.monotonic() + 200
    while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") < 10):
        assert time.monotonic() < ends
        time.sleep(0.002)
    os.kill(of_rank(process.pid, 1), signal.SIGKILL)
    words = process.communicate(timeout=100)[1]
    assert process.returncode == 1
    assert [line for line in words.splitlines() if line.startswith("etude: ")] == [
        f"etude: process 0 lost another process of this run; the last checkpoint in {folder / 'killed'} is kept: start "
        "them all again with --resume"
    ]
    assert words.count("Traceback (most recent call last)") == 1  # torchrun's own, that a process failed
    assert not (folder / "killed" / "model.safetensors").exists()
    assert not list((folder / "killed").glob(".*.tmp"))
    again = torchrun(folder, "killed", "--resume")
    words = again.communicate(timeout=200)[1]
    assert again.returncode == 0, words
    same_files(folder / "killed", folder / "two")


def test_what_trains_in_one_process_says_so(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match="the recipe micro trains in one process, not in 2"):
        etude.train(folder / "hills.txt", tmp_path / "run", "micro")
