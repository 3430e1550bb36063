"""Lines of files from outside, plain or gzipped, within limits: every corpus is read through here."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from etude.errors import EtudeError

MAX_LINE_BYTES = 4 << 20
MAX_CORPUS_BYTES = 1 << 30


class CorpusError(EtudeError):
    """A corpus that cannot be read; the message names the file, the line and the fault."""


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""The number and bytes of every line that is not blank; lines end at `\n` alone. Raises `CorpusError`."""
    total = 0
    with _opened(path) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            total += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise CorpusError(f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB")
            if total > MAX_CORPUS_BYTES:
                raise _too_large(path)
            if line.strip():
                yield number, line


def read_bytes(path: Path) -> bytes:
    """All of a file as it is. Raises `CorpusError`."""
    with _opened(path) as stream:
        content = stream.read(MAX_CORPUS_BYTES + 1)
    if len(content) > MAX_CORPUS_BYTES:
        raise _too_large(path)
    return content


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """What a file holds, unpacked where it is gzipped."""
    try:
        with path.open("rb") as raw:
            gzipped = raw.peek(2)[:2] == b"\x1f\x8b"
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if gzipped else raw)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _too_large(path: Path) -> CorpusError:
    return CorpusError(f"{path}: more than {MAX_CORPUS_BYTES >> 30} GiB of text; split it")
