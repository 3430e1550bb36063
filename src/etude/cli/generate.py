"""`etude generate`: what a model writes by itself, or after a prompt."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from etude.engines.engine import ENGINES
from etude.model import TOKENS, TextModel, load

from .options import (
    GreedyOption,
    JsonOption,
    SeedOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    print_json,
    read_prompt_text,
    read_sampling,
    say,
)

_CHORDS = 8  # changes of a chord model, unless it is told


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def generate(
        model: Annotated[str, typer.Argument(help="A bundled model (chords) or a model directory.")],
        prompt: Annotated[
            str, typer.Argument(help="What every sample begins with: text or chords; - reads it from standard input.")
        ] = "",
        n: Annotated[int, typer.Option("-n", "--n", help="How many samples.", min=1)] = 1,
        max_tokens: Annotated[
            int | None,
            typer.Option(
                help="The most that is added: characters, GPT-2's tokens, or chords.",
                show_default=f"a block of characters, {TOKENS} tokens, or {_CHORDS} chords",
                min=0,
            ),
        ] = None,
        greedy: GreedyOption = False,
        temperature: TemperatureOption = 1.0,
        top_k: TopKOption = 0,
        top_p: TopPOption = 1.0,
        seed: SeedOption = 0,
        engine: Annotated[
            str, typer.Option(help=f"What computes: one of {', '.join(ENGINES)}; chord models run in array.")
        ] = "array",
        as_json: JsonOption = False,
    ) -> None:
        """Sample from any model, one sample a line; a text model needs no prompt.

        Example: etude generate chords "D A Bm F#m" -n 3
        """
        sampling = read_sampling(greedy, temperature, top_k, top_p)
        loaded = load(model, engine)
        text = read_prompt_text(prompt)
        if isinstance(loaded, TextModel):
            text = text.removesuffix("\n") if prompt == "-" else text
            samples = loaded.generate(text, n, max_tokens, sampling, seed, say)
        else:
            samples = loaded.samples(text, n, _CHORDS if max_tokens is None else max_tokens, sampling, seed)
        if as_json:
            print_json({"samples": [asdict(sample) for sample in samples]})
            return
        for sample in samples:
            print(sample.text)
