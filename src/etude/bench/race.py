"""The race: the reference run of the smallest GPT in every engine, each in a process of its own.

The run is the one of the `scalar` engine's file: 1,000 steps on one name each and twenty new names, from seed 42 on.
The engines get the same initial weights and the same names, and what they print can be compared digit by digit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any, cast

from etude.corpus.text import read_documents
from etude.engines.engine import is_installed, make_engine
from etude.engines.scalar import GPT, sample
from etude.errors import EtudeError
from etude.files import atomic_write
from etude.gpt.config import parameter_shapes
from etude.training.micro import TRAINERS, Order, begin, make_trainer
from etude.training.recipes import MicroRecipe

SAMPLES = 20
_MOMENT = 0.2  # seconds between reports


@dataclass(frozen=True, slots=True)
class Lap:
    """One engine's run. `seconds` are those of the training steps, `process_seconds` those of the whole process with
    imports, reading and sampling; `losses` are nats a token, step by step."""

    engine: str
    seconds: float
    process_seconds: float
    losses: tuple[float, ...]
    names: tuple[str, ...]

    @property
    def microseconds_per_step(self) -> float:
        return 1e6 * self.seconds / len(self.losses)

    def same_losses(self, other: Lap) -> bool:
        """Whether all losses are the other's, to the four decimals that the reference prints."""
        return [f"{loss:.4f}" for loss in self.losses] == [f"{loss:.4f}" for loss in other.losses]

    def to_dict(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "seconds": self.seconds,
            "microseconds_per_step": self.microseconds_per_step,
            "process_seconds": self.process_seconds,
            "losses": list(self.losses),
            "names": list(self.names),
        }


def installed() -> list[str]:
    """The engines that can race here, the slowest first."""
    return [name for name in reversed(TRAINERS) if is_installed(name)]


def race(
    corpus: Path, engines: Sequence[str], steps: int = 1000, report: Callable[[str, int, str], None] | None = None
) -> Iterator[Lap]:
    """Run one engine after the other; `report` hears (engine, steps done, a remark) while they run.

    Raises `EtudeError` where an engine's process fails, with its own last line.
    """
    read_documents([corpus])  # a fault of the corpus is told once, and before anything starts
    for engine in engines:
        began = time.perf_counter()
        # -P: a file of the current folder must not be taken for a module of Python's.
        command = [sys.executable, "-P", "-m", "etude.bench.race", engine, str(corpus), str(steps)]
        with (
            TemporaryFile("w+") as remarks,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=remarks, text=True) as process,
        ):
            assert process.stdout is not None
            result: dict[str, Any] = {}
            try:
                for line in process.stdout:
                    result = json.loads(line)
                    if report is not None and "done" in result:
                        report(engine, result["done"], result["remark"])
            except BaseException:
                process.kill()
                raise
            process.wait()
            remarks.seek(0)
            errors = remarks.read().strip().splitlines()
        if process.returncode or "names" not in result:
            raise EtudeError(f"the engine {engine} failed: {errors[-1] if errors else 'without a word'}")
        yield Lap(
            engine, result["seconds"], time.perf_counter() - began, tuple(result["losses"]), tuple(result["names"])
        )


def run(engine: str, corpus: Path, steps: int, report: Callable[[int, str], None]) -> dict[str, Any]:
    """The reference run in this process: seconds of the steps, losses and names."""
    recipe = MicroRecipe()
    beginning = begin(read_documents([corpus]), recipe)
    trainer = make_trainer(engine, beginning, recipe, lambda remark: report(0, remark))
    config, tokenizer = beginning.config, beginning.tokenizer
    order = Order([len(ids) for ids in beginning.ids], 1, recipe.seed).rows(0, steps)
    losses: list[float] = []
    seconds, count = 0.0, 1 if engine == "scalar" else 100
    while len(losses) < steps:
        began = time.perf_counter()
        losses += trainer.run(order[len(losses) : len(losses) + count], len(losses), steps).tolist()
        lap = time.perf_counter() - began
        seconds += lap
        report(len(losses), f"loss {losses[-1]:.4f}")
        count = max(1, int(count * _MOMENT / max(lap, 1e-6)))
    state = trainer.state()
    trained = {name: state[f"weights.{name}"] for name in parameter_shapes(config)}
    model = make_engine(engine, config, trained, lambda remark: report(steps, remark))
    sampled = SimpleNamespace(start=model.start, step=model.step, block_size=config.block_size)
    names = [tokenizer.decode(sample(cast("GPT", sampled), beginning.rng, tokenizer.bos_id)) for _ in range(SAMPLES)]
    return {"seconds": seconds, "losses": losses, "names": names}


def plot(laps: Sequence[Lap], path: Path) -> None:
    """Bars of the microseconds a step, on a logarithmic scale. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    slowest = max(lap.seconds for lap in laps)
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.6 * len(laps)), layout="constrained")
    bars = axes.barh([lap.engine for lap in laps], [lap.microseconds_per_step for lap in laps], color="#3465a4")
    words = [
        f" {duration(1e-6 * lap.microseconds_per_step)}"
        + (f", {slowest / lap.seconds:,.0f} times faster" if lap.seconds < slowest else "")
        for lap in laps
    ]
    axes.bar_label(bars, words)
    axes.set_xscale("log")
    axes.set_xlim(1, 60 * max(lap.microseconds_per_step for lap in laps))
    axes.invert_yaxis()
    axes.set_xlabel("microseconds a training step (logarithmic)")
    axes.set_title(f"The same {len(laps[0].losses):,} training steps of the smallest GPT in every engine", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    dateless = {"Date": None} if path.suffix == ".svg" else {"CreationDate": None} if path.suffix == ".pdf" else {}
    with mpl.rc_context({"svg.hashsalt": "etude", "svg.fonttype": "none"}), atomic_write(path) as file:
        figure.savefig(file, format=path.suffix[1:], metadata=dateless)
    plt.close(figure)


def duration(seconds: float) -> str:
    """A time with the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _main(engine: str, corpus: str, steps: str) -> None:
    """One lap, told line by line as JSON."""

    def report(done: int, remark: str) -> None:
        print(json.dumps({"done": done, "remark": remark}), flush=True)

    try:
        print(json.dumps(run(engine, Path(corpus), int(steps), report)), flush=True)
    except (EtudeError, OSError, MemoryError) as error:
        sys.exit(str(error) or "out of memory")


if __name__ == "__main__":
    _main(*sys.argv[1:])
