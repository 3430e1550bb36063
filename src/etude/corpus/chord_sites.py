"""Songs as chord sites have them: tables of songs whose chords are text, as two public data sets are published.

Both have an artist, a song and genres in each row. In one, the column `chords` is the text of a Python dict from the
number of a line to the chords on it (Kaggle's "Chords and Lyrics Dataset"); in the other, `chords_str` is all of these
together (lluccardoner/melodyGPT-song-chords-text-1 on the hub). Here a song is the chords of all lines in the order of
the lines, with single blanks between words. What no song can be made of is skipped and counted, by reason.

Tables are CSV, JSON lines or Parquet, the forms in which the hub has them and which `datasets` writes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from etude.hub import HubError, fetch, is_repository

from .chord_text import ChordText
from .lines import MAX_CORPUS_BYTES, MAX_RATIO, CorpusError, Watch, first_record, opened, printable, read_lines
from .tables import MAX_CELL_BYTES, read_rows

HUB = "hub:"
CHORDS, TEXT = "chords", "chords_str"
MAX_SONG = MAX_CELL_BYTES  # characters
_ENDINGS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")

# One entry of a dict of strings and what follows it, as `repr` writes them; the loops are unrolled, so that a match
# takes time in proportion to its length and can go wrong in one way only.
_ENTRY = re.compile(
    r"""\s*(?P<line>\d{1,9})\s*:\s*
    (?:'(?P<single>[^'\\\n]*(?:\\.[^'\\\n]*)*)'|"(?P<double>[^"\\\n]*(?:\\.[^"\\\n]*)*)")
    \s*(?P<next>,|\}\s*\Z)""",
    re.VERBOSE,
)
_EMPTY = re.compile(r"\s*\{\s*\}\s*")
_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))")
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
# What says that a title is another version of the same song, or names who else sings.
_VERSION = re.compile(r"\([^()]*\)|\[[^][]*\]|\b(?:feat|ft|featuring|ver|version)\b.*", re.IGNORECASE)


_LONGEST_TITLE = 300  # characters that are looked at


class DictError(ValueError):
    """A text that is not the text of a dict from line numbers to strings."""


@dataclass(slots=True)
class Census:
    """What became of the rows of tables."""

    songs: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    """Where each reason came first."""

    def skip(self, reason: str, where: str) -> None:
        self.skipped[reason] += 1
        self.first.setdefault(reason, where)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        reasons = [{"reason": r, "rows": n, "first": self.first[r]} for r, n in self.skipped.most_common()]
        return {"songs": self.songs, "skipped": reasons}


def is_table(source: str) -> bool:
    """Whether a source is one of these: a name on the hub, or a file whose ending, or first line, says so."""
    if source.startswith(HUB) or source.removesuffix(".gz").endswith((".csv", ".parquet")):
        return True
    record = first_record(Path(source)) or {}
    return TEXT in record or isinstance(record.get(CHORDS), str)


def read_chord_sites(
    source: str, census: Census, say: Callable[[str], None] = lambda message: None, watch: Watch = lambda count: None
) -> Iterator[ChordText]:
    """The songs of a file, or of all files of a data set on the hub (`hub:owner/name`), in order.

    Raises `CorpusError` for what is no such table, or `HubError`.
    """
    if not source.startswith(HUB):
        yield from _read(Path(source), census, watch)
        return
    repository = source.removeprefix(HUB)
    if not is_repository(repository):
        raise HubError(f"{source}: not of the form {HUB}owner/name")
    folder = fetch(repository, [f"*{ending}" for ending in _ENDINGS], say, dataset=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name.endswith(_ENDINGS))
    if not files:
        raise HubError(f"{repository}: no file in it ends in {', '.join(_ENDINGS)}")
    for path in files:
        yield from _read(path, census, watch)


def join_lines(text: str) -> str:
    """The chords of a dict's text, in the order of the lines, with single blanks between words.

    Nothing is evaluated: an entry is a number of up to nine digits and a string without prefix, as `repr` writes both.
    `ast.literal_eval` takes any literal, builds a tree of many times the size of the text, and can give up by memory
    or by the depth of its stack. Raises `DictError`.
    """
    if _EMPTY.fullmatch(text):
        return ""
    opening = text.find("{")
    if opening < 0 or text[:opening].strip():
        raise DictError("no dict")
    lines, at = dict[int, str](), opening + 1
    while True:
        entry = _ENTRY.match(text, at)
        if entry is None:
            if lines and re.compile(r"\s*\}\s*\Z").match(text, at):  # after a last comma
                break
            raise DictError(f"character {at + 1} begins no entry of a line number and a string")
        number = int(entry["line"])
        if number in lines:
            raise DictError(f"line {number} is there twice")
        lines[number] = _unescaped(entry["single"] if entry["single"] is not None else entry["double"])
        at = entry.end()
        if entry["next"] != ",":
            break
    return " ".join(" ".join(lines[number] for number in sorted(lines)).split())


def group_of(title: str) -> str:
    """What versions of one song share, by whomever: its title without marks, brackets and who else sings."""
    title = title[:_LONGEST_TITLE].casefold()
    return " ".join(re.findall(r"\w+", _VERSION.sub(" ", title))) or " ".join(title.split())


def _unescaped(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = match[1] or match[2] or match[3]
        if code is not None:
            number = int(code, 16)
            if number > 0x10FFFF or 0xD800 <= number < 0xE000:
                raise DictError(f"{match[0]} is no character")
            return chr(number)
        if match[4] not in _PLAIN_ESCAPES:
            raise DictError(f"{match[0]} is no escape that repr writes")
        return _PLAIN_ESCAPES[match[4]]

    return _ESCAPE.sub(character, text) if "\\" in text else text


def _read(path: Path, census: Census, watch: Watch) -> Iterator[ChordText]:
    name = path.name.removesuffix(".gz")
    read = _parquet if name.endswith(".parquet") else _csv if name.endswith(".csv") else _json_lines
    for where, record in read(path, census, watch):
        try:
            song = _song(record)
        except _NoSongError as reason:
            census.skip(str(reason), where)
            continue
        census.songs += 1
        yield song


class _NoSongError(ValueError):
    """Why no song can be made of a row."""


def _song(record: Mapping[str, str | None]) -> ChordText:
    """The song of a row, in which None is a cell that is too large. Raises `_NoSongError`."""
    column = TEXT if TEXT in record else CHORDS
    written = record[column]
    if written is None or len(written) > MAX_SONG:
        raise _NoSongError(f"{column} longer than {MAX_SONG >> 20} MiB")
    try:
        text = " ".join(written.split()) if column == TEXT else join_lines(written) if written.strip() else ""
    except DictError as error:
        raise _NoSongError(f"{column} not the text of a dict of lines") from error
    if text in ("", "nan"):
        raise _NoSongError(f"{column} empty")
    if "\0" in text or "\ufffd" in text:
        raise _NoSongError(f"{column} not UTF-8 text")
    title, artist = (" ".join((record.get(each) or "").split()) for each in ("song_name", "artist_name"))
    genres = record.get("genres") or ""
    named = [a or b for a, b in _QUOTED.findall(genres)] if genres.startswith("[") else [genres]
    # A row without a name is a song of its own, wherever it stands.
    group = group_of(title) if title else hashlib.sha256(text.encode()).hexdigest()[:16]
    return ChordText(text, title, artist, ", ".join(filter(None, named)), group)


def _csv(path: Path, census: Census, watch: Watch) -> Iterator[tuple[str, dict[str, str | None]]]:
    with opened(path) as content:
        rows = read_rows(content, str(path), watch)
        header = next(rows, None)
        if header is None:
            raise CorpusError(f"{path}: empty; name a table with a column {CHORDS} or {TEXT}")
        names = [(cell or b"").decode("utf-8", "replace").strip() for cell in header.cells]
        _check_columns(path, names)
        for row in rows:
            where = f"{path}, line {row.number}"
            if len(row.cells) != len(names):
                census.skip("another number of cells than the header", where)
                continue
            cells = (None if cell is None else cell.decode("utf-8", "replace") for cell in row.cells)
            yield where, dict(zip(names, cells, strict=True))


def _json_lines(path: Path, census: Census, watch: Watch) -> Iterator[tuple[str, dict[str, str | None]]]:
    for number, line in read_lines(path, limit=0, watch=watch):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
            json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair could not be written again
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            census.skip("not a JSON object", where)
            continue
        if number == 1:
            _check_columns(path, list(map(str, record)))
        if not isinstance(record.get(TEXT, record.get(CHORDS)), str):
            census.skip(f"{TEXT} missing or no string", where)
            continue
        yield where, _strings(record)


def _parquet(path: Path, census: Census, watch: Watch) -> Iterator[tuple[str, dict[str, str | None]]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError:
        raise CorpusError(f"{path}: Parquet needs pyarrow, which comes with: pip install 'etude[hub]'") from None
    try:
        file = parquet.ParquetFile(path)
        names = list(map(str, file.schema_arrow.names))
        _check_columns(path, names)
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        packed, size = path.stat().st_size, sum(group.total_byte_size for group in groups)
        if size > MAX_CORPUS_BYTES and size > MAX_RATIO * packed:
            raise CorpusError(f"{path}: {packed:,} bytes say they hold {size:,} of text, which nobody packed so")
        wanted = [each for each in (TEXT, CHORDS, "song_name", "artist_name", "genres") if each in names]
        # A cell that repeats is stored once; read as such, and a row at a time, it is in memory once too.
        strings = [field.name for field in file.schema_arrow if str(field.type) in ("string", "large_string")]
        file, number = parquet.ParquetFile(path, read_dictionary=[each for each in wanted if each in strings]), 0
        for batch in file.iter_batches(batch_size=64, columns=wanted):
            for row in range(batch.num_rows):
                record = {name: batch.column(name)[row].as_py() for name in wanted}
                number += 1
                where = f"{path}, row {number}"
                if isinstance(record.get(TEXT, record.get(CHORDS)), str):
                    yield where, _strings(record)
                else:
                    census.skip(f"{TEXT} missing or no string", where)
    except CorpusError:
        raise
    except Exception as error:  # the library's own, which are many
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CorpusError(f"{path}: not a Parquet file that can be read ({first})") from error


def _strings(record: dict[str, Any]) -> dict[str, str | None]:
    """Cells as in CSV: a list of genres as Python shows it, what is missing as nothing."""
    return {name: cell if isinstance(cell, str) else "" if cell is None else str(cell) for name, cell in record.items()}


def _check_columns(path: Path, names: list[str]) -> None:
    if CHORDS not in names and TEXT not in names:
        shown = printable(", ".join(names[:8])[:80])
        raise CorpusError(f"{path}: no column {CHORDS} or {TEXT}; it has {shown or 'none'}")
