"""`etude bench`: this project measured on this machine, beside its peers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.bench.machine import corpus_file, machine
from etude.engines.engine import check_engine

from .options import JsonOption, print_json, say

_PLAYS = "shakespeare.txt"


def _ablations(corpus: Path | None) -> list[dict[str, Any]]:
    check_engine("tensor")
    from etude.bench import ablations

    return ablations.bench(corpus_file(corpus, _PLAYS), say)


def _decode(corpus: Path | None) -> list[dict[str, Any]]:
    from etude.bench import decode

    return decode.bench(say)


def _micro(corpus: Path | None) -> list[dict[str, Any]]:
    from etude.bench import micro

    return micro.bench(corpus_file(corpus), say)


def _prime(corpus: Path | None) -> list[dict[str, Any]]:
    from etude.bench import prime

    return prime.bench(corpus, say)


def _tokens(corpus: Path | None) -> list[dict[str, Any]]:
    from etude.bench import tokens

    return tokens.bench(corpus, say)


def _train(corpus: Path | None) -> list[dict[str, Any]]:
    from etude.bench import learning

    return learning.bench(corpus_file(corpus, _PLAYS), say)


BENCHES: dict[str, Callable[[Path | None], list[dict[str, Any]]]] = {
    "micro": _micro,
    "decode": _decode,
    "train": _train,
    "ablations": _ablations,
    "tokens": _tokens,
    "prime": _prime,
}


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def bench(
        name: Annotated[str, typer.Argument(help=f"What to measure: {', '.join(BENCHES)}.")],
        corpus: Annotated[
            Path | None,
            typer.Argument(
                help="For micro a text file with a document a line, for train and ablations the plays, for tokens any "
                "text, for prime a number's file.",
                show_default="names.txt or shakespeare.txt in this folder; for tokens 100 MB of made-up words, for "
                "prime the smallest GPT",
            ),
        ] = None,
        gpu: Annotated[bool, typer.Option("--gpu", help="For train: GPT-2 124M on a GPU.")] = False,
        as_json: JsonOption = False,
    ) -> None:
        """Measure speed and quality. Leave the machine alone meanwhile: what else runs is measured too.

        Example: etude bench micro names.txt

        Example: etude bench train shakespeare.txt
        """
        if name not in BENCHES:
            raise typer.BadParameter(f"no bench {name!r}; known: {', '.join(BENCHES)}")
        if gpu and name != "train":
            raise typer.BadParameter("--gpu belongs to train")
        if corpus is not None and (gpu or name == "decode"):
            raise typer.BadParameter(f"{corpus}: {name}{' --gpu' * gpu} makes what it measures; leave the file out")
        if gpu:
            from etude.bench import train as on_gpu

            rows = on_gpu.bench(say)
        else:
            rows = BENCHES[name](corpus)
        if as_json:
            print_json({"bench": name, "machine": machine(), "rows": rows})
            return
        _show(name, rows)


def _show(name: str, rows: list[dict[str, Any]]) -> None:
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
