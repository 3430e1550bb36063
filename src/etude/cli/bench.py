"""`etude bench`: this project measured on this machine, beside its peers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etude.bench import decode, learning, micro
from etude.bench import train as training
from etude.bench.machine import corpus_file, machine
from etude.engines.engine import check_engine

from .options import JsonOption, print_json, say

BENCHES = ("micro", "decode", "train", "ablations")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def bench(
        name: Annotated[str, typer.Argument(help=f"What to measure: {', '.join(BENCHES)}.")],
        corpus: Annotated[
            Path | None,
            typer.Argument(
                help="For micro a text file with a document a line, for train and ablations the plays.",
                show_default="names.txt or shakespeare.txt in this folder",
            ),
        ] = None,
        gpu: Annotated[bool, typer.Option("--gpu", help="For train: GPT-2 124M on a GPU.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Measure speed and quality. Leave the machine alone meanwhile: what else runs is measured too.

        Example: etude bench micro names.txt

        Example: etude bench train shakespeare.txt

        Example: etude bench ablations shakespeare.txt
        """
        if name not in BENCHES:
            raise typer.BadParameter(f"no bench {name!r}; known: {', '.join(BENCHES)}")
        if gpu and name != "train":
            raise typer.BadParameter("--gpu belongs to train")
        if name == "decode":
            rows = decode.bench(say)
        elif name == "micro":
            rows = micro.bench(corpus_file(corpus), say)
        elif name == "ablations":
            check_engine("tensor")
            from etude.bench import ablations  # which needs PyTorch from its first line on

            rows = ablations.bench(corpus_file(corpus, "shakespeare.txt"), say)
        elif gpu:
            rows = training.bench(say)
        else:
            rows = learning.bench(corpus_file(corpus, "shakespeare.txt"), say)
        if as_json:
            print_json({"bench": name, "machine": machine(), "rows": rows})
            return
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, title=f"bench {name} on {machine()['processor']}")
        table.add_column("subject", style="bold")
        table.add_column("metric")
        table.add_column("value", justify="right")
        table.add_column("unit")
        before = None
        for row in rows:
            subject = row["subject"] if row["subject"] != before else ""
            table.add_row(subject, row["metric"], f"{row['value']:,.4g}", row["unit"])
            before = row["subject"]
        Console().print(table)
