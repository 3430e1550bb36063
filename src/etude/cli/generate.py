"""`etude generate`: what a model writes by itself, or after a prompt, or after each of many."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from dataclasses import asdict
from typing import Annotated

import typer

from etude.engines.engine import ENGINES
from etude.errors import EtudeError
from etude.generation import PromptError, Sample
from etude.model import CHORDS, TOKENS, TextModel, load

from .options import (
    GreedyOption,
    JsonOption,
    MinPOption,
    Quantized,
    RepetitionPenaltyOption,
    SeedOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    print_json,
    read_input,
    read_precision,
    read_prompt_text,
    read_sampling,
    say,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def generate(
        model: Annotated[str, typer.Argument(help="A bundled model (chords) or a model directory.")],
        prompt: Annotated[
            str, typer.Argument(help="What every sample begins with: text or chords; - reads it from standard input.")
        ] = "",
        prompts: Annotated[
            str | None,
            typer.Option(
                help="A file with a prompt on each line, blank lines too; - reads standard input.", show_default="none"
            ),
        ] = None,
        n: Annotated[int, typer.Option("-n", "--n", help="How many samples of each prompt.", min=1)] = 1,
        max_tokens: Annotated[
            int | None,
            typer.Option(
                help="The most that is added: characters, GPT-2's tokens, or chords.",
                show_default=f"a block of characters, {TOKENS} tokens, or {CHORDS} chords",
                min=0,
            ),
        ] = None,
        stop: Annotated[
            list[str] | None,
            typer.Option(
                help="End before this text, or these chords, in what is added; may be given more than once.",
                show_default="none",
            ),
        ] = None,
        greedy: GreedyOption = False,
        temperature: TemperatureOption = 1.0,
        top_k: TopKOption = 0,
        top_p: TopPOption = 1.0,
        min_p: MinPOption = 0.0,
        repetition_penalty: RepetitionPenaltyOption = 1.0,
        seed: SeedOption = 0,
        engine: Annotated[
            str | None,
            typer.Option(
                help=f"What computes: one of {', '.join(ENGINES)}; chord models run in array.",
                show_default="compiled for GPT-2 where Numba is installed, else array",
            ),
        ] = None,
        quantize: Annotated[
            Quantized | None,
            typer.Option(
                help="GPT-2 with fewer bits a weight: faster, nearly the same text; needs pip install 'etude[fast]'."
            ),
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sample from any model; a text model needs no prompt. One sample is shown as it is written.

        Sample i of a prompt depends on the prompt, the seed and i, not on the other prompts and samples of its batch.

        Example: etude generate chords "D A Bm F#m" -n 3
        """
        sampling = read_sampling(greedy, temperature, top_k, top_p, min_p, repetition_penalty)
        if prompt and prompts is not None:
            raise typer.BadParameter("give a prompt or a file of --prompts, not both")
        loaded = load(model, engine, read_precision(quantize))
        if isinstance(loaded, TextModel) and engine is None and loaded.engine_name != "array":
            say(f"engine: {loaded.engine_name}, {loaded.precision}")
        if prompts is None:
            text = read_prompt_text(prompt)
            if prompt == "-" and isinstance(loaded, TextModel):
                text = text.removesuffix("\n")
            if n == 1 and not as_json:
                name = loaded.engine_name if isinstance(loaded, TextModel) else "array"
                _show_stream(loaded.stream(text, max_tokens, sampling, seed, stop or (), say), name)
                return
        lines = [text] if prompts is None else _lines(read_input(prompts))
        try:
            samples = loaded.generate_all(lines, n, max_tokens, sampling, seed, stop or (), say)
        except PromptError as error:
            if prompts is None:
                raise EtudeError(error.reason) from error
            name = "standard input" if prompts == "-" else prompts
            raise EtudeError(f"{name}, line {error.index + 1}: {error.reason}") from error
        if as_json:
            print_json({"samples": [asdict(sample) for sample in samples]})
        else:
            _show(samples)


def _lines(text: str) -> list[str]:
    """The lines of a file; the newline at its end begins no other."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def _show_stream(pieces: Generator[str, None, Sample], engine: str) -> None:
    """Print a text as it comes, then, to a person, how fast it came."""
    begun = time.perf_counter()
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            sample: Sample = end.value
            break
    print(flush=True)
    if sys.stderr.isatty():
        seconds, count = time.perf_counter() - begun, len(sample.tokens)
        _dim(f"{count:,} tokens, {count / seconds:,.1f} tokens/s, engine {engine}", stderr=True)


def _show(samples: Iterable[Sample]) -> None:
    """Print samples, a line each where they are lines.

    One of several lines is kept apart from its neighbours: by a blank line, or to a person by a rule with its number.
    """
    terminal, before = sys.stdout.isatty(), False
    for number, sample in enumerate(samples, 1):
        several = "\n" in sample.text
        if terminal and (several or before):
            _dim(f"── {number} ──")
        elif number > 1 and (several or before):
            print()
        print(sample.text, flush=True)
        before = several


def _dim(text: str, stderr: bool = False) -> None:
    from rich.console import Console

    Console(stderr=stderr, highlight=False).print(text, style="dim")
