"""`etude tokens`: make, look into and compare tokenizers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size

from etude.corpus.lines import STDIN
from etude.corpus.text import find_sources
from etude.corpus.vocabulary import KINDS, VOCAB_SIZE, learn_tokenizer, read_passages
from etude.explain.words import Word, chord_words, text_words, visible
from etude.files import atomic_write
from etude.model import detect_key, load_tokenizer, read_prompt
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_training import check_vocab_size
from etude.tokens.chords import ChordTokenizer
from etude.tokens.comparison import AnyTokenizer, Row, compare, comparison_svg
from etude.tokens.patterns import PATTERNS
from etude.tokens.tokenizer import TokenizerError

from .options import JsonOption, check_folder, check_not_read, print_json, read_prompt_text, say

_LINE_SECONDS = 5.0  # between remarks on long work
_WIDEST = 32  # cells of a token's text

HubOption = Annotated[
    bool, typer.Option("--hub", help="Look up on the Hugging Face hub what is no file; needs pip install 'etude[hub]'.")
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    tokens = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make, look into and compare tokenizers.")
    tokens.command("train")(_train)
    tokens.command("show")(_show)
    tokens.command("compare")(_compare)
    app.add_typer(tokens, name="tokens")


def _train(
    corpus: Annotated[
        list[Path],
        typer.Argument(
            help='Text: files, folders, JSON lines with a "text" each, or - for standard input. For chord: songs in '
            "JSON lines. All plain or .gz."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The tokenizer.json to write.")],
    kind: Annotated[
        str,
        typer.Option(
            help="bpe: merges of bytes, as GPT-2's; char: characters, and bytes for what is not in the corpus; plain: "
            "characters of the corpus alone; byte: bytes; chord: whole chords of songs."
        ),
    ] = "bpe",
    vocab_size: Annotated[
        int | None,
        typer.Option(
            help="For bpe: tokens in all, 256 of them bytes and one <|endoftext|>.", show_default=f"{VOCAB_SIZE:,}"
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="For bpe: what no token crosses. gpt2 keeps letters, digits and marks apart; chords leaves a symbol "
            "such as F#m7 whole.",
            show_default="gpt2",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a tokenizer of a corpus, which may be larger than memory. The same corpus gives the same bytes.

    Example: etude tokens train books/ -o tokenizer.json --vocab-size 20000

    Example: etude tokens train songs.txt -o chords-bpe.json --vocab-size 1024 --pattern chords
    """
    if kind not in KINDS:
        raise typer.BadParameter(f"no kind {kind!r}; known: {', '.join(KINDS)}")
    if pattern not in (None, *PATTERNS):
        raise typer.BadParameter(f"no pattern {pattern!r}; known: {', '.join(PATTERNS)}")
    for name, value in (("--vocab-size", vocab_size), ("--pattern", pattern)):
        if value is not None and kind != "bpe":
            raise typer.BadParameter(f"{name} belongs to bpe; {kind} has what its corpus has")
    size = VOCAB_SIZE if vocab_size is None else vocab_size
    try:
        check_vocab_size(size)
    except TokenizerError as error:
        raise typer.BadParameter(str(error)) from None
    check_folder(output)
    check_not_read(output, corpus)
    begun = time.perf_counter()
    with _progress(() if kind in ("byte", "chord") else corpus) as (watch, progress):
        found = learn_tokenizer(corpus, kind, size, pattern or "gpt2", say, watch, progress, leave_out=output)
    with atomic_write(output) as file:
        file.write(found.to_json().encode())
    seconds = time.perf_counter() - begun
    if isinstance(found, BPETokenizer) and found.vocab_size < size:
        say(f"no pair of tokens is left that occurs twice: {found.vocab_size:,} tokens, not {size:,}")
    if as_json:
        print_json({"tokenizer": str(output), "kind": found.kind, "vocab_size": found.vocab_size, "seconds": seconds})
    else:
        say(f"{output}: {found.vocab_size:,} tokens of the kind {kind}, in {seconds:,.1f} s")


