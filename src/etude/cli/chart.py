"""`etude chart`: charts and songs from one form to another."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

from etude.corpus.chord_text import ChordText, Keys, Style, write_songs
from etude.corpus.songs import read_songs
from etude.corpus.text_files import save_texts

from .options import JsonOption, SeedOption, print_json, say

_Styles = StrEnum("_Styles", ("plain", "people"))
_KeyChoice = StrEnum("_KeyChoice", ("own", "all"))


def register(app: typer.Typer) -> None:
    """Add the verb and its parts."""
    chart = typer.Typer(help="Charts and songs from one form to another.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(chart, name="chart")

    @chart.command("text")
    def text(
        sources: Annotated[list[Path], typer.Argument(help="Files of songs (.jsonl), plain or .gz.")],
        output: Annotated[
            Path,
            typer.Option(
                "-o",
                "--output",
                help='JSON lines ({"text", "title", ...}) where it ends in .jsonl or .jsonl.gz, else a song a line.',
            ),
        ],
        style: Annotated[
            _Styles, typer.Option(help="The changes alone, or as people write them, each song in a manner of its own.")
        ] = _Styles.plain,
        keys: Annotated[
            _KeyChoice, typer.Option(help="Each song in its own key, or in all twelve one after another.")
        ] = _KeyChoice.own,
        split: Annotated[
            bool,
            typer.Option("--split", help="Two files, .train and .valid: a tenth of the songs, all versions of each."),
        ] = False,
        seed: SeedOption = 0,
        as_json: JsonOption = False,
    ) -> None:
        """Write songs as lines of chords, to train tokenizers and models of text on.

        Example: etude chart text songs.jsonl.gz -o chords.jsonl.gz --keys all

        Example: etude chart text songs.jsonl.gz -o chords.txt --style people --seed 1
        """

        def texts() -> Iterator[ChordText]:
            for source in sources:
                yield from write_songs(read_songs(source), cast("Style", style.value), cast("Keys", keys.value), seed)

        counts = save_texts(output, texts(), split)
        if as_json:
            print_json({"files": [{"path": str(path), "songs": count} for path, count in counts.items()]})
            return
        for path, count in counts.items():
            say(f"{path}: {count:,} songs")
