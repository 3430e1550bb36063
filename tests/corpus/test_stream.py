"""A corpus as one stream: the same ids however it is read, packed, cut or kept, and one line for what goes wrong."""

from __future__ import annotations

import errno
import gzip
import json
import mmap
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.corpus import stream, text
from etude.corpus.lines import CorpusError
from etude.corpus.stream import IDS, INDEX, Stream, read_stream
from etude.corpus.text import Source, find_sources
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import TextTokenizer, TokenizerError

BYTES = ByteTokenizer()
VERSE = "Over the hills and far away,\n\n\tthe fiddler's  playing; über Berg 日本\U0001f600.\n" * 3


def stream_of(tmp_path: Path, *paths: Path, tokenizer: TextTokenizer = BYTES, bos: int | None = 256) -> Stream:
    return read_stream(find_sources(paths), tokenizer, bos, tokenizer.vocab_size, tmp_path / "run" / "kept")


def write(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8", newline="")
    return path


@pytest.fixture
def verse(tmp_path: Path) -> Path:
    return write(tmp_path / "verse.txt", VERSE)


def test_each_document_is_bos_and_its_tokens(tmp_path: Path) -> None:
    first, songs = (
        write(tmp_path / "a.txt", "ab\n"),
        write(tmp_path / "b.jsonl", '{"text": "c\\n"}\n\n{"text": "dé"}\n'),
    )
    found = stream_of(tmp_path, songs, first)
    assert found.ids.tolist() == [256, *b"c\n", 256, *"dé".encode(), 256, *b"ab\n"]
    assert found.ids.dtype == np.uint16
    assert stream_of(tmp_path, songs, first, bos=None).ids.tolist() == [*b"c\n", *"dé".encode(), *b"ab\n"]
    assert not (tmp_path / "run").exists()  # what is small stays in memory


@pytest.mark.parametrize(("size", "dtype"), [(256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")])
def test_ids_take_as_little_as_their_vocabulary_needs(tmp_path: Path, verse: Path, size: int, dtype: str) -> None:
    characters = CharTokenizer.train([VERSE])
    assert read_stream(find_sources([verse]), characters, None, size, tmp_path / "kept").ids.dtype == dtype


@settings(deadline=None, max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1), st.integers(1, 9))
def test_it_does_not_matter_where_a_text_is_cut(tmp_path_factory: pytest.TempPathFactory, said: str, size: int) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path, packed = write(folder / "said.txt", said), folder / "said.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    tokenizers: list[TextTokenizer] = [CharTokenizer("abé", True), BYTES, CharTokenizer("", True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_CHUNK", size)
        patch.setattr(stream, "_PART", size)
        patch.setattr(stream, "_PARTS", 2)
        for tokenizer in tokenizers:
            for each in (path, packed):
                ids = stream_of(folder, each, tokenizer=tokenizer, bos=tokenizer.bos_id).ids
                assert ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(said)]


def test_bpe_in_parts_gives_the_ids_of_the_whole(
    tmp_path: Path, shared_gpt2: Path, verse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = BPETokenizer.from_path(shared_gpt2)
    for name, size in (("_PART", 5), ("_PARTS", 3)):
        monkeypatch.setattr(stream, name, size)
    monkeypatch.setattr(text, "_CHUNK", 7)
    found = stream_of(tmp_path, verse, tokenizer=tokenizer, bos=tokenizer.bos_id)
    assert found.ids.tolist() == [50256, *tokenizer.encode(VERSE)]


def test_a_text_without_a_place_to_cut_is_cut_all_the_same(
    tmp_path: Path, shared_gpt2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_MAX_PART", 32)
    monkeypatch.setattr(text, "_CHUNK", 16)
    tokenizer = BPETokenizer.from_path(shared_gpt2)
    ids = stream_of(tmp_path, write(tmp_path / "x", "ab" * 100), tokenizer=tokenizer, bos=None).ids.tolist()
    assert tokenizer.decode(ids) == "ab" * 100


class TestKept:
    """Streams that are too large for memory."""

    @pytest.fixture(autouse=True)
    def _little_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stream, "MAX_MEMORY", 64)
        monkeypatch.setattr(stream, "_PART", 10)
        monkeypatch.setattr(stream, "_PARTS", 2)

    def test_they_are_mapped_from_a_file_and_the_same(self, tmp_path: Path, verse: Path) -> None:
        found, folder = stream_of(tmp_path, verse), tmp_path / "run" / "kept"
        assert isinstance(memoryview(cast("Any", found.ids.base)).obj, mmap.mmap)
        assert not found.ids.flags.writeable
        assert found.ids.tolist() == [256, *VERSE.encode()]
        assert sorted(path.name for path in folder.iterdir()) == [IDS, INDEX]
        assert [path.name for path in folder.parent.iterdir()] == ["kept"]
        index = json.loads((folder / INDEX).read_text())
        assert (index["tokens"], index["dtype"], index["digest"]) == (len(found.ids), "uint16", found.digest)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "MAX_MEMORY", 1 << 20)
            assert read_stream(find_sources([verse]), BYTES, 256, 257, tmp_path / "other").digest == found.digest

    def test_what_is_released_is_out_of_memory_and_comes_again(self, tmp_path: Path) -> None:
        if not Path("/proc/self/smaps").exists():
            pytest.skip("memory is counted in /proc/self/smaps, which is not here")
        line = "Over the hills and far away.\n"
        found = stream_of(tmp_path, write(tmp_path / "long.txt", line * 20_000))

        def resident() -> int:
            """KiB of the file that are in this process's memory."""
            after = Path("/proc/self/smaps").read_text().split(str(tmp_path))[1:]
            return sum(int(part.split("Rss:")[1].split()[0]) for part in after)

        total = int(found.ids[: 1 << 18].sum())
        assert resident() > 256
        stream.release(found.ids[10:20])
        assert resident() == 0
        assert int(found.ids[: 1 << 18].sum()) == total
        stream.release(np.arange(3))  # in memory already, and stays

    def test_what_is_kept_is_used_at_once_while_its_sources_stay(
        self, tmp_path: Path, verse: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = stream_of(tmp_path, verse)
        with monkeypatch.context() as patch:
            patch.setattr(stream, "_encode", None)  # nothing is read again
            again = stream_of(tmp_path, verse)
        assert (again.ids == found.ids).all() and again.digest == found.digest
        os.utime(verse, ns=(1, 1))  # touched, but the same
        assert stream_of(tmp_path, verse).digest == found.digest
        with monkeypatch.context() as patch:
            patch.setattr(stream, "_encode", None)
            stream_of(tmp_path, verse)
        write(verse, VERSE[::-1])
        with pytest.raises(CorpusError, match="the tokens of another corpus"):
            stream_of(tmp_path, verse)
        write(verse, VERSE)
        assert stream_of(tmp_path, verse).ids.tolist() == found.ids.tolist()  # they were not lost

    @pytest.mark.parametrize("damage", ["cut", "index", "none"])
    def test_what_is_damaged_is_read_again(self, tmp_path: Path, verse: Path, damage: str) -> None:
        found, folder = stream_of(tmp_path, verse), tmp_path / "run" / "kept"
        whole = found.ids.tolist()
        del found
        if damage == "cut":
            (folder / IDS).write_bytes((folder / IDS).read_bytes()[:-2])
        elif damage == "index":
            (folder / INDEX).write_text("{")
        else:
            (folder / IDS).unlink()
        assert stream_of(tmp_path, verse).ids.tolist() == whole

    def test_a_fault_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(text, "_CHUNK", 16)  # so that much is written before
        path = tmp_path / "verse.txt"
        path.write_bytes(VERSE.encode() + b"\xff")
        with pytest.raises(CorpusError, match=r"verse.txt, line 10: not UTF-8 \(byte 1 of the line\)"):
            stream_of(tmp_path, path)
        assert list((tmp_path / "run").iterdir()) == []

    def test_a_disk_without_room_is_one_line_and_loses_nothing(
        self, tmp_path: Path, verse: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(CorpusError, match=r"kept: no room for the tokens .*; make room") as caught:
                stream_of(tmp_path, verse)
        assert "\n" not in str(caught.value)
        assert list((tmp_path / "run").iterdir()) == []
        assert stream_of(tmp_path, verse).ids.tolist() == [256, *VERSE.encode()]

    def test_what_cannot_be_read_again_is_kept_however_small(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stream, "MAX_MEMORY", 1 << 20)
        os.mkfifo(tmp_path / "pipe")
        source = Source(tmp_path / "pipe", "pipe", once=True)
        assert find_sources([tmp_path / "pipe"]) == [Source(tmp_path / "pipe", str(tmp_path / "pipe"), once=True)]
        if not os.fork():  # who writes into it
            (tmp_path / "pipe").write_text(VERSE, encoding="utf-8")
            os._exit(0)
        found = read_stream([source], BYTES, 256, 257, tmp_path / "kept")
        os.wait()
        assert found.ids.tolist() == [256, *VERSE.encode()]
        assert read_stream([source], BYTES, 256, 257, tmp_path / "kept").digest == found.digest  # nobody writes now


def test_what_a_tokenizer_cannot_say_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = CharTokenizer("\nab")
    path = write(tmp_path / "x.jsonl", '{"text": "ab"}\n{"text": "abxb"}\n')
    with pytest.raises(TokenizerError, match=r"x.jsonl, line 2: 'x' \(character 3 of 'abxb'\)"):
        stream_of(tmp_path, path, tokenizer=letters, bos=3)
    monkeypatch.setattr(stream, "_PART", 4)
    with pytest.raises(TokenizerError, match=r"y.txt, from character 5 on: 'x' \(character 2 of 'ax\\nb'\)"):
        stream_of(tmp_path, write(tmp_path / "y.txt", "ababax\nb"), tokenizer=letters, bos=3)