def _show(
    tokenizer: Annotated[
        str,
        typer.Argument(
            help="A bundled model (chords), a model directory, a tokenizer.json, or a folder with vocab.json and "
            "merges.txt."
        ),
    ],
    text: Annotated[str, typer.Argument(help="Text, or chords for a tokenizer of chords; - reads standard input.")],
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="How each token came about, a merge a step.")
    ] = False,
    hub: HubOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show how a text is cut: each token's number, id, what it says, and its bytes.

    Example: etude tokens show chords "D A Bm F#m"

    Example: etude tokens show tokenizer.json "Intro: Adim G7/13 Em" -v
    """
    found, given = load_tokenizer(tokenizer, hub, say), read_prompt_text(text)
    given = given.removesuffix("\n") if text == "-" else given
    if isinstance(found, ChordTokenizer):
        changes = read_prompt(given)
        key, encoded = detect_key(given, changes), found.encode_changes(changes)
        ids, word = list(encoded.ids), chord_words(found, key, encoded.anchor)
        anchor: str | None = key.names[encoded.anchor]
        unsayable = [chord for chord in changes if not found.can_say(chord)]
        for chord in dict.fromkeys(unsayable):
            say(f"note: it has no token for {key.name(chord)} and reads it as {key.name(found.nearest(chord))}")
        same = not unsayable
    else:
        ids, word, anchor = found.encode(given), text_words(found), None
        same = found.decode_bytes(ids) == given.encode()
    if as_json:
        document: dict[str, Any] = {"tokenizer": tokenizer, "kind": found.kind, "vocab_size": found.vocab_size}
        tokens = [_token(token, word(token)) for token in ids]
        print_json(document | {"text": given, "anchor": anchor, "exact": same, "tokens": tokens})
        return
    for line in _rows(ids, [word(token) for token in ids]):
        print(line)
    count = "1 token" if len(ids) == 1 else f"{len(ids):,} tokens"
    if anchor is not None:
        print(
            f"\n{count} of {found.vocab_size:,}, counted from the anchor {anchor}, so that all keys give the same ids"
        )
    else:
        size = len(given.encode())
        back = "the same text" if same else "another text"
        print(f"\n{count} of {found.vocab_size:,} for {len(given):,} characters ({size:,} bytes); decoded: {back}")
    if verbose:
        _show_merges(found, given)


def _token(token: int, word: Word) -> dict[str, Any]:
    found: dict[str, Any] = {"id": token, "text": word.text}
    if word.bytes is not None:
        found["bytes"] = word.bytes.hex(" ")
    return found | ({"merges": word.merges} if len(word.merges) > 1 else {})


def _rows(ids: Sequence[int], words: Sequence[Word]) -> Iterator[str]:
    """A line a token, aligned."""
    texts = [_fitted(word.text) for word in words]
    width = max(map(cell_len, ["token", *texts]))
    numbers, widest = len(f"{len(ids):,}"), len(str(max(ids, default=0)))
    in_bytes = any(word.bytes is not None for word in words)
    yield f"{'#':>{numbers}}  {'id':>{widest}}  {set_cell_size('token', width)}{'  bytes' if in_bytes else ''}".rstrip()
    for i, (token, text, word) in enumerate(zip(ids, texts, words, strict=True), 1):
        said = "" if word.bytes is None else "  " + word.bytes.hex(" ")
        yield f"{i:>{numbers}}  {token:>{max(2, widest)}}  {set_cell_size(text, width)}{said}".rstrip()


def _fitted(text: str) -> str:
    said = visible(text)
    return said if cell_len(said) <= _WIDEST else set_cell_size(said, _WIDEST - 1) + "…"


def _show_merges(tokenizer: AnyTokenizer, text: str) -> None:
    """Each piece of the text from single bytes to its tokens, where anything was merged."""
    if not isinstance(tokenizer, BPETokenizer):
        print(f"\nnothing is merged in a tokenizer of the kind {tokenizer.kind}")
        return
    print("\nmerges, a step apart; a piece, which no token crosses, a line")
    for states in tokenizer.steps(text):
        said = ("·".join(visible(part.decode("utf-8", "backslashreplace")) for part in state) for state in states)
        print("  " + " → ".join(said))


def _compare(
    tokenizers: Annotated[
        list[str],
        typer.Argument(help="Two or more, each as etude tokens show takes it."),
    ],
    on: Annotated[
        Path,
        typer.Option("--on", help="Songs in JSON lines, or text: a file, a folder, or - for standard input; or .gz."),
    ],
    lines: Annotated[int, typer.Option(help="Lines that are shown cut by each.", min=0)] = 3,
    plot: Annotated[Path | None, typer.Option(help="Draw the table as an SVG.", show_default="none")] = None,
    hub: HubOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare tokenizers: tokens a character, a word, a chord and a song, and the same lines cut by each.

    Example: etude tokens compare gpt2 chords-bpe.json chords --on songs.jsonl.gz --plot tokens.svg
    """
    if plot is not None and plot.suffix != ".svg":
        raise typer.BadParameter(f"{plot}: the picture is an SVG; name a file that ends in .svg")
    if plot is not None:
        check_folder(plot)
        check_not_read(plot, [on])
    found = dict(zip(_names(tokenizers), (load_tokenizer(name, hub, say) for name in tokenizers), strict=True))
    document = compare(found, read_passages(on, say), lines)
    if plot is not None:
        with atomic_write(plot) as file:
            file.write(comparison_svg(document["rows"], f"Tokenizers on {on.name}").encode())
        say(f"wrote {plot}")
    if as_json:
        print_json({"on": str(on), **document})
        return
    _show_comparison(document, on)


