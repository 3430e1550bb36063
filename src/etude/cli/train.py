"""`etude train`: a corpus to a model directory, with progress, resumable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import etude
from etude.training.recipes import RECIPES

from .options import JsonOption, check_directory, print_json, say

if TYPE_CHECKING:
    from etude.training.loop import Progress


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def train(
        corpus: Annotated[list[Path], typer.Argument(help="Files of songs: .jsonl or .jsonl.gz.")],
        output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder, a model directory at its end.")],
        recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES)}.")] = "chords",
        validation: Annotated[
            Path | None,
            typer.Option(help="Songs to validate on.", show_default="valid.* beside the corpus, or a twentieth of it"),
        ] = None,
        steps: Annotated[int | None, typer.Option(help="Optimiser steps.", show_default="the recipe's", min=1)] = None,
        minutes: Annotated[
            float | None,
            typer.Option(help="Wall-clock budget instead of steps; the schedule is fitted to it.", min=0.01),
        ] = None,
        seed: Annotated[
            int | None, typer.Option(help="The same seed gives the same model.", show_default="the recipe's", min=0)
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="A recipe setting, key=value; repeatable.")
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Train a model on songs. Ctrl-C saves; --resume goes on where it was, to the bit.

        Example: etude train songs.jsonl.gz -o my-model --minutes 20
        """
        if steps is not None and minutes is not None:
            raise typer.BadParameter("give --steps or --minutes, not both")
        check_directory(output)
        chosen: dict[str, Any] = {}
        for setting in settings or ():
            key, equals, value = setting.partition("=")
            if not equals:
                raise typer.BadParameter(f"--set takes key=value, not {setting!r}")
            chosen[key] = value
        chosen |= {k: v for k, v in (("steps", steps), ("minutes", minutes), ("seed", seed)) if v is not None}
        with _Progress() as report:
            best = etude.train(corpus, output, recipe, validation=validation, resume=resume, report=report, **chosen)
        if as_json:
            print_json({"directory": str(output), "validation": best})
        else:
            say(
                f"{output}: best at step {best['step']:,}, {best['nats_per_chord']['value']:.4f} nats a chord, "
                f"top-1 {best['top1']['value']:.1%} on the validation songs"
            )


class _Progress:
    """A bar with loss and time left on a terminal; a line every hundred steps elsewhere."""

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.bar: Progress | None = None
        if sys.stderr.isatty():
            self.bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=None)
        self.validated = ""
        self.smooth: float | None = None
        return self

    def __exit__(self, *failure: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        self.smooth = progress.loss if self.smooth is None else 0.98 * self.smooth + 0.02 * progress.loss
        if progress.validation is not None and progress.top1 is not None:
            self.validated = f"valid {progress.validation:.3f} nats, top-1 {progress.top1:.1%}"
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        rate = f"{progress.steps_per_second:.1f} steps/s"
        text = f"loss {self.smooth:.3f}  {self.validated}  {rate}  {minutes}:{seconds:02d} left"
        if self.bar:
            self.bar.update(self.task, total=progress.steps, completed=progress.step, description=text)
        elif progress.validation is not None or progress.step % 100 == 0 or progress.step in (1, progress.steps):
            of = f" / {progress.steps:,}" if progress.steps else ""
            say(f"step {progress.step:,}{of}  {text}")
