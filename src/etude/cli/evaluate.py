"""`etude eval`: how well a model says what comes next, with standard errors, beside its baselines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from etude.corpus.songs import SongDocument, is_songs, read_songs
from etude.model import BUNDLED, ChordModel, TextModel, load, load_chords
from etude.training import evaluation

from .options import JsonOption, check_unused, print_json, say

_LINE_SECONDS = 5.0  # between remarks on long work

T = TypeVar("T")


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command("eval")
    def evaluate(
        context: typer.Context,
        model: Annotated[str, typer.Argument(help="A bundled model (chords) or a model directory.")],
        corpus: Annotated[
            list[Path],
            typer.Argument(
                help="Files of songs (.jsonl); for a model of text these, or what training takes. All plain or .gz."
            ),
        ],
        baselines: Annotated[
            bool,
            typer.Option(
                help="Of songs: score the model's n-gram baselines too; for a model of text the bundled chords and its."
            ),
        ] = True,
        engine: Annotated[
            str | None,
            typer.Option(help="Of text: what computes.", show_default="tensor, where it is installed, or the fastest"),
        ] = None,
        block_size: Annotated[
            int | None,
            typer.Option(
                help="Of text: tokens in a window; each is scored with at least half of that before it.",
                show_default="the one its run validated with, or the model's",
                min=2,
            ),
        ] = None,
        first: Annotated[
            int | None,
            typer.Option("--songs", help="Of songs: only the first so many.", show_default="all", min=1),
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Score every change of every song but its first: accuracy and nats a chord, for first occurrences and repeats.

        For a model of text score every token: nats and bits by token, character and byte, and perplexity; or, where the
        corpus is songs, their changes written as text, each a whole chord, decoded and scored as by a model of chords.

        Example: etude eval chords songs.jsonl.gz

        Example: etude eval my-gpt2 letters.txt
        """
        loaded = load(model, engine)
        of_songs = isinstance(loaded, ChordModel) or all(map(is_songs, corpus))
        if isinstance(loaded, TextModel) and not of_songs:
            if first is not None:
                raise typer.BadParameter("--songs is for files of songs, and these are not")
            check_unused(context, ["baselines"], "is for files of songs, and these are not")
            _evaluate_text(loaded, model, corpus, block_size, as_json)
            return
        if isinstance(loaded, ChordModel) and block_size is not None:
            raise typer.BadParameter(f"--block-size is for models of text, and {model} is one of chords")
        if isinstance(loaded, TextModel) and engine not in (None, "array"):
            raise typer.BadParameter(f"chords are decoded in the engine array, not in {engine}")
        songs = [song for path in corpus for song in read_songs(path)][:first]
        documents: dict[str, dict[str, Any]] = {}
        if isinstance(loaded, ChordModel):
            documents[model] = _score(loaded, model, songs)
            beside = loaded
        else:
            documents[model] = loaded.evaluate_songs(_watched(songs, model), block_size)
            beside = load_chords(BUNDLED[0])
            if baselines:
                documents[BUNDLED[0]] = _score(beside, BUNDLED[0], songs)
        if baselines:
            for name, predict in beside.baselines().items():
                documents[name] = _score(beside, name, songs, predict)
        if as_json:
            document = documents.pop(model)
            print_json({**document, "baselines": documents})
        else:
            _print(documents)


def _score(
    model: ChordModel, name: str, songs: Sequence[SongDocument], predict: evaluation.Predict | None = None
) -> dict[str, Any]:
    """The document of a model of chords, or of what predicts beside it."""
    scores = evaluation.score(_watched(songs, name), model.tokenizer, predict or model.predictor())
    return evaluation.summarize(scores)


def _watched(items: Sequence[T], name: str) -> Iterable[T]:
    """Songs or batches as they are taken: on a terminal with a bar of progress, elsewhere with a line now and then."""
    error = Console(stderr=True)
    if error.is_terminal:
        yield from track(items, description=name, console=error, transient=True)
        return
    began = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done and now > told + _LINE_SECONDS:
            minutes, seconds = divmod(round((now - began) / done * (len(items) - done)), 60)
            say(f"{name}: {done:,} of {len(items):,} scored, {minutes}:{seconds:02d} left")
            told = now
        yield item


def _evaluate_text(model: TextModel, name: str, corpus: list[Path], block_size: int | None, as_json: bool) -> None:
    began = time.monotonic()

    def watch(batches: Sequence[Any]) -> Iterable[Any]:
        nonlocal began
        began = time.monotonic()  # reading and tokenizing is over
        return _watched(batches, name)

    document = model.evaluate(corpus, block_size, say, watch)
    rate = document["tokens"] / max(1e-9, time.monotonic() - began)
    say(f"engine {model.scorer}: {rate:,.0f} tokens a second")
    if as_json:
        print_json(document)
        return
    table = Table(title=f"{document['tokens']:,} tokens, {document['characters']:,} characters (± standard error)")
    table.add_column(name, style="bold")
    table.add_column("value", justify="right")
    for key, measured in document.items():
        if isinstance(measured, dict):
            table.add_row(key.replace("_per_", " a "), _cell(measured, 1, 4, ""))
    Console().print(table)


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
