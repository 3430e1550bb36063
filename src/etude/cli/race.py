"""`etude race`: the same training run in every engine, side by side."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from etude.bench.machine import corpus_file, machine
from etude.bench.race import Lap, duration, installed, plot, race
from etude.engines.engine import check_engine
from etude.errors import EtudeError
from etude.training.micro import TRAINERS

from .options import JsonOption, print_json, say

_FORMATS = (".svg", ".png", ".pdf")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("race")
    def race_command(
        corpus: Annotated[
            Path | None,
            typer.Argument(help="A text file, a document a line.", show_default="names.txt in this folder"),
        ] = None,
        engine: Annotated[
            list[str] | None,
            typer.Option(
                help=f"One of {', '.join(TRAINERS)}; repeatable.", show_default="all that are installed, slowest first"
            ),
        ] = None,
        steps: Annotated[int, typer.Option(help="Training steps.", min=1)] = 1000,
        plot_file: Annotated[
            Path | None, typer.Option("--plot", help=f"Bars on a logarithmic scale: {', '.join(_FORMATS)}.")
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Train the smallest GPT in every engine: how long it takes, and whether they agree to the digit.

        Example: etude race names.txt --plot race.svg
        """
        engines = list(dict.fromkeys(engine or installed()))
        for name in engines:
            if name not in TRAINERS:
                raise typer.BadParameter(f"no engine {name!r} races; these do: {', '.join(TRAINERS)}")
            check_engine(name)
        if plot_file is not None:
            if plot_file.suffix not in _FORMATS:
                raise typer.BadParameter(f"--plot writes {', '.join(_FORMATS)}, not {plot_file.name!r}")
            if not plot_file.absolute().parent.is_dir():
                raise EtudeError(f"{plot_file}: there is no such folder to write it to")
            if find_spec("matplotlib") is None:
                raise EtudeError("--plot needs matplotlib: pip install 'etude[train]'")
        path = corpus_file(corpus)
        if missing := [name for name in TRAINERS if engine is None and name not in engines]:
            say(f"left out, since not installed: {', '.join(missing)} (pip install 'etude[fast,train]')")
        laps: list[Lap] = []
        with _Progress(steps) as report:
            laps.extend(race(path, engines, steps, report))
        if as_json:
            print_json({"engines": [lap.to_dict() for lap in laps], "steps": steps, "machine": machine()})
        else:
            _print_table(laps)
        if plot_file is not None:
            plot(laps, plot_file)
            say(f"wrote {plot_file}")


def _print_table(laps: list[Lap]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    first = laps[0]
    table = Table(box=SIMPLE_HEAD, title=f"{len(first.losses):,} steps and {len(first.names)} names")
    table.add_column("engine", style="bold")
    for head in ("training", "a step", f"faster than {first.engine}", "whole process"):
        table.add_column(head, justify="right")
    table.add_column("same losses")
    table.add_column("same names")
    for lap in laps:
        table.add_row(
            lap.engine,
            duration(lap.seconds),
            duration(1e-6 * lap.microseconds_per_step),
            "" if lap is first else _times(first.seconds / lap.seconds),
            duration(lap.process_seconds),
            _same(lap.same_losses(first), lap is first),
            _same(lap.names == first.names, lap is first),
        )
    Console().print(table)
    print(f"the loss of the last step is {first.losses[-1]:.4f}; the first names are {', '.join(first.names[:5])}")


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def _same(same: bool, is_first: bool) -> str:
    return "" if is_first else "yes" if same else "NO"


class _Progress:
    """A bar for each engine on a terminal; elsewhere a line when one begins and one when it ends."""

    def __init__(self, steps: int) -> None:
        self.steps, self.engine = steps, ""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = None
        if sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("{task.fields[engine]:8}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self.bar.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, engine: str, done: int, remark: str) -> None:
        if self.bar:
            if engine != self.engine:
                self.task = self.bar.add_task("", total=self.steps, engine=engine)
            self.bar.update(self.task, completed=done, description=remark)
        elif engine != self.engine or done in (0, self.steps):
            told = remark.startswith("loss")
            say(f"{engine}: {done:,} / {self.steps:,} steps, {remark}" if told else f"{engine}: {remark}")
        self.engine = engine
