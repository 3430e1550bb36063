"""A corpus as one stream of ids: in memory where it is small, in a file that is mapped where it is large.

Of each document BOS, where there is one, and its tokens. All is read and encoded in pieces, so memory does not grow
with the corpus; its digest is computed on the way.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from etude.files import NO_ROOM, atomic_directory, atomic_write
from etude.tokens.tokenizer import Ids, TextTokenizer, TokenizerError, in_parts

from .lines import STDIN, CorpusError, Watch, standard_input
from .text import Source, documents

IDS, INDEX = "ids.bin", "index.json"
MAX_MEMORY = 64 << 20  # bytes of ids; of more, all are in a file
_PART, _PARTS = 1 << 16, 64  # characters that are encoded together, and of how many such parts at once
_MAX_DOCUMENTS = 1 << 14  # likewise, where they are short
_MAX_PART = 16 << 20  # characters; a text without a place to cut for so long is cut all the same
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Stream:
    """Ids [n], not to be written to, and the digest of them."""

    ids: Ids
    digest: str


class Part(NamedTuple):
    """Some of a document: what errors call that, and how many of its characters come before."""

    where: str
    at: int
    text: str


def read_stream(
    sources: Sequence[Source],
    tokenizer: TextTokenizer,
    bos: int | None,
    vocab_size: int,
    folder: Path,
    watch: Watch = lambda count: None,
) -> Stream:
    """The stream of some sources, in the smallest type that holds `vocab_size` ids.

    What is large, or cannot be read again, is kept in `folder`, which is whole or not there; what is kept there of the
    same sources, unchanged, is used at once. Raises `CorpusError`, also where sources are others than those of what is
    kept, or `TokenizerError`.
    """
    described = [_described(source) for source in sources]
    reader = hashlib.sha256(tokenizer.to_json().encode()).hexdigest()
    kept = _kept(folder, reader)
    if kept is not None and kept[0] == described:
        return kept[1]
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or of another tokenizer
    dtype = np.min_scalar_type(vocab_size - 1)
    digest, count, parts, size = hashlib.sha256(), 0, list[Ids](), 0
    most = MAX_MEMORY if not any(source.once for source in sources) else 0
    with _room(folder), ExitStack() as stack:
        file: BinaryIO | None = None
        for ids in _encode(sources, tokenizer, bos, dtype, watch):
            digest.update(ids.data)
            count += len(ids)
            if kept is not None:  # it need only be the same
                continue
            if file is not None:
                file.write(ids.data)
                continue
            parts.append(ids)
            size += ids.nbytes
            if size > most:
                new = stack.enter_context(atomic_directory(folder))
                file = stack.enter_context(atomic_write(new / IDS))
                while parts:
                    file.write(parts.pop(0).data)
        if kept is not None and kept[1].digest != digest.hexdigest():
            raise CorpusError(f"{folder}: holds the tokens of another corpus; name the same files")
        if file is None and kept is None:
            return Stream(np.concatenate(parts), digest.hexdigest())
        index = {
            "version": 1,
            "sources": described,
            "tokenizer": reader,
            "dtype": dtype.name,
            "tokens": count,
            "digest": digest.hexdigest(),
        }
        with atomic_write((folder if kept is not None else new) / INDEX) as written:
            written.write((json.dumps(index, indent=1) + "\n").encode())
    again = _kept(folder, reader)
    assert again is not None
    return again[1]


def read_ids(sources: Sequence[Source], tokenizer: TextTokenizer, bos: int | None, vocab_size: int) -> Ids:
    """The ids of `read_stream` [n], in memory however many they are. Raises `CorpusError` or `TokenizerError`."""
    dtype = np.min_scalar_type(vocab_size - 1)
    return np.concatenate(list(_encode(sources, tokenizer, bos, dtype, lambda count: None)))


def release(ids: Ids) -> None:
    """Take the pages of a mapped stream, or of a part of one, out of this process's memory; they come again when read.

    A window that is drawn maps up to 2 MB around it, so in time all of the file would be counted as memory in use.
    """
    owner: object = ids
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def spool(source: Source, folder: Path, watch: Watch = lambda count: None, number: int = 1) -> Source:
    """What can be read once, as a file of its `number` in a folder, to be read twice; a file stays what it is."""
    if not source.once:
        return source
    path = folder / f"spool-{number}-{source.path.name}"  # whose ending says what it is
    with _room(folder), nullcontext(standard_input()) if source.path == STDIN else source.path.open("rb") as raw:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            while chunk := raw.read(_CHUNK):
                file.write(chunk)
                watch(0)
    return Source(path, source.name, once=True)


def _described(source: Source) -> list[str | int]:
    """What changes where a file does. What cannot be read again does not."""
    if source.once:
        return [source.name]
    try:
        found = source.path.stat()
    except OSError as error:
        raise CorpusError(f"{source.name}: cannot be read ({error.strerror})") from error
    return [str(source.path.resolve()), found.st_size, found.st_mtime_ns]


def _kept(folder: Path, reader: str) -> tuple[object, Stream] | None:
    """What is kept in a folder, and of which sources; None where there is nothing whole of this tokenizer."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        if (index["version"], index["tokenizer"]) != (1, reader):
            return None
        with (folder / IDS).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):  # else a disk reads far more than a window
            mapped.madvise(mmap.MADV_RANDOM)
        ids = np.frombuffer(mapped, np.dtype(index["dtype"]))
        if len(ids) != index["tokens"]:
            return None
        return index["sources"], Stream(ids, str(index["digest"]))
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None


def _encode(
    sources: Sequence[Source], tokenizer: TextTokenizer, bos: int | None, dtype: np.dtype[np.integer], watch: Watch
) -> Iterator[Ids]:
    """The stream, a batch of parts at a time."""
    begin = np.array([] if bos is None else [bos], dtype)
    for batch in _batches(sources, tokenizer, watch):
        try:
            encoded = tokenizer.encode_arrays([part.text for part in batch])
        except TokenizerError:
            _tell_fault(batch, tokenizer)
            raise
        pieces = list[Ids]()
        for part, ids in zip(batch, encoded, strict=True):
            pieces += [ids] if part.at else [begin, ids]
        yield np.concatenate(pieces, dtype=dtype, casting="unsafe")  # [n]


def _tell_fault(batch: Sequence[Part], tokenizer: TextTokenizer) -> None:
    for part in batch:
        try:
            tokenizer.encode_arrays([part.text])
        except TokenizerError as error:
            where = f"{part.where}, from character {part.at + 1:,} on" if part.at else part.where
            raise TokenizerError(f"{where}: {error}") from error


def _batches(sources: Sequence[Source], tokenizer: TextTokenizer, watch: Watch) -> Iterator[list[Part]]:
    batch, size = list[Part](), 0
    for source in sources:
        for where, pieces in documents(source, watch):
            for part in _parts(where, pieces, tokenizer):
                batch.append(part)
                size += len(part.text)
                if size >= _PART * _PARTS or len(batch) >= _MAX_DOCUMENTS:
                    yield batch
                    batch, size = [], 0
    if batch:
        yield batch


def _parts(where: str, pieces: Iterator[str], tokenizer: TextTokenizer) -> Iterator[Part]:
    """A document cut where its tokens stay the same."""
    at = 0
    for text in in_parts(pieces, tokenizer.cut, _PART, _MAX_PART):
        yield Part(where, at, text)
        at += len(text)


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """A disk that is full, as one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise CorpusError(
            f"{folder}: no room for the tokens of the corpus ({error.strerror}); make room, or choose another folder; "
            "nothing was left there"
        ) from error
