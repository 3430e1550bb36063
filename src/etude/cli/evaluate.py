"""`etude eval`: how well a model says what comes next, with standard errors, beside its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from etude.corpus.songs import read_songs
from etude.model import load_chords
from etude.training import evaluation

from .options import JsonOption, print_json


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("eval")
    def evaluate(
        model: Annotated[str, typer.Argument(help="A bundled model (chords) or a model directory.")],
        corpus: Annotated[list[Path], typer.Argument(help="Files of songs: .jsonl or .jsonl.gz.")],
        baselines: Annotated[bool, typer.Option(help="Score the model's n-gram baselines too.")] = True,
        as_json: JsonOption = False,
    ) -> None:
        """Score every change of every song but its first: accuracy and nats a chord, for first occurrences and repeats.

        Example: etude eval chords songs.jsonl.gz
        """
        loaded = load_chords(model)
        songs = [song for path in corpus for song in read_songs(path)]
        subjects = {model: loaded.predictor()}
        if baselines:
            subjects |= loaded.baselines()
        error = Console(stderr=True)
        documents: dict[str, dict[str, Any]] = {}
        for name, predict in subjects.items():
            watched = track(songs, description=name, console=error, disable=not error.is_terminal, transient=True)
            documents[name] = evaluation.summarize(evaluation.score(watched, loaded.tokenizer, predict))
        document = documents.pop(model)
        document["baselines"] = documents
        if as_json:
            print_json(document)
        else:
            _print({model: document, **documents})


def _print(documents: dict[str, dict[str, Any]]) -> None:
    table = Table(title="next chord: share right, and nats a chord (± standard error, songs as units)")
    table.add_column("model", style="bold")
    table.add_column("changes")
    for column in ("n", "top-1", "top-3", "top-5", "nats"):
        table.add_column(column, justify="right")
    for name, document in documents.items():
        for part in ("all", "first", "repeat"):
            numbers = document if part == "all" else document[part]
            table.add_row(
                name if part == "all" else "",
                part,
                f"{numbers['changes']:,}",
                *(_cell(numbers.get(f"top{top}"), 100, 1, "%") for top in (1, 3, 5)),
                _cell(numbers["nats_per_chord"], 1, 3, ""),
                end_section=part == "repeat",
            )
    Console().print(table)


def _cell(measured: dict[str, float | None] | None, scale: float, digits: int, unit: str) -> str:
    if measured is None or measured["value"] is None:
        return ""
    error = "" if measured["se"] is None else f" ±{scale * measured['se']:.{digits}f}"
    return f"{scale * measured['value']:.{digits}f}{unit}{error}"
