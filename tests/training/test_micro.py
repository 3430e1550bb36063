"""Runs of the smallest GPT: the reference's order and optimiser, in every engine, stopped and resumed to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.engines.array import ArrayEngine
from etude.engines.engine import EngineError, is_installed
from etude.engines.scalar import initial_weights
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import load_model
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import TokenizerError
from etude.training import micro
from etude.training.checkpoint import CheckpointError, load_checkpoint
from etude.training.evaluation import score_text
from etude.training.micro import Order, Trainer, train
from etude.training.recipes import MicroRecipe, RecipeError, recipe, with_settings
from etude.training.runs import Interrupted, Progress, TrainingError, saved_recipe

NAMES = ["emma", "olivia", "ava", "isabella", "sophia", "mia", "zoë", "li", "charlotte", "amelia", "мария"]
TINY = MicroRecipe(n_head=2, n_embd=4, block_size=6, steps=30)
FILES = ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json", "README.md", "recipe.json")


def installed(name: str) -> str:
    if not is_installed(name):
        pytest.skip(f"what the engine {name} needs is not installed")
    return name


@pytest.fixture(params=micro.TRAINERS)
def engine(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


def make_trainer(engine: str, documents: Sequence[Sequence[int]], **settings: Any) -> Trainer:
    config = GPTConfig("micro", 7, 5, 2, 2, 4)
    drawn = initial_weights(random.Random(1), 7, 5, 2, 4, 0.3)
    options = {
        "batch_size": 3, "precision": "float64", "learning_rate": 0.02, "beta1": 0.85, "beta2": 0.99,
        "epsilon": 1e-8, "say": lambda message: None,
    } | settings  # fmt: skip
    weights = {name: np.array(rows) for name, rows in drawn.items()}
    return micro.trainer_class(engine)(config, weights, documents, **options)


DOCUMENTS = [[6, 0, 1, 2, 6], [6, 3, 6], [6, 4, 5, 0, 1, 2], [6, 2, 2, 6]]
ROWS = np.array([[0, 1, -1], [2, 3, 1], [1, -1, -1], [3, 0, 2]])


def test_trainers_of_all_engines_take_the_same_steps(engine: str) -> None:
    ours, scalar = make_trainer(engine, DOCUMENTS), make_trainer("scalar", DOCUMENTS)
    assert np.abs(ours.run(ROWS, 5, 20) - scalar.run(ROWS, 5, 20)).max() < 1e-11
    mine, theirs = ours.state(), scalar.state()
    names = list(parameter_shapes(GPTConfig("micro", 7, 5, 2, 2, 4)))
    assert set(mine) == set(theirs) == {f"{kind}.{name}" for kind in ("weights", "first", "second") for name in names}
    for name, array in mine.items():
        assert array.shape == theirs[name].shape
        assert np.abs(array - theirs[name]).max() < 1e-9, name


def test_a_trainer_restored_goes_on_to_the_bit_however_steps_are_cut(engine: str) -> None:
    whole, parts = make_trainer(engine, DOCUMENTS), make_trainer(engine, DOCUMENTS)
    losses = whole.run(ROWS, 0, 4)
    first = parts.run(ROWS[:1], 0, 4)
    state = parts.state()
    parts.run(ROWS, 1, 10)  # what was copied stays as it was
    again = make_trainer(engine, DOCUMENTS)
    again.restore(state)
    assert [*first, *again.run(ROWS[1:3], 1, 4), *again.run(ROWS[3:], 3, 4)] == losses.tolist()
    assert all((array == whole.state()[name]).all() for name, array in again.state().items())


def test_the_first_loss_is_the_models_and_the_gradient_its_slope(engine: str) -> None:
    trainer = make_trainer(engine, DOCUMENTS)
    before = trainer.state()
    config = GPTConfig("micro", 7, 5, 2, 2, 4)
    batch = [DOCUMENTS[0], DOCUMENTS[2]]

    def loss_of(weights: dict[str, Any]) -> float:
        value = score_text(batch, ArrayEngine(config, weights), config.block_size)["nats_per_token"]["value"]
        return float(value)

    weights = {name: before[f"weights.{name}"] for name in parameter_shapes(config)}
    loss = trainer.run(np.array([[0, 2, -1]]), 0, 10)[0]
    assert loss == pytest.approx(loss_of(weights), abs=1e-12)
    first = trainer.state()  # after one step Adam's first moment is 0.15 of the gradient
    for name, place in [("wte", (6, 1)), ("wpe", (2, 0)), ("lm_head", (0, 3)), ("h.0.attn.c_attn", (9, 2)),
                        ("h.1.attn.c_proj", (1, 1)), ("h.0.mlp.c_fc", (5, 0)), ("h.1.mlp.c_proj", (2, 7))]:  # fmt: skip
        slopes = []
        for step in (1e-5, -1e-5):
            moved = {key: array.copy() for key, array in weights.items()}
            moved[name][place] += step
            slopes.append(loss_of(moved))
        slope = (slopes[0] - slopes[1]) / 2e-5
        assert first[f"first.{name}"][place] == pytest.approx(0.15 * slope, abs=1e-8), name
        if abs(slope) > 1e-4:  # and the step itself is as long as the rate
            moved_by = first[f"weights.{name}"][place] - before[f"weights.{name}"][place]
            assert moved_by == pytest.approx(-0.02 * np.sign(slope), rel=1e-3)


def test_adams_formula(engine: str) -> None:
    trainer = make_trainer(engine, DOCUMENTS, batch_size=1)
    name = "lm_head"
    m, v, p = (trainer.state()[f"{kind}.{name}"] for kind in ("first", "second", "weights"))
    for step in range(3):
        trainer.run(np.array([[step]]), step, 5)
        state = trainer.state()
        gradient = (state[f"first.{name}"] - 0.85 * m) / 0.15
        m, v = 0.85 * m + 0.15 * gradient, 0.99 * v + 0.01 * gradient**2
        rate = 0.02 * (1 - step / 5)
        p = p - rate * (m / (1 - 0.85 ** (step + 1))) / (np.sqrt(v / (1 - 0.99 ** (step + 1))) + 1e-8)
        assert np.abs(state[f"weights.{name}"] - p).max() < 1e-9
        m, v, p = state[f"first.{name}"], state[f"second.{name}"], state[f"weights.{name}"]


@pytest.mark.parametrize("name", ["tensor", "compiled"])
def test_float32_is_near(name: str) -> None:
    narrow, wide = (make_trainer(installed(name), DOCUMENTS, precision=p) for p in ("float32", "float64"))
    assert np.abs(narrow.run(ROWS, 0, 9) - wide.run(ROWS, 0, 9)).max() < 1e-4
    assert {array.dtype for array in narrow.state().values()} == {np.dtype(np.float32)}


def test_one_document_a_step_keeps_their_order() -> None:
    assert Order([3, 1, 2], 1, 0).rows(2, 5).tolist() == [[2], [0], [1], [2], [0]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=120), st.integers(2, 40), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_epoch_takes_every_document_once(lengths: list[int], batch_size: int, epoch: int) -> None:
    order = Order(lengths, batch_size, seed=1)
    steps = -(-len(lengths) // batch_size)
    rows = order.rows(epoch * steps, steps)
    assert rows.shape == (steps, batch_size)
    flat = rows.ravel()
    assert sorted(flat[: len(lengths)]) == list(range(len(lengths)))
    assert (flat[len(lengths) :] == -1).all()
    cut = [*order.rows(epoch * steps + 1, steps), *Order(lengths, batch_size, seed=1).rows(epoch * steps, 1)]
    assert [row.tolist() for row in cut[:-2]] == rows[1:].tolist()
    assert cut[-1].tolist() == rows[0].tolist()


def test_batches_change_with_seed_and_epoch_and_pad_little() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 18, 4000)
    order = Order(lengths.tolist(), 32, 1)
    rows = order.rows(0, 125)
    assert rows.tolist() != order.rows(125, 125).tolist()
    assert rows.tolist() != Order(lengths.tolist(), 32, 2).rows(0, 125).tolist()
    groups = lengths[rows.reshape(-1, 16)]
    assert np.mean(groups.max(axis=1) - groups.min(axis=1)) < 1
    means = lengths[rows].mean(axis=1)  # no drift from short to long within an epoch
    assert abs(np.corrcoef(means, np.arange(125))[0, 1]) < 0.3


def test_a_run_makes_a_model_directory(tmp_path: Path, engine: str) -> None:
    seen: list[Progress] = []
    said: list[str] = []
    settings = replace(TINY, steps=250)
    result = train(NAMES, NAMES[:3], tmp_path / "run", settings, engine, False, seen.append, said.append)
    model = load_model(tmp_path / "run")
    assert isinstance(model.tokenizer, CharTokenizer)
    assert model.tokenizer.characters == "".join(sorted(set("".join(NAMES))))
    bos = model.tokenizer.bos_id  # which the vocabulary says, and no config.json of micro
    assert model.config == GPTConfig("micro", bos + 1, 6, 1, 2, 4, bos_token_id=bos, eos_token_id=bos)
    assert {array.dtype for array in model.weights.values()} == {np.dtype(np.float64)}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [100, 200, 250]
    assert lines[-1]["loss"] == pytest.approx(result["loss"], abs=1e-6)
    assert lines[0]["loss"] > lines[1]["loss"] > 0
    assert (result["engine"], result["steps"], result["documents"]) == (engine, 250, len(NAMES))
    documents = [model.tokenizer.document(text) for text in NAMES[:3]]
    scored = score_text(documents, ArrayEngine(model.config, model.weights), 6)
    assert result["validation"] == scored
    assert (scored["documents"], scored["tokens"]) == (3, 4 + 6 + 3 + 3)
    assert lines[-1]["rate"] == pytest.approx(settings.learning_rate / 250, rel=1e-3)
    assert f"training, nats a token: {lines[-1]['loss']:.3f}" in (tmp_path / "run" / "loss.svg").read_text()
    assert "11 documents" in model.card
    assert f"--engine {engine}" in model.card
    assert [progress.step for progress in seen][-1] == 250
    notes = [message for message in said if message.startswith("note: ")]
    assert notes == [
        "note: 2 of 11 documents are longer than the block of 6 characters; what is beyond is not trained on "
        "(--set block_size=...)"
    ]  # isabella and charlotte


def test_the_default_run_begins_as_the_reference(tmp_path: Path, engine: str, shared_names: Path) -> None:
    """The reference shuffles first and draws the weights after, from one stream; its first losses are known."""
    names = [line.strip() for line in shared_names.read_text().splitlines()]
    with pytest.raises(Interrupted):
        train(names, None, tmp_path / "run", MicroRecipe(), engine, False, stop_at(10))
    losses = load_checkpoint(tmp_path / "run")[1]["losses"]
    assert [round(loss, 4) for loss in (*losses[:3], losses[9])] == [3.3660, 3.4243, 3.1778, 3.2229]


def stop_at(step: int, number: int = signal.SIGTERM) -> Any:
    """A report that stops the run at the first sight of `step` or a later one."""

    def report(progress: Progress) -> None:
        if progress.step >= step:
            os.kill(os.getpid(), number)

    return report


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_stopped_run_resumes_to_the_same_bytes(tmp_path: Path, engine: str, batch_size: int) -> None:
    settings = replace(TINY, steps=130, batch_size=batch_size)
    train(NAMES, NAMES[:2], tmp_path / "whole", settings, engine)
    with pytest.raises(Interrupted) as stopped:
        train(NAMES, NAMES[:2], tmp_path / "parts", settings, engine, False, stop_at(2))
    assert 2 <= stopped.value.step < 130
    assert saved_recipe(tmp_path / "parts") == settings
    train(NAMES, NAMES[:2], tmp_path / "parts", settings, None, resume=True)
    for name in FILES:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    (tmp_path / "parts" / "model.safetensors").unlink()
    train(NAMES, NAMES[:2], tmp_path / "parts", settings, engine, resume=True)  # a run that is over makes its model
    assert load_model(tmp_path / "parts")


def test_how_steps_are_cut_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(TINY, steps=230, batch_size=4)
    engine = next(name for name in ("tensor", "scalar") if is_installed(name))
    for folder, moment in (("one", 0.0), ("many", 5.0)):
        monkeypatch.setattr(micro, "_MOMENT", moment)
        seen: list[Progress] = []
        train(NAMES, None, tmp_path / folder, settings, engine, report=seen.append)
        assert len(seen) == 230 if folder == "one" else len(seen) < 10
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "many" / name).read_bytes(), name


def written(path: Path) -> int:
    """When a file was written, 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    code = (
        "import sys; from etude.training import micro; micro.CHECKPOINT_SECONDS = micro._MOMENT = 0.01; import etude;"
        "etude.train(sys.argv[1], sys.argv[2], 'micro', engine='scalar', steps=150, n_embd=4, block_size=4,"
        " resume=len(sys.argv) > 3)"
    )

    def command(folder: str, *more: str) -> list[str]:
        return [sys.executable, "-c", code, str(tmp_path / "names.txt"), str(tmp_path / folder), *more]

    subprocess.run(command("whole"), check=True)
    checkpoint, begun = tmp_path / "parts" / "checkpoint.safetensors", tmp_path / "parts" / "recipe.json"
    for saves in (1, 3, 6):  # killed after so many checkpoints, the first time perhaps before there is a run
        process = subprocess.Popen(command("parts", *(["--resume"] if begun.exists() else [])))
        seen = {written(checkpoint)}
        while process.poll() is None and len(seen) <= saves:
            seen.add(written(checkpoint))
        process.kill()
        process.wait()
    subprocess.run(command("parts", "--resume"), check=True)
    for name in FILES:
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_run_in_minutes_sets_its_steps_once_and_resumes(tmp_path: Path) -> None:
    settings = replace(TINY, minutes=0.01, steps=999_999)
    for stop in (1, 3, 10):  # before and after its steps are set
        seen: list[Progress] = []
        folder = tmp_path / str(stop)
        with pytest.raises(Interrupted):
            train(NAMES, None, folder, settings, "scalar", False, stop_at(stop))
        so_far = saved_recipe(folder)
        assert isinstance(so_far, MicroRecipe)
        result = train(NAMES, None, folder, so_far, "scalar", True, seen.append)
        assert seen[-1].steps == seen[-1].step == result["steps"] < 999_999
        assert json.loads((folder / "recipe.json").read_text())["steps"] == result["steps"]
        fitted = [progress.steps for progress in seen if progress.steps is not None]
        assert set(fitted) == {result["steps"]}


