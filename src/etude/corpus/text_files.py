"""Songs as text, into files that training and tokenizers read and out of them again.

Files are JSON lines, with what is known of a song, or plain lines; split on request so that all that shares a `group`
is on one side, whatever the order and the number of songs.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

from etude.files import atomic_write

from .chord_text import ChordText
from .lines import CorpusError, Watch
from .text import documents, find_sources

_HELD_OUT = 10  # one group of so many is for validation
_LONGEST = 16 << 20  # characters of a line; a longer one is given out in parts


def save_texts(path: Path, texts: Iterable[ChordText], split: bool = False) -> dict[Path, int]:
    """Write songs in order, and say how many are in which file; gzipped where the name ends in `.gz`.

    A name that ends in `.jsonl` gets an object a line, `{"text", "title", "artist", "genres", "group"}` of what is
    known; any other a song's text a line. With `split` there are two files, named `.train` and `.valid` before the
    endings, and a tenth of the groups, by the digest of their names, is in the latter. Raises `CorpusError` where there
    is no song for a file, and then writes none.
    """
    paths = file_names(path, split)
    counts = dict.fromkeys(paths, 0)
    with ExitStack() as stack:
        files = {each: _open(stack, each) for each in paths}
        for text in texts:
            side = paths[split and is_held_out(text.group)]
            files[side].write(_line(text, path))
            counts[side] += 1
        empty = [str(each) for each, count in counts.items() if not count]
        if empty:
            raise CorpusError(f"{', '.join(empty)}: no song to write there, so nothing is written")
    return counts


def file_names(path: Path, split: bool = False) -> tuple[Path, ...]:
    """The files that `save_texts` writes."""
    return (path,) if not split else tuple(_beside(path, side) for side in ("train", "valid"))


def read_texts(path: Path, watch: Watch = lambda count: None) -> Iterator[str]:
    """Each song of a file of text, or of a folder of them: a "text" of JSON lines, or a line. Raises `CorpusError`."""
    for source in find_sources([path]):
        for _, pieces in documents(source, watch):
            rest = ""
            for piece in pieces:
                *lines, rest = (rest + piece).split("\n") if not source.is_json else (piece, "")
                yield from filter(str.strip, lines)
                if len(rest) > _LONGEST:
                    yield rest
                    rest = ""
            if rest.strip():
                yield rest


def is_held_out(group: str) -> bool:
    """Whether the songs of a group are for validation."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % _HELD_OUT == 0


def _line(text: ChordText, path: Path) -> bytes:
    if not path.name.removesuffix(".gz").endswith(".jsonl"):
        return f"{text.text}\n".encode()
    known = {name: getattr(text, name) for name in ("text", "title", "artist", "genres", "group")}
    return (json.dumps({k: v for k, v in known.items() if v}, ensure_ascii=False) + "\n").encode()


def _open(stack: ExitStack, path: Path) -> BinaryIO:
    file = stack.enter_context(atomic_write(path))
    if not path.name.endswith(".gz"):
        return file
    # Neither name nor time of day, so that the same songs are the same bytes.
    return cast("BinaryIO", stack.enter_context(gzip.GzipFile("", "wb", fileobj=file, mtime=0)))


def _beside(path: Path, side: str) -> Path:
    """`chords.jsonl.gz` -> `chords.train.jsonl.gz`."""
    stem, dot, endings = path.name.partition(".")
    return path.with_name(f"{stem}.{side}{dot}{endings}")
