"""Text as documents, from UTF-8 files, folders of them, JSON lines and standard input, plain or gzipped.

A line of `.jsonl` is an object whose "text" is a document. Of other files the whole is one document (`documents`, in
pieces, so that memory does not grow with it), or each line is (`read_documents`).
"""

from __future__ import annotations

import json
import os
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .lines import STDIN, CorpusError, Watch, opened, read_lines, shown

_CHUNK = 1 << 20
_HEAD = 1 << 16  # bytes of a file in a folder that show whether it is text
_WEIGHTS = {"model.safetensors", "checkpoint.safetensors"}  # one of them is in every folder of a model or a run


@dataclass(frozen=True, slots=True)
class Source:
    """A file of text, or standard input. `name` is what errors call it."""

    path: Path
    name: str
    once: bool = False
    """Whether it cannot be read again: standard input, or a pipe with a name."""

    @property
    def is_json(self) -> bool:
        """Whether each line is a JSON object."""
        return self.path.name.removesuffix(".gz").endswith(".jsonl")


def find_sources(
    paths: Iterable[Path], leave_out: Path | None = None, say: Callable[[str], None] = lambda message: None
) -> list[Source]:
    """The files that are named, and those in the folders that are, in the order of their names, all levels down.

    In a folder hidden files, those that are no text, and folders of models and runs are skipped, and `say` tells how
    many; so is `leave_out`, a file or a folder. Raises `CorpusError`.
    """
    sources: list[Source] = []
    for path in paths:
        if path.is_dir():
            sources += _in_folder(path, leave_out, say)
        elif path != STDIN and not path.exists():
            raise CorpusError(f"{path}: cannot be read (No such file or directory)")
        else:
            sources.append(Source(path, shown(path), path == STDIN or not path.is_file()))
    if sum(source.path == STDIN for source in sources) > 1:
        raise CorpusError("standard input can be read once; give - once")
    return sources


def documents(source: Source, watch: Watch = lambda count: None) -> Iterator[tuple[str, Iterator[str]]]:
    """Each document: what errors call it, and its text in pieces. Raises `CorpusError`."""
    if not source.is_json:
        yield source.name, _text(source, watch)
        return
    for where, text in _json_documents(source, 0, watch):
        yield where, iter((text,))


def read_documents(
    paths: Iterable[Path], leave_out: Path | None = None, say: Callable[[str], None] = lambda message: None
) -> list[str]:
    """Every line of every file, or every document of JSON lines, stripped; blank ones are left out.

    Takes and raises what `find_sources` does.
    """
    found: list[str] = []
    for source in find_sources(paths, leave_out, say):
        before = len(found)
        if source.is_json:
            found += filter(None, (text.strip() for _, text in _json_documents(source)))
        else:
            found += filter(None, (text.strip() for text in _lines(source)))
        if len(found) == before:
            raise CorpusError(f"{source.name}: no documents in it; put one on each line")
    return found


def _in_folder(folder: Path, leave_out: Path | None, say: Callable[[str], None]) -> list[Source]:
    found, hidden, others, models = list[Path](), 0, 0, 0
    left_out = None if leave_out is None else leave_out.resolve()
    if folder.resolve() == left_out:
        raise CorpusError(f"{folder}: is where the run itself is to be; choose another folder for one of the two")
    for root, folders, names in os.walk(folder, onerror=_unreadable):
        hidden += sum(name.startswith(".") for name in (*folders, *names))
        folders[:] = [
            name for name in folders if not name.startswith(".") and (Path(root) / name).resolve() != left_out
        ]
        if _WEIGHTS & {*names}:  # their cards, samples and tokenizers are no corpus
            models += 1
            folders.clear()
            continue
        for name in names:
            path = Path(root) / name
            if name.startswith(".") or path.resolve() == left_out:
                continue
            if path.is_file() and _is_text(path):
                found.append(path)
            else:
                others += 1
    if not found:
        raise CorpusError(f"{folder}: no text in it; name a folder with files of UTF-8 text or JSON lines")
    counts = ((hidden, "hidden"), (others, "without text in UTF-8"), (models, "folders of models and runs"))
    skipped = [f"{count:,} {what}" for count, what in counts if count]
    say(f"{folder}: {len(found):,} files of text" + (f"; skipped {' and '.join(skipped)}" if skipped else ""))
    return [Source(path, str(path)) for path in sorted(found, key=lambda path: path.parts)]


def _unreadable(error: OSError) -> None:
    raise CorpusError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _is_text(path: Path) -> bool:
    """By its beginning. A file that is packed, or named so, and cannot be unpacked is none."""
    try:
        with opened(path) as content:
            head = content.read(_HEAD)
    except CorpusError:
        if os.access(path, os.R_OK):
            return False
        raise
    try:
        return b"\0" not in head and bool(getincrementaldecoder("utf-8-sig")().decode(head))
    except UnicodeDecodeError:
        return False


def _text(source: Source, watch: Watch) -> Iterator[str]:
    """All of a file in pieces, blank lines and ends of lines as they are."""
    decoder, begun = getincrementaldecoder("utf-8")(), False
    newlines, column = 0, 0  # in the file before the chunk, and the bytes since the last of them
    with opened(source.path, source.name) as content:
        while True:
            chunk = content.read(_CHUNK)
            watch(content.news())
            at, wrong = chunk.find(b"\0"), "holds a NUL byte, so it is no text"
            waiting = len(decoder.getstate()[0])
            try:
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = error.start - waiting
                last = chunk.rfind(b"\n", 0, max(0, at))
                wrong = f"not UTF-8 (byte {at - last if last >= 0 else column + at + 1} of the line)"
                text = ""
            if wrong.startswith("not") or at >= 0:
                line = newlines + chunk.count(b"\n", 0, max(0, at)) + 1
                raise CorpusError(f"{source.name}, line {line}: {wrong}; save it as UTF-8")
            if not begun:
                text = text.removeprefix("\ufeff")
            begun = begun or bool(text)
            if text:
                yield text
            if not chunk:
                break
            newlines, last = newlines + chunk.count(b"\n"), chunk.rfind(b"\n")
            column = len(chunk) - last - 1 if last >= 0 else column + len(chunk)
    if not begun:
        raise CorpusError(f"{source.name}: empty; name a file with text in it")


def _lines(source: Source) -> Iterator[str]:
    for number, line in read_lines(source.path, source.name):
        where = f"{source.name}, line {number}"
        if b"\0" in line:
            raise CorpusError(f"{where}: holds a NUL byte, so it is no text; save it as UTF-8")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(f"{where}: not UTF-8 (byte {error.start + 1} of the line); save it as UTF-8") from error


def _json_documents(
    source: Source, limit: int | None = None, watch: Watch = lambda count: None
) -> Iterator[tuple[str, str]]:
    """Where each document stands, and the document; empty ones are left out."""
    any_text = False
    for number, line in read_lines(source.path, source.name, limit, watch):
        where = f"{source.name}, line {number}"
        try:
            record = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: not JSON ({error})") from error
        text = record.get("text") if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise CorpusError(f'{where}: not a JSON object with its document as a string "text"')
        if "\0" in text:
            raise CorpusError(f"{where}: its text holds a NUL, so it is no text")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise CorpusError(f"{where}: its text holds half a surrogate pair, which is no character")
        if text:
            any_text = True
            yield where, text
    if not any_text:
        raise CorpusError(f"{source.name}: no documents in it; put one on each line")
