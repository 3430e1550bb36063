"""What every run has, whatever it trains: a folder of recipe, metrics and checkpoint; progress; an ear for signals.

Runs whose steps are slow enough to be taken one by one share their loop too: `take_steps`.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.files import atomic_write

from .checkpoint import CHECKPOINT, Arrays, CheckpointError, load_checkpoint, save_checkpoint
from .recipes import RECIPES, ChordRecipe, Recipe, RecipeError, TextRecipe

METRICS, RECIPE = "metrics.jsonl", "recipe.json"
CHECKPOINT_SECONDS = 60.0
_UNFITTED_STEPS = 1_000_000  # stands for the steps of a run in minutes until they are known
_TIMED_STEPS = 20  # the first steps are slow (caches, allocator); these many after `_SKIPPED_STEPS` set the budget
_SKIPPED_STEPS = 5


class TrainingError(EtudeError):
    """A run that cannot go on; the message says why and what is kept."""


class Interrupted(EtudeError):  # noqa: N818 - not a fault of the run
    """The user stopped the run; its checkpoint is written."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"stopped after step {step:,}; everything is saved, go on with --resume")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run tells after a step or a few. Losses in nats a token; `validation` in nats a chord or a token, where
    there was one; `steps` is None while a run in minutes does not know them yet."""

    step: int
    steps: int | None
    loss: float
    steps_per_second: float
    seconds_left: float
    validation: float | None = None
    top1: float | None = None


Report = Callable[[Progress], None]
R = TypeVar("R", bound=Recipe)


def saved_recipe(directory: Path) -> Recipe:
    """The recipe of the run in a folder, with its number of steps as fitted. Raises `CheckpointError`."""
    if not (directory / RECIPE).exists():
        raise CheckpointError(f"{directory}: no run to resume; start it without --resume")
    _, state = load_checkpoint(directory)
    begun = state["recipe"]
    try:
        return type(RECIPES[begun["name"]])(**begun)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{directory / CHECKPOINT}: holds no recipe ({error})") from error


class RunFolder(Generic[R]):
    """A run's folder, and the state that its checkpoint holds beside the arrays: a JSON-able dictionary.

    A new run is `create`d once all of it is ready; a resumed one has `arrays` to restore, after `go_on`.
    """

    def __init__(self, directory: Path, recipe: R, resume: bool) -> None:
        self.directory = directory
        self.arrays: Arrays = {}
        if resume:
            self.arrays, self.state = load_checkpoint(directory)
            begun = self.state["recipe"]
            changed = [key for key, value in asdict(recipe).items() if begun.get(key) != value]
            if changed:
                raise RecipeError(
                    f"{directory} was begun with another value of {', '.join(changed)}; resume without it"
                )
        elif (directory / RECIPE).exists():
            raise RecipeError(f"{directory} holds a run already: go on with --resume, or choose another folder")
        else:
            self.state = {"step": 0, "metrics_bytes": 0, "seconds": 0.0, "fitted": not recipe.minutes}
            if recipe.minutes:
                recipe = replace(recipe, steps=_UNFITTED_STEPS)
        self.recipe = recipe

    def create(self, arrays: Mapping[str, NDArray[Any]], corpus: str) -> None:
        """Write a new run's first checkpoint. `corpus` is the fingerprint of what it is trained and validated on."""
        self.state["corpus"] = corpus
        # A folder's metrics are this run's: a line is there once, whatever was stopped when.
        with atomic_write(self.directory / METRICS):
            pass
        self.save(arrays)
        self.write_recipe()  # last: from here on there is a run to resume

    def go_on(self, corpus: str) -> None:
        """Begin again with a resumed run. Raises `CheckpointError` unless the corpus is what it was begun with."""
        if self.state["corpus"] != corpus:
            raise CheckpointError(
                f"{self.directory}: was begun on another corpus or validated on another; name the same files, "
                "and --validation if it was given"
            )
        try:
            written = os.path.getsize(self.directory / METRICS)
        except OSError as error:
            raise CheckpointError(f"{self.directory / METRICS}: {error.strerror}; the run cannot go on") from error
        if written < self.state["metrics_bytes"]:
            raise CheckpointError(f"{self.directory / METRICS}: shorter than when the checkpoint was written")
        self.write_recipe()  # a run that was killed while its steps were set may have the old one

    def record(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append to the metrics, after cutting off what a run that was killed wrote past its last checkpoint."""
        with open(self.directory / METRICS, "r+b") as file:
            file.truncate(self.state["metrics_bytes"])
            file.seek(0, 2)
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            self.state["metrics_bytes"] = file.tell()

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the checkpoint."""
        with open(self.directory / METRICS, "rb") as file:
            os.fsync(file.fileno())  # the checkpoint says how long it is
        self.state["recipe"] = asdict(self.recipe)
        save_checkpoint(self.directory, arrays, self.state)

    def fit(self, steps: int, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the number of steps of a run in minutes, once; then the schedule is fixed."""
        self.recipe = replace(self.recipe, steps=steps)
        self.state["fitted"] = True
        self.save(arrays)
        self.write_recipe()

    def write_recipe(self) -> None:
        with atomic_write(self.directory / RECIPE) as file:
            file.write((json.dumps(asdict(self.recipe), indent=2) + "\n").encode())


@contextmanager
def signals() -> Iterator[Callable[[], bool]]:
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


@contextmanager
def enough_memory() -> Iterator[None]:
    """An allocation that fails in NumPy or PyTorch, as one clear line."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "alloc" not in str(error):
            raise
        raise TrainingError("not enough memory for a model or a batch of this size") from error


def keep_freed_memory() -> None:
    """Ask glibc to reuse large blocks instead of returning them to the system between steps.

    Every step frees and takes the same hundreds of megabytes; faulting the pages in again cost a third of its time.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation found: the document for the metrics, its nats a chord or a token, and top-1 of chords."""

    document: Mapping[str, Any]
    nats: float
    top1: float | None = None


class Stepped(Protocol):
    """A run that `take_steps` takes step by step. Its folder has been created or gone on with."""

    @property
    def folder(self) -> RunFolder[ChordRecipe] | RunFolder[TextRecipe]: ...

    def step(self, step: int) -> float:
        """Take the optimiser step of this number, counted from 0; the loss before it, in nats a token."""

    def validate(self) -> Validation:
        """Score the model as it is."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What a checkpoint must hold."""


def take_steps(run: Stepped, stopped: Callable[[], bool], report: Report) -> None:
    """Take all steps that are left: recorded, validated and saved, fitted to a budget in minutes, stoppable."""
    folder, state = run.folder, run.folder.state
    saved_at = time.monotonic()
    seconds: list[float] = []  # of each step
    while state["step"] < folder.recipe.steps:
        began = time.monotonic()
        loss = run.step(state["step"])
        state["step"] += 1
        step = state["step"]
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of step {step:,} is not finite; the last checkpoint in {folder.directory} is kept: "
                "try a smaller learning_rate"
            )
        seconds.append(time.monotonic() - began)
        state["seconds"] += seconds[-1]
        folder.record([{"step": step, "loss": round(loss, 4)}])
        if not state["fitted"] and len(seconds) == _SKIPPED_STEPS + _TIMED_STEPS:
            _fit_to_budget(run, sum(seconds[_SKIPPED_STEPS:]) / _TIMED_STEPS)
        recipe, recent = folder.recipe, seconds[-100:]
        speed = sum(recent) / len(recent)  # seconds a step
        left = speed * (recipe.steps - step) if state["fitted"] else 60 * recipe.minutes
        progress = Progress(step, recipe.steps if state["fitted"] else None, loss, 1 / speed, left)
        if step % recipe.validate_every == 0 or step == recipe.steps:
            found = run.validate()
            progress = replace(progress, validation=found.nats, top1=found.top1)
            folder.record([{"step": step, "validation": found.document}])
        report(progress)
        if stopped() or step == recipe.steps or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            folder.save(run.arrays())
            saved_at = time.monotonic()
        if stopped() and step < recipe.steps:
            raise Interrupted(step)


def _fit_to_budget(run: Stepped, step_seconds: float) -> None:
    """Set the number of steps once, from the speed of a step and of a validation; then the schedule is fixed."""
    folder = run.folder
    began = time.monotonic()
    run.validate()
    validation_seconds = time.monotonic() - began
    left = folder.recipe.minutes * 60 - folder.state["seconds"] - 2 * validation_seconds
    more = int(left / (step_seconds + validation_seconds / folder.recipe.validate_every))
    folder.fit(folder.state["step"] + max(1, more), run.arrays())
