"""Training: batches as a pure function of the step, Muon, and runs that stop and go on to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from etude.corpus.songs import SongDocument
from etude.gpt.directory import load_model
from etude.tokens.chords import ChordTokenizer
from etude.training import runs
from etude.training.batches import IGNORE, SongBatches, encode_plain
from etude.training.recipes import ChordRecipe, RecipeError, recipe, with_settings
from etude.training.runs import Interrupted, TrainingError, saved_recipe

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

TINY = ChordRecipe(
    n_layer=1,
    n_head=2,
    n_embd=16,
    block_size=32,
    batch_size=2,
    steps=12,
    warmup=2,
    progressions=0,
    validate_every=5,
)


def test_batches_are_a_function_of_seed_and_step(songs: list[SongDocument], tokenizer: ChordTokenizer) -> None:
    a, b = (SongBatches(songs, tokenizer, TINY) for _ in range(2))
    for step in (7, 0, 3):
        assert (a.batch(step).ids == b.batch(step).ids).all()
    other = SongBatches(songs, tokenizer, replace(TINY, seed=2))
    assert any(
        a.batch(s).ids.shape != other.batch(s).ids.shape or (a.batch(s).ids != other.batch(s).ids).any()
        for s in range(6)
    )


def test_an_epoch_shows_every_song_once(songs: list[SongDocument], tokenizer: ChordTokenizer) -> None:
    plain = replace(TINY, plain_share=1.0, crop_share=0.0)
    batches = SongBatches(songs, tokenizer, plain)
    shown = []
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        for ids, targets in zip(batch.ids, batch.targets, strict=True):
            length = int((targets != IGNORE).sum())
            assert (ids[1:length] == targets[: length - 1]).all()
            shown.append((*ids[1:length].tolist(), int(targets[length - 1])))
    assert sorted(shown) == sorted(tuple(encode_plain(song, tokenizer)[0][1:].tolist()) for song in songs)


def test_a_song_cut_at_its_start_is_counted_from_its_new_first_root(
    songs: list[SongDocument], tokenizer: ChordTokenizer
) -> None:
    batches = SongBatches(songs, tokenizer, TINY)
    ids, said = encode_plain(songs[0], tokenizer)
    cut, _ = batches._from(ids, said, 1)
    assert cut.tolist() == list(tokenizer.encode_changes(songs[0].changes[1:]).ids)


def test_muon_orthogonalizes() -> None:
    from etude.training.optimizers import orthogonalize

    torch.manual_seed(0)
    for compute in (torch.float32, torch.bfloat16):
        singular = torch.linalg.svdvals(orthogonalize(torch.randn(3, 16, 40), compute).float())
        assert singular.min() > 0.5
        assert singular.max() < 1.4


def test_muon_treats_stacked_maps_one_by_one_and_decays() -> None:
    from etude.training.optimizers import Muon, orthogonalize

    torch.manual_seed(0)
    stacked, tall = (torch.nn.Parameter(torch.randn(shape)) for shape in ((24, 8), (32, 8)))
    before = [matrix.detach().clone() for matrix in (stacked, tall)]
    muon = Muon([stacked, tall], weight_decay=0.1, compute=torch.float32, momentum=0.0)
    for matrix in (stacked, tall):
        matrix.grad = torch.randn_like(matrix)
    grads = [stacked.grad, tall.grad]
    muon.step(0.5)
    maps = torch.cat([orthogonalize(part[None], torch.float32)[0] for part in grads[0].chunk(3)])
    assert torch.allclose(stacked, before[0] * 0.95 - 0.5 * maps, atol=1e-6)
    assert torch.allclose(
        tall, before[1] * 0.95 - 0.5 * 2 * orthogonalize(grads[1].T[None], torch.float32)[0].T, atol=1e-6
    )


def test_a_run_makes_a_model_directory_that_loads(songs: list[SongDocument], tmp_path: Path) -> None:
    from etude.training.songs import train

    seen = []
    best = train(songs, songs, tmp_path / "run", TINY, report=lambda progress: seen.append(progress.step))
    assert seen == list(range(1, 13))
    model = load_model(tmp_path / "run")
    assert f"step {best['step']}" in model.card
    assert "| made | MIT | 3 |" in model.card
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == seen
    assert [line["step"] for line in lines if "validation" in line] == [5, 10, 12]


def test_steps_by_hand(songs: list[SongDocument], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rates rise and fall, AdamW and Muon move what is theirs, and the average forgets its beginning first."""
    from torch.nn.functional import log_softmax

    from etude.training.optimizers import Muon
    from etude.training.songs import _Run

    monkeypatch.setattr("etude.training.songs.product_type", lambda: torch.float32)  # on every processor
    settings = replace(TINY, steps=4, dropout=0.0, averaging=0.1)
    run = _Run(songs, songs, tmp_path / "run", settings, resume=False, tensorboard=False)
    twin = deepcopy(run.model)
    matrices = twin.matrices()
    others = [p for p in twin.parameters() if not any(p is matrix for matrix in matrices)]
    muon = Muon(matrices, 0.1, torch.float32)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    average = [p.detach().clone() for p in twin.parameters()]
    shares = [1 / 2 * 4 / 4, 3 / 4, 2 / 4, 1 / 4]  # two steps of warm-up, and down to 0 from the first of four on
    for step, share in enumerate(shares):
        batch = run.batches.batch(step)
        logits = twin(*map(torch.from_numpy, (batch.ids, batch.found, batch.lengths)))  # [b, t, V]
        asked = np.nonzero(batch.targets != IGNORE)
        loss = -log_softmax(logits, dim=2)[(*asked, batch.targets[asked])].mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        adam.param_groups[0]["lr"] = 2e-3 * share
        adam.step()
        muon.step(2e-2 * share)
        twin.zero_grad()
        kept = min(0.1, (step + 1) / (step + 20))
        average = [kept * mean + (1 - kept) * p.detach() for mean, p in zip(average, twin.parameters(), strict=True)]
        assert run.step(step) == pytest.approx(loss.item(), abs=1e-5)
        assert all(map(partial(torch.allclose, atol=1e-5), run.model.parameters(), twin.parameters())), step
        assert all(map(partial(torch.allclose, atol=1e-5), run.average, average)), step


