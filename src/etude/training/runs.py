"""What every run has, whatever it trains: a folder of recipe, metrics and checkpoint; progress; an ear for signals.

Runs whose steps are slow enough to be taken one by one share their loop too: `take_steps`.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar, cast

from numpy.typing import NDArray

from etude.corpus.lines import CorpusError
from etude.errors import EtudeError
from etude.files import NO_ROOM, atomic_directory, atomic_write
from etude.gpt.directory import WEIGHTS
from etude.gpt.tensors import is_finite

from .checkpoint import CHECKPOINT, Arrays, CheckpointError, load_checkpoint, load_state, save_checkpoint, saved_step
from .curves import LOSS_SVG, Curves
from .events import EventFile
from .ranks import ALONE, Ranks
from .recipes import RECIPE, RECIPES, ChordRecipe, Recipe, RecipeError, TextRecipe
from .samples import SAMPLES, samples_text

METRICS = "metrics.jsonl"
_LEFT = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")  # as `files` names what is half written
FIRST_CHECKPOINT_SECONDS = 1.0  # from the beginning to the first checkpoint with steps in it,
CHECKPOINT_SECONDS = 60.0  # from one to the next at most,
_CHECKPOINT_SHARE = 0.02  # and less where saving takes no larger share of the time than this
_UNFITTED_STEPS = 1_000_000  # stands for the steps of a run in minutes until they are known
_TIMED_STEPS = 20  # the first steps are slow (caches, allocator); these many after `_SKIPPED_STEPS` set the budget
_SKIPPED_STEPS = 5
_TIMED_SHARE = 0.25  # of a budget, after which fewer steps do


class TrainingError(EtudeError):
    """A run that cannot go on; the message says why and what is kept."""


class NotFiniteError(TrainingError):
    """A loss that is no number any more. The same steps would lead to it again."""


class RunResult(dict[str, Any]):
    """What came of a run, by the names that `etude.train` lists; a notebook shows its loss."""

    def __init__(self, found: Mapping[str, Any], directory: Path) -> None:
        super().__init__(found)
        self.directory = directory

    def _repr_html_(self) -> str:
        return (self.directory / LOSS_SVG).read_text(encoding="utf-8")


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
    sample: str | None = None
    remark: str | None = None
    peak_share: float | None = None
    """Of the operations that the GPUs can do, those that the model needs; None where that is unknown."""


Report = Callable[[Progress], None]
R = TypeVar("R", bound=Recipe)


def saved_recipe(directory: Path) -> Recipe:
    """The recipe of the run in a folder, with its number of steps as fitted. Raises `CheckpointError`."""
    if not (directory / RECIPE).exists():
        raise CheckpointError(f"{directory}: no run to resume; start it without --resume")
    begun = load_state(directory)["recipe"]
    try:
        return type(RECIPES[begun["name"]])(**begun)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{directory / CHECKPOINT}: holds no recipe ({error})") from error


class RunFolder(Generic[R]):
    """A run's folder, and the state that its checkpoint holds beside the arrays: a JSON-able dictionary.

    A new run is `create`d once all of it is ready; a resumed one has `arrays` to restore, after `go_on`. Of several
    processes one `writes`; the others read what it wrote and keep the same state.
    """

    def __init__(
        self, directory: Path, recipe: R, resume: bool, tensorboard: bool = False, writes: bool = True
    ) -> None:
        self.directory, self.writes = directory, writes
        self.arrays: Arrays = {}
        self._curves, self._sampled = Curves(), list[Mapping[str, Any]]()
        self._tensorboard, self._events = tensorboard, cast("EventFile | None", None)
        if resume:
            self.arrays, self.state = load_checkpoint(directory)
            begun = self.state["recipe"]
            changed = [key for key, value in asdict(recipe).items() if begun.get(key) != value]
            if changed:
                raise RecipeError(
                    f"{directory} was begun with another value of {', '.join(changed)}; resume without it"
                )
        elif (directory / RECIPE).exists() or any(directory.glob("step-*")):
            raise RecipeError(f"{directory} holds a run already: go on with --resume, or choose another folder")
        elif (directory / WEIGHTS).exists():
            raise RecipeError(f"{directory} holds a model already, which a run would replace; choose another folder")
        else:
            self.state = {"step": 0, "metrics_bytes": 0, "seconds": 0.0, "fitted": not recipe.minutes}
            if recipe.minutes:
                recipe = replace(recipe, steps=_UNFITTED_STEPS)
        self.recipe = recipe

    def create(self, arrays: Mapping[str, NDArray[Any]], corpus: str) -> None:
        """Write a new run's first checkpoint. `corpus` is the fingerprint of what it is trained and validated on."""
        self.state["corpus"] = corpus
        if self.writes:
            # A folder's metrics are this run's: a line is there once, whatever was stopped when.
            with atomic_write(self.directory / METRICS):
                pass
        self.save(arrays)
        self._take_in()
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
        if self.writes:
            for left in self.directory.iterdir():
                if _LEFT.fullmatch(left.name):  # when the run was killed
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._take_in()
        self.write_recipe()  # a run that was killed while its steps were set may have the old one

    def _take_in(self) -> None:
        """Read the metrics up to the checkpoint, for what is made of them."""
        if not self.writes:
            return
        path = self.directory / METRICS
        with open(path, "rb") as file:
            written = file.read(self.state["metrics_bytes"])
        try:
            lines = [json.loads(line) for line in written.splitlines()]
            for line in lines:
                self._curves.add(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged ({error}); start the run again in another folder") from error
        self._sampled = [line for line in lines if "samples" in line]
        if self._tensorboard:
            self._events = EventFile(self.directory, lines)

    def record(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Append to the metrics, after cutting off what a run that was killed wrote past its last checkpoint."""
        if not self.writes:
            return
        for line in lines:
            self._curves.add(line)
            if self._events:
                self._events.add(line)
        self._sampled += [line for line in lines if "samples" in line]
        with open(self.directory / METRICS, "r+b") as file:
            file.truncate(self.state["metrics_bytes"])
            file.seek(0, 2)
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            self.state["metrics_bytes"] = file.tell()

    def show(self) -> None:
        """Write what is made of the metrics: the picture of the loss, the samples, TensorBoard's events."""
        if not self.writes:
            return
        steps = self.state["step"]
        title = f"{self.recipe.name}, seed {self.recipe.seed}: {steps:,} step{'s' * (steps != 1)}"
        with atomic_write(self.directory / LOSS_SVG) as file:
            file.write(self._curves.svg(title).encode())
        if self._sampled:
            with atomic_write(self.directory / SAMPLES) as file:
                file.write(samples_text(self._sampled).encode())
        if self._events:
            self._events.flush()

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the checkpoint. Raises `TrainingError` for arrays that are not finite: the last good one is kept."""
        if not self.writes:
            return
        broken = next(
            (name for name, array in arrays.items() if array.dtype.kind == "f" and not is_finite(array)), None
        )
        if broken is not None:
            raise NotFiniteError(f"after step {self.state['step']:,} {broken} is not finite")
        with open(self.directory / METRICS, "rb") as file:
            os.fsync(file.fileno())  # the checkpoint says how long it is
        self.state["recipe"] = asdict(self.recipe)
        save_checkpoint(self.directory, arrays, self.state)

    def fit(self, steps: int) -> None:
        """Set the number of steps of a run in minutes, once; then the schedule is fixed. The next `save` holds it."""
        self.recipe = replace(self.recipe, steps=steps)
        self.state["fitted"] = True
        self.write_recipe()

    def write_recipe(self) -> None:
        if not self.writes:
            return
        with atomic_write(self.directory / RECIPE) as file:
            file.write((json.dumps(asdict(self.recipe), indent=2) + "\n").encode())


@contextmanager
def naming_checkpoint(directory: Path, resume: bool) -> Iterator[None]:
    """A run that cannot go on, as one line that also names what is kept, and says what to do.

    A full disk, a corpus that cannot be read, memory that is not there, a loss that is not finite.
    """
    try:
        yield
    except (OSError, TrainingError, CorpusError) as error:
        step, said = saved_step(directory), str(error)
        if isinstance(error, OSError):
            said = f"{error.filename or directory}: {error.strerror or error}"
            if step is None:
                raise TrainingError(f"{said}; the run has not begun") from error
        if step is None or (isinstance(error, CorpusError) and not resume):
            raise
        kept = f"{directory / CHECKPOINT} of step {step:,} is whole"
        if isinstance(error, NotFiniteError):
            raise TrainingError(
                f"{said}; {kept}; begin again in another folder with a smaller learning_rate"
            ) from error
        mend = "free some space" if isinstance(error, OSError) and error.errno in NO_ROOM else "mend that"
        raise TrainingError(f"{said}; {kept}: {mend} and go on with --resume") from error


@contextmanager
def signals(patient: bool = False) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and a polite kill into a question the loop asks between steps; a second one acts at once.

    Not on a `patient` process: to those that torchrun started, it hands on a Ctrl-C that the terminal sent them too.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked and not patient:
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
    """What a validation found: the document for the metrics, its nats a chord or a token, top-1 of chords, and of text
    the samples, {"texts", "verbatim"}, if there are to be any."""

    document: Mapping[str, Any]
    nats: float
    top1: float | None = None
    samples: Mapping[str, Any] | None = None


class Stepped(Protocol):
    """A run that `take_steps` takes step by step. Its folder has been created or gone on with."""

    @property
    def folder(self) -> RunFolder[ChordRecipe] | RunFolder[TextRecipe]: ...

    def step(self, step: int) -> float:
        """Take the optimiser step of this number, counted from 0; the loss before it, in nats a token."""

    def rate(self, step: int) -> float:
        """The learning rate of that step."""

    def validate(self) -> Validation:
        """Score the model as it is."""

    def keep(self, directory: Path | None = None) -> None:
        """Write the model as it is to a folder; without one, to the run's own, if that is to have the best model."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What a checkpoint must hold."""


def take_steps(run: Stepped, stopped: Callable[[], bool], report: Report, ranks: Ranks = ALONE) -> None:
    """Take all steps that are left: recorded, validated and saved, fitted to a budget in minutes, stoppable.

    In the state, "validation" is the document of the last validation, "best" that of the best so far with its "step",
    both None at first, and "worse" says how many came after the best. Several processes decide alike: whatever one is
    asked or one's clock says, all do.
    """
    folder, state = run.folder, run.folder.state
    state |= {"best": None, "validation": None, "worse": 0} | state
    saved_at, pause = time.monotonic(), min(FIRST_CHECKPOINT_SECONDS, CHECKPOINT_SECONDS)
    seconds: list[float] = []  # of each step
    while not is_over(folder):
        began = time.monotonic()
        loss = run.step(state["step"])
        state["step"] += 1
        step = state["step"]
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss of step {step:,} is not finite")
        seconds.append(time.monotonic() - began)
        state["seconds"] += seconds[-1]
        folder.record([{"step": step, "loss": round(loss, 4), "rate": float(f"{run.rate(step - 1):.4g}")}])
        if not state["fitted"] and ranks.any(_is_timed(seconds, state["seconds"], folder.recipe.minutes))[0]:
            timed = seconds[_SKIPPED_STEPS:] or seconds[-1:]
            _fit_to_budget(run, sum(timed) / len(timed), ranks)
            pause = 0.0  # once this step is validated and kept, all of it is saved
        recipe, recent = folder.recipe, seconds[-100:]
        speed = sum(recent) / len(recent)  # seconds a step
        left = speed * (recipe.steps - step) if state["fitted"] else 60 * recipe.minutes
        progress = Progress(step, recipe.steps if state["fitted"] else None, loss, 1 / speed, left)
        if step % recipe.validate_every == 0 or step == recipe.steps:
            progress = _validated(run, progress)
        if recipe.checkpoint_every and step % recipe.checkpoint_every == 0:
            directory = folder.directory / f"step-{step:06d}"
            if not ranks.of_first(directory.exists()):  # else a run that was killed after it wrote the same
                with atomic_directory(directory) if folder.writes else nullcontext(directory) as temporary:
                    run.keep(temporary)  # of a sharded model every process has to help
        report(progress)
        over = is_over(folder)
        stop, late = ranks.any(stopped(), time.monotonic() - saved_at > pause)
        if stop or late or over:
            began = time.monotonic()
            folder.save(run.arrays())
            saved_at = time.monotonic()
            pause = min(CHECKPOINT_SECONDS, (saved_at - began) / _CHECKPOINT_SHARE)
        if stop and not over:
            folder.show()
            ranks.wait()  # until what was asked to stop is saved: the first that leaves has the others ended
            raise Interrupted(step)


def is_over(folder: RunFolder[ChordRecipe] | RunFolder[TextRecipe]) -> bool:
    """Whether all steps are taken, or as many validations in a row as the recipe has patience for were worse."""
    state, recipe = folder.state, folder.recipe
    return bool(state["step"] >= recipe.steps or 0 < recipe.patience <= state["worse"])


def _validated(run: Stepped, progress: Progress) -> Progress:
    """Validate, and keep and record what was found."""
    folder, state, step = run.folder, run.folder.state, progress.step
    found = run.validate()
    if not math.isfinite(found.nats):
        raise NotFiniteError(f"the validation loss after step {step:,} is not finite")
    best, state["validation"] = state["best"], dict(found.document)
    if best is None or found.nats < state["best_nats"]:
        state |= {"best": dict(found.document) | {"step": step}, "best_nats": found.nats, "worse": 0}
        run.keep()
    else:
        state["worse"] += 1
    line: dict[str, Any] = {"step": step, "validation": found.document}
    remark = sample = None
    if found.samples is not None:
        line["samples"] = found.samples
        sample = next(iter(found.samples["texts"]), None)
    folder.record([line])
    folder.show()
    if is_over(folder) and step < folder.recipe.steps:
        remark = (
            f"stopped early, after step {step:,}: {state['worse']} validation{'s' * (state['worse'] > 1)} in a row "
            f"were no better than that of step {state['best']['step']:,}"
        )
    return replace(progress, validation=found.nats, top1=found.top1, sample=sample, remark=remark)


def _is_timed(seconds: Sequence[float], spent: float, minutes: float) -> bool:
    """Whether steps enough were timed, or so much of a budget is spent that those few must do."""
    return len(seconds) == _SKIPPED_STEPS + _TIMED_STEPS or (len(seconds) > 1 and spent > _TIMED_SHARE * 60 * minutes)


def _fit_to_budget(run: Stepped, step_seconds: float, ranks: Ranks) -> None:
    """Set the number of steps once, from the speed of a step and of a validation; then the schedule is fixed."""
    folder = run.folder
    began = time.monotonic()
    run.validate()
    validation_seconds = time.monotonic() - began
    left = folder.recipe.minutes * 60 - folder.state["seconds"] - 2 * validation_seconds
    more = int(ranks.of_first(left / (step_seconds + validation_seconds / folder.recipe.validate_every)))
    folder.fit(folder.state["step"] + max(1, more))
