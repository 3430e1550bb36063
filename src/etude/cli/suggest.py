"""`etude suggest`: the ranked next chords."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from etude.model import ChordModel, load

from .options import (
    JsonOption,
    KeyOption,
    ModelOption,
    PromptArgument,
    print_json,
    read_key,
    read_prompt_text,
    warn_unfamiliar,
)


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def suggest(
        prompt: PromptArgument,
        top: Annotated[int, typer.Option(help="How many.", min=1, max=1000)] = 5,
        key: KeyOption = None,
        model: ModelOption = "chords",
        as_json: JsonOption = False,
    ) -> None:
        """Rank the chords that could come next, with probability, Roman numeral and reason.

        A model of text that was trained on lines of chords is asked for whole chords.

        Example: etude suggest "D A Bm F#m" --top 8
        """
        loaded = load(model)
        answer = loaded.suggest(read_prompt_text(prompt), top, read_key(key))
        if isinstance(loaded, ChordModel):
            warn_unfamiliar(answer.unfamiliar, answer.key, [loaded.tokenizer.nearest(c) for c in answer.unfamiliar])
        if as_json:
            print_json(
                {
                    "prompt": [answer.key.name(chord) for chord in answer.prompt],
                    "key": str(answer.key),
                    "candidates": [
                        {"chord": c.symbol, "probability": c.probability, "numeral": c.numeral, "reason": c.reason}
                        for c in answer.candidates
                    ],
                }
            )
            return
        recent = " ".join(answer.key.name(chord) for chord in answer.prompt[-8:])
        table = Table(box=SIMPLE_HEAD, title=f"after {recent} in {answer.key}")
        table.add_column("chord", style="bold")
        table.add_column("numeral")
        table.add_column("probability", justify="right")
        table.add_column("reason")
        for c in answer.candidates:
            table.add_row(c.symbol, c.numeral, f"{c.probability:.1%}", c.reason)
        Console().print(table)
