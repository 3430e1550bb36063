"""Text from UTF-8 files, plain or gzipped: one document a line, or each file as it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .lines import CorpusError, read_bytes, read_lines


def read_documents(paths: Iterable[Path]) -> list[str]:
    """Every line of every file, stripped; blank ones are left out. Raises `CorpusError`."""
    documents: list[str] = []
    for path in paths:
        before = len(documents)
        for number, line in read_lines(path):
            if b"\0" in line:
                raise CorpusError(f"{path}, line {number}: holds a NUL byte, so it is no text; save it as UTF-8")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{path}, line {number}: not UTF-8 (byte {error.start + 1} of the line); save it as UTF-8"
                ) from error
            if text:
                documents.append(text)
        if len(documents) == before:
            raise CorpusError(f"{path}: no documents in it; put one on each line")
    return documents


def read_text(path: Path) -> str:
    """All of a file, blank lines and ends of lines as they are. Raises `CorpusError`."""
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        at = error.start - content.rfind(b"\n", 0, error.start)
        raise CorpusError(f"{path}, line {line}: not UTF-8 (byte {at} of the line); save it as UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise CorpusError(f"{path}, line {line}: holds a NUL byte, so it is no text; save it as UTF-8")
    if not text:
        raise CorpusError(f"{path}: empty; name a file with text in it")
    return text
