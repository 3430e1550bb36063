"""Text files as documents: a line each, and one clear line for what cannot be read."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from pathlib import Path

import pytest

from etude.corpus import lines, text
from etude.corpus.lines import CorpusError
from etude.corpus.text import documents, find_sources, read_documents


def read_text(path: Path) -> str:
    """All of the one document of a file."""
    (source,) = find_sources([path])
    ((name, pieces),) = documents(source)
    assert name == str(path)
    return "".join(pieces)


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
        (gzip.compress(b"a\nb\n", mtime=0)[:-9], "cannot be read"),
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
    with pytest.raises(CorpusError, match="no text in it"):
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
    path, said = tmp_path / "text", "\n  мария \r\n\n\n李\u2028華"
    content = b"\xef\xbb\xbf" + said.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    assert read_text(path) == said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a\n\nab\xff\n", r"line 3: not UTF-8 \(byte 3 of the line\)"),
        (b"a\nb\0\n", "line 2: holds a NUL byte"),
        (b"\x1f\x8bnothing", "cannot be read"),
    ],
)
def test_a_file_that_is_no_text_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        read_text(path)


def test_folders_are_read_in_order_and_what_is_no_text_is_counted(tmp_path: Path) -> None:
    folder, said = tmp_path / "folder", list[str]()
    for name, content in {
        "b.txt": b"b", "a/z.txt": b"z", "a/b/c": "é".encode(), "c.jsonl": b'{"text": "c1"}\n{"text": "c2"}',
        "d.txt.gz": gzip.compress(b"d"), ".hidden": b"x", ".git/config": b"x", "e.png": b"\x89PNG\0", "f.txt": b"\xff",
        "empty": b"", "run/README.md": b"x", "g.gz": b"g", "h.gz": b"\x1f\x8bh", "model/model.safetensors": b"m",
        "model/README.md": b"m", "model/step-1/config.json": b"m", "cut.txt": b"a" * ((1 << 16) - 1) + "é".encode(),
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    sources = find_sources([folder], folder / "run", said.append)
    names = [str(source.path.relative_to(folder)) for source in sources]
    assert names == ["a/b/c", "a/z.txt", "b.txt", "c.jsonl", "cut.txt", "d.txt.gz"]
    assert said == [
        f"{folder}: 6 files of text; skipped 2 hidden and 5 without text in UTF-8 and 1 folders of models and runs"
    ]
    texts = ["".join(pieces) for source in sources for _, pieces in documents(source)]
    assert texts[:4] + texts[5:] == ["é", "z", "b", "c1", "a" * 65535 + "é", "d"]
    assert read_documents([folder], folder / "run")[:5] == ["é", "z", "b", "c1", "c2"]
    assert [each.name for each in find_sources([folder / "a"], folder / "a" / "z.txt")] == [str(folder / "a/b/c")]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(CorpusError, match="nothing: no text in it"):
        find_sources([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ('"text"', 'line 2: not a JSON object with its document as a string "text"'),
        ('{"chords": ["C"]}', "line 2: not a JSON object with"),
        ('{"text": 3}', "line 2: not a JSON object with"),
        ('{"text": "a\\u0000"}', "line 2: its text holds a NUL"),
        ('{"text": "a\\ud800"}', "line 2: its text holds half a surrogate pair"),
    ],
)
def test_a_bad_line_of_json_is_told_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(CorpusError, match=message):
        read_documents([path])
    with pytest.raises(CorpusError, match=message):
        list(documents(find_sources([path])[0]))


def test_standard_input_is_a_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"emma\nava\n", gzip.compress(b"emma\nava\n", mtime=0)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
        assert read_documents([Path("-")]) == ["emma", "ava"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"a\nb\xff"))))
    with pytest.raises(CorpusError, match="standard input, line 2: not UTF-8"):
        read_documents([Path("-")])
    with pytest.raises(CorpusError, match="give - once"):
        find_sources([Path("-"), Path("-")])


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ab\n\nab\xff\n", r"line 3: not UTF-8 \(byte 3 of the line\)"),
        (b"abcdefgh\xff", r"line 1: not UTF-8 \(byte 9 of the line\)"),
        ("ab\néa\u20ac".encode()[:-1], r"line 2: not UTF-8 \(byte 4 of the line\)"),
        (b"a\n\nbc\0\n", "line 3: holds a NUL byte"),
    ],
)
def test_the_place_of_a_fault_does_not_depend_on_how_a_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, content: bytes, words: str
) -> None:
    monkeypatch.setattr(text, "_CHUNK", chunk)
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        read_text(tmp_path / "text")


def test_a_decompression_bomb_is_refused_and_much_text_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_CORPUS_BYTES", 1 << 20)
    bomb, honest = tmp_path / "bomb.gz", tmp_path / "honest.gz"
    bomb.write_bytes(gzip.compress(bytes(8 << 20).replace(b"\0", b"a")))
    with pytest.raises(CorpusError, match=r"bomb.gz: .* bytes of gzip hold more than .* no text that somebody packed"):
        read_text(bomb)
    words = random.Random(0).choices(["over ", "the ", "hills "], k=1 << 19)
    honest.write_bytes(gzip.compress("".join(words).encode(), 1))
    assert read_text(honest) == "".join(words)
    (tmp_path / "plain").write_bytes(b"a" * (2 << 20))
    assert len(read_text(tmp_path / "plain")) == 2 << 20  # streams of text have no limit
