"""Songs as files of text: the same bytes each time, and no song on both sides of a split."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from etude.corpus.chord_text import ChordText
from etude.corpus.lines import CorpusError
from etude.corpus.text import read_documents
from etude.corpus.text_files import is_held_out, save_texts

TEXTS = [ChordText(f"C G{number % 10}", f"Café {number}", group=f"song {number // 2}") for number in range(200)]


def test_lines_and_json_lines(tmp_path: Path) -> None:
    assert save_texts(tmp_path / "a.txt", TEXTS[:2]) == {tmp_path / "a.txt": 2}
    assert (tmp_path / "a.txt").read_bytes() == b"C G0\nC G1\n"
    save_texts(tmp_path / "a.jsonl", TEXTS[:2])
    records = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert records[1] == {"text": "C G1", "title": "Café 1", "group": "song 0"}
    for name in ("a.txt", "a.jsonl"):
        assert read_documents([tmp_path / name]) == ["C G0", "C G1"]


def test_gzipped_files_are_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        save_texts(tmp_path / name, TEXTS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert read_documents([tmp_path / "a.jsonl.gz"]) == [text.text for text in TEXTS]
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).count(b"\n") == len(TEXTS)


def test_versions_of_a_song_stay_on_one_side(tmp_path: Path) -> None:
    counts = save_texts(tmp_path / "a.jsonl", TEXTS, split=True)
    sides = {}
    for side in ("train", "valid"):
        path = tmp_path / f"a.{side}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines()
        assert counts[path] == len(lines)
        sides[side] = [json.loads(line) for line in lines]
    groups = {side: {record["group"] for record in records} for side, records in sides.items()}
    assert not groups["train"] & groups["valid"]
    assert 2 <= len(groups["valid"]) <= 20
    # In order, nothing lost, and where a song goes does not depend on the others.
    titles = [record["title"] for record in sides["train"]]
    assert titles == [text.title for text in TEXTS if not is_held_out(text.group)]
    assert sorted(record["title"] for side in sides.values() for record in side) == sorted(text.title for text in TEXTS)


@pytest.mark.parametrize(("texts", "split"), [([], False), (TEXTS[:1], True)])
def test_an_empty_file_is_an_error_and_leaves_nothing(tmp_path: Path, texts: list[ChordText], split: bool) -> None:
    with pytest.raises(CorpusError, match="no song to write there"):
        save_texts(tmp_path / "a.jsonl", texts, split)
    assert list(tmp_path.iterdir()) == []
