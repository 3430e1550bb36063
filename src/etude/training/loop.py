"""The training loop: corpus to model directory, stoppable at any moment and resumable to the bit."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from etude.corpus.progressions import read_progressions
from etude.corpus.songs import SongDocument
from etude.engines.tensor import GPT
from etude.errors import EtudeError
from etude.files import atomic_write
from etude.gpt.config import GPTConfig
from etude.gpt.directory import NGRAMS, save_model
from etude.tokens.chords import ChordTokenizer

from . import evaluation
from .batches import IGNORE, Batch, SongBatches, collate
from .card import model_card
from .checkpoint import CheckpointError, load_checkpoint, restore, save_checkpoint
from .optimizers import Muon
from .recipes import Recipe, RecipeError

METRICS, RECIPE = "metrics.jsonl", "recipe.json"
CHECKPOINT_SECONDS = 60.0
_TIMED_STEPS = 20  # the first steps are slow (caches, allocator); these many after `_SKIPPED_STEPS` set the budget
_SKIPPED_STEPS = 5
_UNFITTED_STEPS = 1_000_000  # stands for the steps of a run in minutes until they are known


class TrainingError(EtudeError):
    """A run that cannot go on; the message says why and what is kept."""


class Interrupted(EtudeError):  # noqa: N818 - not a fault of the run
    """The user stopped the run; its checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"stopped after step {step:,}; everything is saved, go on with --resume")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run tells after every step. Losses in nats a token; `validation` in nats a chord, where there was one;
    `steps` is None while a run in minutes does not know them yet."""

    step: int
    steps: int | None
    loss: float
    steps_per_second: float
    seconds_left: float
    validation: float | None = None
    top1: float | None = None


Report = Callable[[Progress], None]


def train(
    documents: Sequence[SongDocument],
    validation: Sequence[SongDocument],
    directory: Path,
    recipe: Recipe,
    resume: bool = False,
    report: Report = lambda progress: None,
) -> dict[str, Any]:
    """Train on `documents`, keep the model that is best on `validation`, return its validation document.

    Raises `TrainingError`, `CheckpointError`, `RecipeError`, or `Interrupted` after a signal, with the state saved.
    To resume, `recipe` must be the one that the run was begun with (see `saved_recipe`).
    """
    with _signals() as stopped:
        try:
            return _Run(documents, validation, directory, recipe, resume).go(stopped, report)
        except RuntimeError as error:
            if "alloc" not in str(error):
                raise
            raise TrainingError("not enough memory for a model or a batch of this size") from error


def saved_recipe(directory: Path) -> Recipe:
    """The recipe of the run in a folder, with its number of steps as fitted. Raises `CheckpointError`."""
    try:
        return Recipe(**json.loads((directory / RECIPE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"{directory}: no run to resume; start it without --resume") from None
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"{directory / RECIPE}: not a recipe ({error})") from error


class _Run:
    """Everything that changes during a run, and how it is saved."""

    def __init__(
        self,
        documents: Sequence[SongDocument],
        validation: Sequence[SongDocument],
        directory: Path,
        recipe: Recipe,
        resume: bool,
    ) -> None:
        _keep_freed_memory()
        self.directory = directory
        self.validation = validation
        if resume:
            tensors, self.state = load_checkpoint(directory)
            begun = self.state["recipe"]
            changed = [key for key, value in asdict(recipe).items() if begun.get(key) != value]
            if changed:
                raise RecipeError(
                    f"{directory} was begun with another value of {', '.join(changed)}; resume without it"
                )
        elif (directory / RECIPE).exists():
            raise RecipeError(f"{directory} holds a run already: go on with --resume, or choose another folder")
        elif recipe.minutes:
            recipe = replace(recipe, steps=_UNFITTED_STEPS)
        self.recipe = recipe
        progressions = read_progressions() if recipe.progressions else []
        self.sources = [*documents, *progressions]
        shown = [*documents, *progressions * recipe.progressions]
        self.tokenizer = ChordTokenizer.train((d.changes for d in shown), recipe.min_count)
        self.batches = SongBatches(shown, self.tokenizer, recipe)
        torch.manual_seed(recipe.seed)
        config = GPTConfig(
            "modern", self.tokenizer.vocab_size, recipe.block_size, recipe.n_layer, recipe.n_head, recipe.n_embd
        )
        self.model = GPT(config, self.tokenizer.features(), recipe.dropout)
        matrices = self.model.matrices()
        muon_ids = {id(matrix) for matrix in matrices}
        self.muon = Muon(matrices, recipe.matrix_weight_decay)
        self.adam = torch.optim.AdamW(
            [p for p in self.model.parameters() if id(p) not in muon_ids],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        for parameter in self.adam.param_groups[0]["params"]:  # made here, so that a checkpoint can fill them
            self.adam.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]
        corpora = [[document.changes for document in side] for side in (documents, validation)]
        fingerprint = hashlib.sha256(repr(corpora).encode()).hexdigest()
        if resume:
            if self.state["corpus"] != fingerprint:
                raise CheckpointError(
                    f"{directory}: was begun on another corpus or validated on another; name the same files, "
                    "and --validation if it was given"
                )
            restore(self._tensors(), tensors, directory)
            torch.set_rng_state(tensors["random"])
            if (directory / METRICS).stat().st_size < self.state["metrics_bytes"]:
                raise CheckpointError(f"{directory / METRICS}: shorter than when the checkpoint was written")
        else:
            directory.mkdir(parents=True, exist_ok=True)
            self.state = {"step": 0, "best": None, "metrics_bytes": 0, "corpus": fingerprint, "seconds": 0.0}
            self.state["fitted"] = not recipe.minutes
            evaluation.fit_ngrams(documents, self.tokenizer).save(directory / NGRAMS)
            # A folder's metrics are this run's: a line is there once, whatever was stopped when.
            with atomic_write(directory / METRICS):
                pass
            self._save()
            self._write_recipe()  # last: from here on there is a run to resume

    def go(self, stopped: Callable[[], bool], report: Report) -> dict[str, Any]:
        saved_at = time.monotonic()
        speeds: list[float] = []
        while self.state["step"] < self.recipe.steps:
            began = time.monotonic()
            loss = self._step(self.batches.batch(self.state["step"]))
            self.state["step"] += 1
            step = self.state["step"]
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss of step {step:,} is not finite; the last checkpoint in {self.directory} is kept: "
                    "try a smaller learning_rate or matrix_learning_rate"
                )
            speeds.append(time.monotonic() - began)
            self.state["seconds"] += speeds[-1]
            if not self.state["fitted"] and len(speeds) == _SKIPPED_STEPS + _TIMED_STEPS:
                self._fit_to_budget(float(np.mean(speeds[_SKIPPED_STEPS:])))
            speed = float(np.mean(speeds[-100:]))  # seconds a step
            left = speed * (self.recipe.steps - step) if self.state["fitted"] else 60 * self.recipe.minutes
            steps = self.recipe.steps if self.state["fitted"] else None
            progress = Progress(step, steps, loss, 1 / speed, left)
            self._record({"step": step, "loss": round(loss, 4)})
            if step % self.recipe.validate_every == 0 or step == self.recipe.steps:
                document = self._validate()
                progress = replace(
                    progress, validation=document["nats_per_chord"]["value"], top1=document["top1"]["value"]
                )
                self._record({"step": step, "validation": document})
            report(progress)
            if stopped() or step == self.recipe.steps or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                self._save()
                saved_at = time.monotonic()
            if stopped() and step < self.recipe.steps:
                raise Interrupted(step)
        best: dict[str, Any] = self.state["best"]
        return best

    def _step(self, batch: Batch) -> float:
        """One optimiser step; returns the loss in nats a token."""
        recipe, step = self.recipe, self.state["step"]
        self.model.train()
        # bfloat16 products: forward and backward took 254 ms instead of 313 (docs/log.md).
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.model(*map(torch.from_numpy, (batch.ids, batch.found, batch.lengths)))  # [b, t, V]
        targets = torch.from_numpy(batch.targets).flatten()  # [b t]
        total = F.cross_entropy(logits.float().flatten(0, 1), targets, ignore_index=IGNORE, reduction="sum")
        loss = total / max(1, int((batch.targets != IGNORE).sum()))
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        rate = min(1.0, (step + 1) / max(1, recipe.warmup)) * (1 - step / recipe.steps)
        for group in self.adam.param_groups:
            group["lr"] = recipe.learning_rate * rate
        self.adam.step()
        self.muon.step(recipe.matrix_learning_rate * rate)
        self.adam.zero_grad()
        self.muon.zero_grad()
        # The average forgets its random beginning first and smooths later.
        decay = min(recipe.averaging, (step + 1) / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - decay)
        return loss.item()

    def _fit_to_budget(self, step_seconds: float) -> None:
        """Set the number of steps once, from the speed of a step and of a validation; then the schedule is fixed."""
        began = time.monotonic()
        self._validate()
        validation_seconds = time.monotonic() - began
        left = self.recipe.minutes * 60 - self.state["seconds"] - 2 * validation_seconds
        more = int(left / (step_seconds + validation_seconds / self.recipe.validate_every))
        self.recipe = replace(self.recipe, steps=self.state["step"] + max(1, more))
        self.state["fitted"] = True
        self._write_recipe()
        self._save()

    def _validate(self) -> dict[str, Any]:
        """Score the averaged weights on the validation songs; keep the model if it is the best so far."""
        with self._averaged():
            scores = evaluation.score(self.validation, self.tokenizer, self._predict)
            document = evaluation.summarize(scores)
            best = self.state["best"]
            if best is None or document["nats_per_chord"]["value"] < best["nats_per_chord"]["value"]:
                self.state["best"] = document | {"step": self.state["step"]}
                card = model_card(self.recipe, self.sources, self.state["best"])
                save_model(
                    self.directory, self.model.config, self.model.export(), self.tokenizer, card, self.recipe.weights
                )
        return document

    @torch.no_grad()
    def _predict(self, ids: evaluation.Ints, said: NDArray[np.bool_]) -> evaluation.Floats:
        self.model.eval()
        windows = evaluation.windows(len(ids) - 1, self.model.config.block_size)
        parts = []
        for start, scored, end in windows:
            batch = collate([(ids[start:end], ids[start + 1 : end + 1])], self.tokenizer.song_id, end - start)
            logits = self.model(*map(torch.from_numpy, (batch.ids, batch.found, batch.lengths)))[0]  # [t, V]
            parts.append(logits[scored - start :, : self.tokenizer.n_chords].double().numpy())
        return np.concatenate(parts)[1:]

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the averaged weights, for a while."""
        own = [parameter.detach().clone() for parameter in self.model.parameters()]
        with torch.no_grad():
            for parameter, average in zip(self.model.parameters(), self.average, strict=True):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, kept in zip(self.model.parameters(), own, strict=True):
                    parameter.copy_(kept)

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, but the random state."""
        tensors: dict[str, Tensor] = {}
        for (name, parameter), average in zip(self.model.named_parameters(), self.average, strict=True):
            tensors[f"model.{name}"], tensors[f"average.{name}"] = parameter, average
            tensors |= {f"adam.{key}.{name}": tensor for key, tensor in self.adam.state.get(parameter, {}).items()}
        return tensors | {f"muon.{i}": buffer for i, buffer in enumerate(self.muon.buffers)}

    def _save(self) -> None:
        with open(self.directory / METRICS, "rb") as file:
            os.fsync(file.fileno())  # the checkpoint says how long it is
        self.state["recipe"] = asdict(self.recipe)
        save_checkpoint(self.directory, self._tensors() | {"random": torch.get_rng_state()}, self.state)

    def _write_recipe(self) -> None:
        with atomic_write(self.directory / RECIPE) as file:
            file.write((json.dumps(asdict(self.recipe), indent=2) + "\n").encode())

    def _record(self, line: dict[str, Any]) -> None:
        """Append to the metrics, after cutting off what a run that was killed wrote past its last checkpoint."""
        with open(self.directory / METRICS, "r+b") as file:
            file.truncate(self.state["metrics_bytes"])
            file.seek(0, 2)
            file.write((json.dumps(line) + "\n").encode())
            self.state["metrics_bytes"] = file.tell()


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and a polite kill into a question the loop asks between steps; a second one acts at once."""
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    previous = {}
    with suppress(ValueError):  # not in the main thread: the caller's signals stay the caller's
        previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _keep_freed_memory() -> None:
    """Ask glibc to reuse large blocks instead of returning them to the system between steps.

    Every step frees and takes the same hundreds of megabytes; faulting the pages in again cost a third of its time.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