def test_a_run_learns(songs: list[SongDocument], tmp_path: Path) -> None:
    from etude.training.songs import train

    losses: list[float] = []
    train(songs, songs, tmp_path / "run", replace(TINY, steps=120, dropout=0.0), report=lambda p: losses.append(p.loss))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_a_run_ends_where_patience_does_and_leaves_its_models(songs: list[SongDocument], tmp_path: Path) -> None:
    from etude.training.songs import train

    settings = replace(TINY, steps=40, validate_every=3, patience=2, checkpoint_every=4)
    settings = replace(settings, learning_rate=0.0, matrix_learning_rate=0.0)  # so nothing gets better
    result = train(songs[:1], songs[1:], tmp_path / "run", settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["validation"]["nats_per_chord"]["value"] for line in lines if "validation" in line}
    assert result["step"] == min(found, key=lambda step: found[step])
    assert result["stopped_early"] and result["steps"] == result["step"] + 6 == max(found) < 40
    folders = sorted((tmp_path / "run").glob("step-*"))
    assert [folder.name for folder in folders] == [f"step-{n:06d}" for n in range(4, result["steps"] + 1, 4)]
    assert load_model(folders[0]).weights.keys() == load_model(tmp_path / "run").weights.keys()
    assert "validation, nats a chord: best" in (tmp_path / "run" / "loss.svg").read_text()