def _names(arguments: Sequence[str]) -> list[str]:
    """What each is called: its file or folder, a tokenizer.json by the folder that it is in; each name once."""
    names = list[str]()
    for argument in arguments:
        path = Path(argument)
        name = path.absolute().parent.name if path.name == "tokenizer.json" else path.name.removesuffix(".json")
        name = name or argument
        number = next(i for i in range(1, len(arguments) + 1) if (name if i == 1 else f"{name} ({i})") not in names)
        names.append(name if number == 1 else f"{name} ({number})")
    return names


def _show_comparison(document: dict[str, Any], on: Path) -> None:
    number, of = document["documents"], "song" if document["songs"] else "document"
    print(
        f"{on}: {number:,} {of}{'' if number == 1 else 's'}, {document['chords']:,} chords, {document['words']:,} "
        f"words, {document['characters']:,} characters\n"
    )
    headings = ("tokens", "a chord", "a word", "a character", f"a {of}", "whole", "exact", "used", "of")
    rows = [headings, *map(_cells, document["rows"])]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        print(
            set_cell_size(name, widths[0]),
            *(f"{cell:>{w}}" for cell, w in zip(cells, widths[1:], strict=True)),
            sep="  ",
        )
    print(
        "\nwhole: chords in one token; exact: chords that come back as they were; used: tokens, of all that there are"
    )
    for line in document["lines"]:
        print("\n" + visible(line["text"]).replace("␣", " "))
        width = max(map(cell_len, line["cuts"]))
        for name, pieces in line["cuts"].items():
            print(f"  {set_cell_size(name, width)}  {len(pieces):>3}  {'·'.join(map(visible, pieces))}")


def _cells(row: Row) -> tuple[str, ...]:
    def number(field: str, digits: int) -> str:
        return "-" if row[field] is None else f"{row[field]:,.{digits}f}"

    def percent(field: str) -> str:
        return "-" if row[field] is None else f"{row[field]:.1%}"

    return (
        row["tokenizer"], number("tokens_per_chord", 3), number("tokens_per_word", 3),
        number("tokens_per_character", 3), number("tokens_per_song", 1), percent("one_token_chords"),
        percent("exact_chords"), f"{row['vocabulary_used']:,}", f"{row['vocab_size']:,}",
    )  # fmt: skip


Watch = Callable[[int], None]
Told = Callable[[str, int, int], None]


@contextmanager
def _progress(corpus: Sequence[Path]) -> Iterator[tuple[Watch, Told | None]]:
    """What hears how far it is: bars with rate and time left on a terminal, else lines on the reading alone."""
    total = sum(path.stat().st_size for path in _files(corpus))
    if not sys.stderr.isatty():
        yield _Lines("reading", total, 1e6, "MB").add, None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total or None, rate="")
        merging_task: list[Any] = []

        def watch(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            bar.update(task, rate="" if speed is None else f"{speed / 1e6:,.1f} MB/s")

        def learning(doing: str, done: int, of: int) -> None:
            if doing != "Compute merges":
                return
            if not merging_task:
                merging_task.append(bar.add_task("merging", total=of, rate=""))
            speed = bar.tasks[-1].speed
            bar.update(
                merging_task[0], completed=done, total=of, rate="" if speed is None else f"{speed:,.0f} merges/s"
            )

        yield watch, learning


def _files(corpus: Sequence[Path]) -> Iterator[Path]:
    """The files of a corpus, of which the size is known."""
    for source in find_sources([path for path in corpus if path != STDIN]):
        if source.path.is_file():
            yield source.path


class _Lines:
    """A line on standard error now and then."""

    def __init__(self, doing: str, total: int, unit: float, units: str) -> None:
        self._doing, self._total, self._unit, self._units = doing, total, unit, units
        self._done, self._begun = 0, time.monotonic()
        self._told = self._begun

    def add(self, count: int) -> None:
        self.tell(self._done + count, self._total)

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._done:
            self._begun = self._told = now
        self._done = done
        if now - self._told < _LINE_SECONDS:
            return
        self._told, rate = now, done / (now - self._begun)
        left = ""
        if total >= done:
            minutes, seconds = divmod(round((total - done) / max(rate, 1e-9)), 60)
            left = f" of {total / self._unit:,.0f} {self._units}, {minutes}:{seconds:02d} left"
        shown = f"{done / self._unit:,.0f}{left or ' ' + self._units}"
        say(f"{self._doing}: {shown}, {rate / self._unit:,.1f} {self._units}/s")
