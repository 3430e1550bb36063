"""`etude chart`: songs from one form to another, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from etude.corpus.chord_sites import HUB, Census, is_table, read_chord_sites
from etude.corpus.chord_text import ChordText, Keys, Style, write_songs
from etude.corpus.chord_words import KINDS, count_words
from etude.corpus.lines import Watch, printable
from etude.corpus.songs import read_songs
from etude.corpus.text_files import file_names, read_texts, save_texts

from .options import JsonOption, SeedOption, check_not_read, print_json, say

_Styles = StrEnum("_Styles", ("plain", "people"))
_KeyChoice = StrEnum("_KeyChoice", ("own", "all"))
_EXAMPLES = 6
_SHOWN = 16  # characters of an example


def register(app: typer.Typer) -> None:
    """Add the verb and its parts."""
    chart = typer.Typer(
        help="Songs from one form to another, and what is in them.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(chart, name="chart")

    @chart.command("text")
    def text(
        sources: Annotated[
            list[str],
            typer.Argument(
                help="Files of songs (.jsonl); or songs of chord sites: .csv, .jsonl or .parquet with a column chords "
                f"(dicts of lines) or chords_str, or {HUB}OWNER/NAME. All plain or .gz."
            ),
        ],
        output: Annotated[
            Path,
            typer.Option(
                "-o",
                "--output",
                help='JSON lines ({"text", "title", ...}) where it ends in .jsonl or .jsonl.gz, else a song a line.',
            ),
        ],
        style: Annotated[
            _Styles,
            typer.Option(help="Of songs: the changes alone, or as people write them, each in a manner of its own."),
        ] = _Styles.plain,
        keys: Annotated[
            _KeyChoice,
            typer.Option(
                help="Of songs: each in its own key; or all of them so, then a semitone higher, eleven times."
            ),
        ] = _KeyChoice.own,
        split: Annotated[
            bool,
            typer.Option("--split", help="Two files, .train and .valid: a tenth of the songs, all versions of each."),
        ] = False,
        seed: SeedOption = 0,
        as_json: JsonOption = False,
    ) -> None:
        """Write songs as lines of chords, to train tokenizers and models of text on.

        Songs of chord sites are written as they are, but for single blanks; rows that are none are skipped and counted.

        Example: etude chart text songs.jsonl.gz -o chords.jsonl.gz --keys all

        Example: etude chart text songs.jsonl.gz -o chords.txt --style people --seed 1

        Example: etude chart text hub:lluccardoner/melodyGPT-song-chords-text-1 -o melody.jsonl.gz --split
        """
        tables = [source for source in sources if is_table(source)]
        if tables and (style != _Styles.plain or keys != _KeyChoice.own):
            raise typer.BadParameter(f"--style and --keys are for songs, and {tables[0]} is text already")
        for path in file_names(output, split):
            check_not_read(path, sources)
        census, each = Census(), 12 if keys == _KeyChoice.all else 1

        def texts(progress: Progress) -> Iterator[ChordText]:
            for source in sources:
                if source in tables:
                    yield from read_chord_sites(source, census, say, _watch(progress, source))
                else:
                    songs = read_songs(Path(source))
                    written = write_songs(songs, cast("Style", style.value), cast("Keys", keys.value), seed)
                    yield from progress.track(written, total=each * len(songs), description=source)

        with _progress() as progress:
            counts = save_texts(output, texts(progress), split)
        if as_json:
            files = [{"path": str(path), "texts": count, "songs": count // each} for path, count in counts.items()]
            print_json({"files": files, "skipped": census.document()["skipped"]})
            return
        _tell_skipped(census)
        for path, count in counts.items():
            say(f"{path}: {count // each:,} songs" + (f" in {each} keys, {count:,} texts" if each > 1 else ""))

    @chart.command("report")
    def report(
        sources: Annotated[
            list[str],
            typer.Argument(
                help="Text: files or folders of lines or JSON lines; or songs of chord sites, as for `chart text`."
            ),
        ],
        as_json: JsonOption = False,
    ) -> None:
        """Count the words of chord text: chords, section names, repeats, fingerings, tablature and others.

        Example: etude chart report chords.jsonl.gz
        """
        census = Census()

        def texts(progress: Progress) -> Iterator[str]:
            for source in sources:
                watch = _watch(progress, source)
                if is_table(source):
                    yield from (song.text for song in read_chord_sites(source, census, say, watch))
                else:
                    yield from read_texts(Path(source), watch)

        with _progress() as progress:
            document = count_words(texts(progress)).document(_EXAMPLES)
        if as_json:
            print_json({**document, "skipped": census.document()["skipped"]})
            return
        _tell_skipped(census)
        _print(document)


def _progress() -> Progress:
    """Bars on a terminal, nothing elsewhere."""
    error = Console(stderr=True)
    return Progress(console=error, disable=not error.is_terminal, transient=True)


def _watch(progress: Progress, source: str) -> Watch:
    """A bar of the bytes of a file, or of no known end."""
    path = Path(source)
    task = progress.add_task(source, total=path.stat().st_size if path.is_file() else None)
    return lambda count: progress.advance(task, count)


def _tell_skipped(census: Census) -> None:
    for reason, rows in census.skipped.most_common():
        say(f"skipped {rows:,} rows: {reason} (first: {census.first[reason]})")


def _print(document: dict[str, Any]) -> None:
    table = Table(title=f"{document['words']:,} words in {document['texts']:,} texts")
    for name, justify in (("words", "left"), ("number", "right"), ("share", "right"), ("most frequent", "left")):
        table.add_column(name, justify=cast("Any", justify))
    for kind, found in document["kinds"].items():
        share = "" if found["share"] is None else f"{found['share']:.2%}"
        examples = (printable(example["text"]) for example in found["examples"])
        shown = "  ".join(text if len(text) <= _SHOWN else text[:_SHOWN] + "…" for text in examples)
        table.add_row(KINDS[kind], f"{found['words']:,}", share, Text(shown))  # brackets are no markup here
    Console().print(table)