@pytest.mark.parametrize("stop_at", [1, 5, 8])
def test_a_stopped_run_resumes_to_the_same_bytes(songs: list[SongDocument], tmp_path: Path, stop_at: int) -> None:
    from etude.training.songs import train

    train(songs, songs, tmp_path / "whole", TINY)

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(songs, songs, tmp_path / "parts", TINY, report=stop)
    train(songs, songs, tmp_path / "parts", TINY, resume=True)
    for name in ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json", "README.md"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_killed_run_resumes_to_the_same_bytes(songs_file: Path, tmp_path: Path) -> None:
    """SIGKILL at several moments, from before the first step on; what comes out is what an unbroken run gives."""
    other = tmp_path / "valid.jsonl"
    other.write_text('{"group": "x", "chords": ["C", "F", "G", "C", "F", "G"]}\n')
    sizes = ["n_layer=1", "n_embd=16", "n_head=2", "batch_size=2", "block_size=32", "validate_every=20"]
    settings = [word for size in sizes for word in ("--set", size)]

    def command(folder: str, *more: str) -> list[str]:
        corpus = [str(songs_file), "--validation", str(other), "-o", str(tmp_path / folder)]
        return [sys.executable, "-m", "etude", "train", *corpus, *settings, *more]

    subprocess.run(command("whole", "--steps", "60"), check=True, capture_output=True)
    metrics = tmp_path / "parts" / "metrics.jsonl"
    begun: list[str] = []
    for lines in (1, 15, 40):
        process = subprocess.Popen(
            command("parts", *(["--resume"] if begun else ["--steps", "60"])), stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < lines):
            time.sleep(0.002)
        process.kill()
        process.wait()
        begun = ["yes"] if (tmp_path / "parts" / "recipe.json").exists() else []
    subprocess.run(command("parts", "--resume"), check=True, capture_output=True)
    for name in ("model.safetensors", "metrics.jsonl", "config.json", "README.md"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("stop_at", [1, 20, 24, 25, 26])
def test_a_run_in_minutes_resumes_wherever_it_stopped(songs: list[SongDocument], tmp_path: Path, stop_at: int) -> None:
    from etude.training.songs import train

    def stop(progress: object) -> None:
        if getattr(progress, "step", 0) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        train(songs, songs, tmp_path / "run", replace(TINY, minutes=0.05, validate_every=50), report=stop)
    steps = []
    recipe_so_far = saved_recipe(tmp_path / "run")
    assert isinstance(recipe_so_far, ChordRecipe)
    train(songs, songs, tmp_path / "run", recipe_so_far, resume=True, report=lambda p: steps.append(p.step))
    assert steps == list(range(stop_at + 1, saved_recipe(tmp_path / "run").steps + 1))


def test_two_threads_give_the_same_bytes_twice(tmp_path: Path, shared_chords: Path) -> None:
    """At real sizes, where gradients are summed by several threads."""
    from etude.corpus.songs import read_songs
    from etude.training.songs import train

    documents = read_songs(shared_chords / "valid.jsonl.gz")[:60]
    settings = ChordRecipe(n_layer=1, steps=4, batch_size=16)
    for name in ("a", "b"):
        train(documents, documents[:5], tmp_path / name, settings)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b"))
    assert a == b


def test_a_run_that_exists_is_not_overwritten_and_another_is_not_resumed(
    songs: list[SongDocument], tmp_path: Path
) -> None:
    from etude.training.checkpoint import CheckpointError
    from etude.training.songs import train

    with pytest.raises(CheckpointError, match="no checkpoint to resume"):
        train(songs, songs, tmp_path / "run", TINY, resume=True)
    train(songs, songs, tmp_path / "run", TINY)
    with pytest.raises(RecipeError, match="holds a run already"):
        train(songs, songs, tmp_path / "run", TINY)
    with pytest.raises(RecipeError, match="another value of n_layer"):
        train(songs, songs, tmp_path / "run", replace(TINY, n_layer=2), resume=True)
    for training, held_out in ((songs[:2], songs), (songs[::-1], songs), (songs, songs[:2])):
        with pytest.raises(CheckpointError, match="another corpus"):
            train(training, held_out, tmp_path / "run", TINY, resume=True)
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        train(songs, songs, tmp_path / "run", TINY, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    songs: list[SongDocument], tmp_path: Path
) -> None:
    from etude.training.checkpoint import load_checkpoint
    from etude.training.songs import train

    with pytest.raises(TrainingError, match="not finite"):
        train(songs, songs, tmp_path / "run", replace(TINY, learning_rate=1e30, steps=50))
    _, state = load_checkpoint(tmp_path / "run")
    assert state["step"] == 0


def test_a_budget_in_minutes_sets_the_steps_once(
    songs: list[SongDocument], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from etude.training.songs import train

    monkeypatch.setattr(runs, "_TIMED_SHARE", 1e9)  # so many steps are timed, however slow the machine is
    steps = []
    train(
        songs, songs, tmp_path / "run", replace(TINY, minutes=0.02, steps=10_000, validate_every=10_000),
        report=lambda p: steps.append(p.steps),
    )  # fmt: skip
    assert steps[:24] == [None] * 24
    assert steps[-1] is not None
    assert 25 < steps[-1] == len(steps) < 10_000
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["steps"] == len(steps)


def test_settings_by_name() -> None:
    changed = with_settings(ChordRecipe(), ["n_layer=2", "dropout=0.5", "weights=float32"])
    assert (changed.n_layer, changed.dropout, changed.weights) == (2, 0.5, "float32")
    for setting, message in [
        ("n_layers=2", "did you mean n_layer"), ("n_layer", "key=value"), ("n_layer=two", "takes a whole number"),
        ("dropout=1.5", "share"),
        ("steps=0", "at least 1"), ("block_size=4", "at least 16"), ("minutes=inf", "finite"),
        ("seed=9999999999999999999", "below"), ("learning_rate=-1", "negative"), ("weights=int8", "float32 or"),
    ]:  # fmt: skip
        with pytest.raises(RecipeError, match=message):
            with_settings(recipe("chords"), [setting])
    with pytest.raises(RecipeError, match="unknown recipe"):
        recipe("jazz")
