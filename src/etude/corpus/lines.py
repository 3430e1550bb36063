"""Files from outside, plain or gzipped, within limits: every corpus is read through here."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from etude.errors import EtudeError

STDIN = Path("-")
MAX_LINE_BYTES = 4 << 20
MAX_CORPUS_BYTES = 1 << 30
# More than this many times a file's own size, beyond `MAX_CORPUS_BYTES`, is no text that somebody packed: gzip makes at
# most 1,032 of 1, and a fifth of that of the most repetitive text that people write.
MAX_RATIO = 200

Watch = Callable[[int], None]
"""Is told how many bytes of a file, as it lies on the disk, were read since it was told last."""


class CorpusError(EtudeError):
    """A corpus that cannot be read; the message names the file, the line and the fault."""


def read_lines(
    path: Path, name: str = "", limit: int | None = None, watch: Watch = lambda count: None
) -> Iterator[tuple[int, bytes]]:
    r"""The number and bytes of every line that is not blank; lines end at `\n` alone. Raises `CorpusError`.

    `name` is what errors call the file. All of it is at most `limit`, or `MAX_CORPUS_BYTES`; 0 is without limit.
    """
    name, limit = name or shown(path), MAX_CORPUS_BYTES if limit is None else limit
    with opened(path, name) as content:
        number = 0
        while line := content.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                raise CorpusError(f"{name}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB")
            if limit and content.total > limit:
                raise CorpusError(f"{name}: more than {limit >> 30} GiB of text; split it")
            watch(content.news())
            if line.strip():
                yield number, line


def first_record(path: Path) -> dict[str, Any] | None:
    """The first object of a file of JSON lines; None for any other file, or one that cannot be read."""
    if not path.name.removesuffix(".gz").endswith(".jsonl") or not path.is_file():
        return None
    try:
        record = json.loads(next(read_lines(path))[1].removeprefix(b"\xef\xbb\xbf"))
    except (StopIteration, ValueError, RecursionError, CorpusError):
        return None
    return record if isinstance(record, dict) else None


def printable(text: str) -> str:
    """A text of somebody else's, safe to show on a terminal: an escape for each character that cannot be seen."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown(path: Path) -> str:
    """How errors call a file."""
    return "standard input" if path == STDIN else str(path)


class Content:
    """What a file holds, unpacked where it is gzipped. Raises `CorpusError` for a decompression bomb."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self.total = 0
        """Bytes that were given out."""
        self._name, self._told = name, 0
        gzipped = raw.peek(2)[:2] == b"\x1f\x8b"  # type: ignore[attr-defined]
        if name.endswith(".gz") and not gzipped:
            raise CorpusError(f"{name}: named .gz, but not gzipped; give it its own name, or pack it with gzip")
        self._packed = _Counted(raw) if gzipped else None
        self._file = raw if self._packed is None else gzip.GzipFile(fileobj=cast("IO[bytes]", self._packed))

    def read(self, size: int) -> bytes:
        return self._checked(self._file.read(size))

    def readline(self, size: int) -> bytes:
        return self._checked(self._file.readline(size))

    def news(self) -> int:
        """How many bytes of the file itself were read since this was asked last."""
        now, before = self.total if self._packed is None else self._packed.count, self._told
        self._told = now
        return now - before

    def _checked(self, content: bytes) -> bytes:
        self.total += len(content)
        if self._packed and self.total > MAX_CORPUS_BYTES and self.total > MAX_RATIO * self._packed.count:
            raise CorpusError(
                f"{self._name}: {self._packed.count:,} bytes of gzip hold more than {self.total:,} of text, which is "
                "no text that somebody packed; unpack it if you know it"
            )
        return content


class _Counted:
    """A file that knows how much of it was read."""

    def __init__(self, raw: BinaryIO) -> None:
        self.count, self._raw = 0, raw

    def read(self, size: int = -1) -> bytes:
        content = self._raw.read(size)
        self.count += len(content)
        return content


@contextmanager
def opened(path: Path, name: str = "") -> Iterator[Content]:
    """A file's content, or that of standard input for `-`. Faults of reading in the block are `CorpusError`s."""
    name = name or shown(path)
    try:
        with nullcontext(standard_input()) if path == STDIN else path.open("rb") as raw:
            yield Content(raw, name)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def standard_input() -> BinaryIO:
    """Raises `CorpusError` where the process was started with none."""
    if sys.stdin is None:
        raise CorpusError("standard input is closed, so there is nothing to read there; name a file")
    return sys.stdin.buffer
