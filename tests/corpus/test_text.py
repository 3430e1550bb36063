"""Text files as documents: a line each, and one clear line for what cannot be read."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from etude.corpus import lines
from etude.corpus.lines import CorpusError
from etude.corpus.text import read_documents, read_text


def read(tmp_path: Path, content: bytes) -> list[str]:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    return read_documents([path])


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (b"emma\nolivia\n", ["emma", "olivia"]),
        (b"  emma \r\n\r\n\t\r\nolivia", ["emma", "olivia"]),
        (b"\xef\xbb\xbfemma\nava\n", ["emma", "ava"]),
        (b"\xef\xbb\xbf\nava\n", ["ava"]),
        ("мария\n李\u2028華\x0b\x85a\n".encode(), ["мария", "李\u2028華\x0b\x85a"]),
        (b"one\rtwo\n", ["one\rtwo"]),
        (b"a", ["a"]),
    ],
)
def test_a_document_a_line(tmp_path: Path, content: bytes, documents: list[str]) -> None:
    assert read(tmp_path, content) == documents
    assert read(tmp_path, gzip.compress(content)) == documents


def test_files_follow_each_other(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text(f"{name}1\n{name}2")
    assert read_documents([tmp_path / "b", tmp_path / "a"]) == ["b1", "b2", "a1", "a2"]
    (tmp_path / "a").write_text("\n")
    with pytest.raises(CorpusError, match="a: no documents in it"):
        read_documents([tmp_path / "b", tmp_path / "a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no documents in it"),
        (b" \n\r\n", "no documents in it"),
        (b"\xef\xbb\xbf", "no documents in it"),
        (b"a\n\nb\xffc\n", r"line 3: not UTF-8 \(byte 2"),
        ("a\nb".encode("utf-16"), "line 1"),
        (b"a\nb\0c\n", "line 2: holds a NUL byte"),
        (b"a\n" + b"b" * (lines.MAX_LINE_BYTES + 1), "line 2: longer than 4 MiB"),
        (gzip.compress(b"a\nb\n")[:-9], "cannot be read"),
    ],
)
def test_what_is_no_text_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "corpus.txt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="No such file"):
        read_documents([tmp_path / "none"])
    with pytest.raises(CorpusError, match="directory"):
        read_documents([tmp_path])


def test_too_much_text_is_refused_however_it_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_CORPUS_BYTES", 1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = packer.compress(b"a\n" * (1 << 20)) + packer.flush()
    for content in (b"a\n" * (1 << 20), bomb):
        with pytest.raises(CorpusError, match="more than"):
            read(tmp_path, content)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_as_one_text_is_what_it_says(tmp_path: Path, packed: bool) -> None:
    path, text = tmp_path / "text", "\n  мария \r\n\n\n李\u2028華"
    content = b"\xef\xbb\xbf" + text.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_text(path) == text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a\n\nab\xff\n", r"line 3: not UTF-8 \(byte 3 of the line\)"),
        (b"a\nb\0\n", "line 2: holds a NUL byte"),
        (b"\x1f\x8bnothing", "cannot be read"),
        (b"12345", "more than 0 GiB"),
    ],
)
def test_a_file_that_is_no_text_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    if content == b"12345":
        monkeypatch.setattr(lines, "MAX_CORPUS_BYTES", 4)
    with pytest.raises(CorpusError, match=words):
        read_text(path)
