"""What every run has, whatever it trains: a folder of recipe, metrics and checkpoint; progress; an ear for signals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.files import atomic_write

from .checkpoint import CHECKPOINT, Arrays, CheckpointError, load_checkpoint, save_checkpoint
from .recipes import RECIPES, Recipe, RecipeError

METRICS, RECIPE = "metrics.jsonl", "recipe.json"
CHECKPOINT_SECONDS = 60.0
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
    """What a run tells after a step or a few. Losses in nats a token; `validation` in nats a chord, where there was
    one; `steps` is None while a run in minutes does not know them yet."""

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
