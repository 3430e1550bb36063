"""`etude train`: a corpus to a model directory, with progress, resumable."""

from __future__ import annotations

import inspect
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import etude
from etude.model import TextModel
from etude.training.micro import METRICS_STEPS, TRAINERS
from etude.training.ranks import joined
from etude.training.recipes import RECIPES

from .options import JsonOption, check_directory, print_json, say

if TYPE_CHECKING:
    from etude.training.runs import Progress

_SAMPLES = 5
_LINE_STEPS, _LINE_SECONDS = 100, 5.0
_SHOWN = 90  # characters of a sample


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def train(
        corpus: Annotated[
            list[Path],
            typer.Argument(
                help='Songs: files of JSON lines. Text: files, folders, JSON lines with a "text" each, or - for '
                "standard input; for micro a document a line. All plain or .gz."
            ),
        ],
        output: Annotated[Path, typer.Option("-o", "--output", help="The run's folder, a model directory at its end.")],
        recipe: Annotated[
            str | None,
            typer.Option(
                help=f"One of {', '.join(RECIPES)}: a chord model, the smallest GPT on lines of text, a small GPT-2 on "
                "text, --init's model on text, or a rung of docs/ladder on text.",
                show_default="chords, finetune with --init, or the resumed run's",
            ),
        ] = None,
        init: Annotated[
            Path | None,
            typer.Option(
                help="A GPT-2 model directory to go on with: its sizes, weights and tokenizer.",
                show_default="a new model",
            ),
        ] = None,
        tokenizer: Annotated[
            str | None,
            typer.Option(
                help="Tokens of a new model of a stream: char (what is not in the corpus is bytes), plain (characters "
                "of the corpus alone), byte, or a tokenizer.json, a model directory or a folder with vocab.json and "
                "merges.txt.",
                show_default="the recipe's, or the resumed run's",
            ),
        ] = None,
        engine: Annotated[
            str | None,
            typer.Option(
                help=f"What trains micro: one of {', '.join(TRAINERS)}.",
                show_default="the first that is installed, or the resumed run's",
            ),
        ] = None,
        validation: Annotated[
            Path | None,
            typer.Option(
                help="What to validate on.",
                show_default="songs: valid.* beside the corpus, or a twentieth of it; micro: none; text: a tenth",
            ),
        ] = None,
        size: Annotated[
            int | None,
            typer.Option(
                help="Layers; width, heads and rates follow.", show_default="the recipe's", min=1, max=1 << 10
            ),
        ] = None,
        steps: Annotated[int | None, typer.Option(help="Optimiser steps.", show_default="the recipe's", min=1)] = None,
        minutes: Annotated[
            float | None,
            typer.Option(help="Wall-clock budget instead of steps; the schedule is fitted to it.", min=0.01),
        ] = None,
        seed: Annotated[
            int | None, typer.Option(help="The same seed gives the same model.", show_default="the recipe's", min=0)
        ] = None,
        tensorboard: Annotated[
            bool, typer.Option("--tensorboard", help="Write an event file for TensorBoard into the folder too.")
        ] = False,
        device: Annotated[
            str | None,
            typer.Option(
                help="What trains text as one stream: cpu or cuda.", show_default="cuda where there is a GPU, else cpu"
            ),
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
        settings: Annotated[
            list[str] | None, typer.Option("--set", help="A recipe setting, key=value; repeatable.")
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Train a model on songs or on text. Ctrl-C saves; --resume goes on where it was, to the bit.

        Example: etude train songs.jsonl.gz -o my-model --minutes 20

        Example: etude train names.txt --recipe micro -o my-names

        Example: etude train plays.txt --init gpt2 -o my-gpt2

        Example: torchrun --nproc-per-node 2 -m etude train plays.txt --recipe classic -o my-plays
        """
        check_directory(output)
        named = {"steps": steps, "minutes": minutes, "seed": seed}
        chosen: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        for setting in settings or ():
            key, equals, value = setting.partition("=")
            if not equals:
                raise typer.BadParameter(f"--set takes key=value, not {setting!r}")
            if key in inspect.signature(etude.train).parameters:
                raise typer.BadParameter(f"{key} is no setting of a recipe")
            if key in chosen:
                raise typer.BadParameter(f"{key} is given twice; give it once")
            chosen[key] = value
        if {"steps", "minutes"} <= chosen.keys():
            raise typer.BadParameter("give --steps or --minutes, not both")
        with joined(device) as ranks, _Progress(ranks.first) as report:
            result = etude.train(
                corpus, output, recipe,
                init=init, tokenizer=tokenizer, engine=engine, validation=validation, device=device, resume=resume,
                size=size,
                report=report, say=say, tensorboard=tensorboard, **chosen,
            )  # fmt: skip
        if not ranks.first:
            return
        if "top1" not in result:
            _tell_text(output, result, as_json)
        elif as_json:
            print_json({"directory": str(output), "validation": result})
        else:
            say(
                f"{output}: best at step {result['step']:,}, {result['nats_per_chord']['value']:.4f} nats a chord, "
                f"top-1 {result['top1']['value']:.1%} on the validation songs"
            )


def _tell_text(output: Path, result: dict[str, Any], as_json: bool) -> None:
    """What came of a run on text, with a few samples of the model."""
    model = etude.load(output, "array")  # for so little text nothing is worth compiling
    assert isinstance(model, TextModel)
    # What was trained on a stream goes on over many lines.
    samples = [sample.text for sample in model.generate(n=1 if "loss_steps" in result else _SAMPLES)]
    if as_json:
        print_json({"directory": str(output), **result, "samples": samples})
        return
    validation = ""
    if result["validation"] is not None:
        nats = result["validation"]["nats_per_token"]
        error = "" if nats["se"] is None else f" ± {nats['se']:.3f}"
        validation = f", validation loss {nats['value']:.3f}{error}"
        if "random" in result["validation"]:
            found = result["validation"]["random"]
            validation += f" ({found['nats_per_token']:.4f} on {found['batches']} random batches, as nanoGPT has it)"
    best = result.get("best")
    if best and best["step"] != result["steps"]:
        validation += f"; best {best['nats_per_token']['value']:.3f} at step {best['step']:,}"
        validation += f", kept step {result['kept']:,}"
    say(
        f"{output}: {result['steps']:,} steps in {_duration(result['seconds'])}, training loss {result['loss']:.2f} "
        f"(mean of the last {min(result.get('loss_steps', METRICS_STEPS), result['steps'])} steps){validation}"
    )
    for sample in samples:
        print(sample)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


class _Progress:
    """A bar with loss and time left on a terminal, where this process shows it; elsewhere a line now and then."""

    def __init__(self, shows: bool) -> None:
        self.shows = shows

    def __enter__(self) -> _Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.bar: Progress | None = None
        if self.shows and sys.stderr.isatty():
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
        self.step, self.line_step, self.line_time = 0, 0, 0.0
        return self

    def __exit__(self, *failure: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        # A step's own loss jumps about; where several were taken since the last report, it is a mean already.
        share = 0.02 if progress.step == self.step + 1 else 1.0
        self.smooth = progress.loss if self.smooth is None else (1 - share) * self.smooth + share * progress.loss
        self.step = progress.step
        if progress.validation is not None:
            top1 = "" if progress.top1 is None else f", top-1 {progress.top1:.1%}"
            self.validated = f"valid {progress.validation:.3f} nats{top1}  "
        minutes, seconds = divmod(round(progress.seconds_left), 60)
        rate = f"{progress.steps_per_second:,.{0 if progress.steps_per_second >= 100 else 1}f} steps/s"
        if progress.peak_share is not None:
            rate += f"  {progress.peak_share:.0%} of the GPU's peak"
        text = f"loss {self.smooth:.3f}  {self.validated}{rate}  {minutes}:{seconds:02d} left"
        remarks = [progress.remark] if progress.remark else []
        if progress.sample is not None:
            line = next((line for line in progress.sample.splitlines() if line.strip()), "")
            remarks.insert(0, f"sample  {line[:_SHOWN]}")
        if self.bar:
            self.bar.update(self.task, total=progress.steps, completed=progress.step, description=text)
            for remark in remarks:
                self.bar.console.print(remark, markup=False, highlight=False)
            return
        waited = progress.step >= self.line_step + _LINE_STEPS and time.monotonic() > self.line_time + _LINE_SECONDS
        if progress.validation is not None or waited or progress.step in (1, progress.steps):
            self.line_step, self.line_time = progress.step, time.monotonic()
            of = f" / {progress.steps:,}" if progress.steps else ""
            say(f"step {progress.step:,}{of}  {text}")
            for remark in remarks:
                say(remark)