def test_what_a_run_is_resumed_with_must_be_what_it_was_begun_with(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match="no run to resume"):
        saved_recipe(run)
    train(NAMES, None, run, TINY, "scalar")
    with pytest.raises(RecipeError, match="holds a run already"):
        train(NAMES, None, run, TINY, "scalar")
    with pytest.raises(RecipeError, match="another value of n_layer"):
        train(NAMES, None, run, replace(TINY, n_layer=2), "scalar", True)
    with pytest.raises(RecipeError, match="begun in the engine scalar"):
        train(NAMES, None, run, TINY, "tensor", True)
    for documents, validation in ((NAMES[::-1], None), (NAMES[:-1], None), (NAMES, NAMES[:1])):
        with pytest.raises(CheckpointError, match="another corpus"):
            train(documents, validation, run, TINY, None, True)
    (run / "checkpoint.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes()[:500])
    with pytest.raises(CheckpointError, match="damaged"):
        train(NAMES, None, run, TINY, None, True)


@pytest.mark.parametrize("rate", [1e100, 1e200])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    tmp_path: Path, engine: str, rate: float
) -> None:
    with pytest.raises(TrainingError, match="not finite"), np.errstate(all="ignore"):
        train(NAMES, None, tmp_path / "run", replace(TINY, learning_rate=rate, steps=50), engine)
    assert load_checkpoint(tmp_path / "run")[1]["step"] == 0
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_characters_that_only_validation_has_stop_a_run_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"'x' \(character 3 of 'maxim'\)"):
        train(NAMES, ["maxim"], tmp_path / "run", TINY, "scalar")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "documents",
    [["a"], ["emma"], ["a" * 20, "b" * 3], ["李" * 3000], ["мария", "李雷", "עברית", "🙂"]],
    ids=["one character", "one line", "longer than the block", "very long", "many scripts"],
)
@pytest.mark.parametrize("batch_size", [1, 16])
def test_odd_corpora_train(tmp_path: Path, engine: str, documents: list[str], batch_size: int) -> None:
    settings = replace(TINY, steps=12, batch_size=batch_size)
    result = train(documents, documents, tmp_path / "run", settings, engine)
    assert np.isfinite(result["loss"])
    assert result["validation"]["tokens"] == sum(map(len, documents)) + len(documents)
    model = load_model(tmp_path / "run")
    assert model.config.vocab_size == len(set("".join(documents))) + 1


