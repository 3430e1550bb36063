"""`etude import`: GPT-2 from a directory or from the hub to a model directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.gpt.importing import HUB_NAMES, import_gpt2

from .options import say


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("import")
    def import_command(
        source: Annotated[
            str,
            typer.Argument(
                help=f"A local GPT-2 directory, one of {', '.join(HUB_NAMES)}, or owner/name on the Hugging Face hub."
            ),
        ],
        output: Annotated[Path, typer.Option("-o", "--output", help="The model directory to make.")],
        tokenizer: Annotated[
            Path | None,
            typer.Option(
                help="For a source without: a tokenizer.json, or a folder with it or with vocab.json and merges.txt."
            ),
        ] = None,
    ) -> None:
        """Import GPT-2 weights as a model directory; the hub's need the network once and pip install 'etude[hub]'.

        Example: etude import gpt2 -o gpt2
        """
        model = import_gpt2(source, output, say, tokenizer)
        c, count = model.config, sum(array.size for array in model.weights.values())
        say(f"{output}: {count:,} parameters, {c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide")