def test_what_an_engine_cannot_do_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine, message in [("array", "does not train; these do: compiled, tensor, scalar"), ("abacus", "unknown")]:
        with pytest.raises(EngineError, match=message):
            train(NAMES, None, tmp_path / "run", TINY, engine)
    with pytest.raises(RecipeError, match="scalar computes in float64"):
        train(NAMES, None, tmp_path / "run", replace(TINY, precision="float32"), "scalar")
    for module in ("numba", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=r"pip install 'etude\[fast\]'"):
        train(NAMES, None, tmp_path / "run", TINY, "compiled")
    said: list[str] = []
    train(NAMES, None, tmp_path / "run", TINY, say=said.append)
    assert "engine: scalar" in said


def test_settings_of_the_micro_recipe() -> None:
    assert with_settings(MicroRecipe(), ["n_layer=2", "precision=float32"]) == MicroRecipe(
        n_layer=2, precision="float32"
    )
    for setting, message in [
        ("block_sise=2", "did you mean block_size"), ("dropout=1", "known: n_layer"), ("beta1=1", "below 1"),
        ("precision=float16", "float64 or float32"), ("block_size=1", "at least 2"), ("batch_size=0", "at least 1"),
        ("learning_rate=nan", "negative"), ("learning_rate=inf", "finite"), ("epsilon=0", "above 0"),
        ("steps=99999999999999999999", "below"),
    ]:  # fmt: skip
        with pytest.raises(RecipeError, match=message):
            with_settings(recipe("micro"), [setting])
