"""`etude chart`, and what `etude eval` says of chords written as text."""

from __future__ import annotations

import gzip
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from etude.cli.app import main
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.tokens.characters import CharTokenizer


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


Etude = Callable[..., Result]


@pytest.fixture
def etude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Etude]:
    """The command, in this process and in a folder of its own."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["etude", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


def fails(result: Result, status: int, *words: str) -> None:
    """One line says the fault, and holds `words`."""
    assert result.returncode == status and result.stdout == "" and "Traceback" not in result.stderr, result.stderr
    assert result.stderr.splitlines()[-1].startswith("etude: ")
    for word in words:
        assert word in result.stderr


@pytest.fixture
def text_model(tmp_path: Path) -> Path:
    """Random weights that read chords as characters."""
    tokenizer = CharTokenizer("".join(sorted("#/.0123456789ABCDEFGNabdimsu ")))
    config = GPTConfig(
        "gpt2", tokenizer.vocab_size, block_size=64, n_layer=1, n_head=2, n_embd=8, bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.bos_id,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "text-model", config, weights, tokenizer, "# A model\n")
    return tmp_path / "text-model"


def test_songs_as_text(etude: Etude, songs_file: Path, tmp_path: Path) -> None:
    result = etude("chart", "text", songs_file, "-o", "a.jsonl.gz", "--keys", "all")
    assert (
        result.returncode == 0 and "a.jsonl.gz: 3 songs in 12 keys, 36 texts" in result.stderr and result.stdout == ""
    )
    lines = gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode().splitlines()
    assert json.loads(lines[0]) == {"text": "D A Bm G D A7 D", "title": "a", "genres": "pop", "group": "1"}
    again = etude("chart", "text", songs_file, "-o", "b.txt", "--style", "people", "--json")
    assert json.loads(again.stdout) == {"files": [{"path": "b.txt", "texts": 3, "songs": 3}], "skipped": []}
    assert len((tmp_path / "b.txt").read_text().splitlines()) == 3


def test_songs_of_chord_sites(etude: Etude, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "artist_name,song_name,chords&lyrics,chords,genres\n"
        "A,x,?,\"{2: 'Am  G', 1: 'Intro: C'}\",['pop']\n"
        "B,y,?,\"{1: open('here', 'w')}\",['pop']\n"
    )
    result = etude("chart", "text", "a.csv", "-o", "a.jsonl")
    assert "skipped 1 rows: chords not the text of a dict of lines (first: a.csv, line 3)" in result.stderr
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {
        "text": "Intro: C Am G", "title": "x", "artist": "A", "genres": "pop", "group": "x",
    }  # fmt: skip
    assert not (tmp_path / "here").exists()
    fails(etude("chart", "text", "a.csv", "-o", "b.jsonl", "--keys", "all"), 2, "is text already")
    fails(etude("chart", "text", "a.csv", "-o", "b.jsonl", "--split"), 1, "no song to write there")
    fails(etude("chart", "text", "none.csv", "-o", "b.jsonl"), 1, "none.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.jsonl"]


def test_a_report_of_words(etude: Etude, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Intro: C Am [/b] G (2x)\n\nC x32010 D4\nhello\n")
    document = json.loads(etude("chart", "report", "a.txt", "--json").stdout)
    assert (document["texts"], document["words"], document["skipped"]) == (3, 10, [])
    assert {kind: found["words"] for kind, found in document["kinds"].items()} == {
        "chord": 4, "unread": 1, "section": 2, "repeat": 1, "bar": 0, "fingering": 1, "tablature": 0, "other": 1,
    }  # fmt: skip
    shown = etude("chart", "report", "a.txt").stdout
    assert "10 words in 3 texts" in shown and "[/b]" in shown and "40.00%" in shown
    fails(etude("chart", "report", "none.txt"), 1, "none.txt")


def test_chords_of_a_model_of_text(etude: Etude, text_model: Path, songs_file: Path, tmp_path: Path) -> None:
    result = etude("eval", text_model, songs_file, "--json")
    document = json.loads(result.stdout)
    assert list(document) == [
        "changes", "top1", "top3", "top5", "nats_per_chord", "nats_per_character", "first", "repeat", "baselines",
    ]  # fmt: skip
    assert document["changes"] == 19  # every one but the first of each song
    assert next(iter(document["baselines"])) == "chords" and "5-gram + song" in document["baselines"]
    beside = document["baselines"]["chords"]
    assert beside == {
        k: v for k, v in json.loads(etude("eval", "chords", songs_file, "--json").stdout).items() if k != "baselines"
    }
    assert document["nats_per_chord"]["value"] > beside["nats_per_chord"]["value"]
    table = etude("eval", text_model, songs_file, "--songs", "1", "--no-baselines").stdout
    assert "next chord" in table and " 6 " in table
    fails(etude("eval", text_model, songs_file, "--engine", "tensor"), 2, "engine array")
    fails(etude("eval", text_model, songs_file, "--block-size", "99"), 1, "2 to 64 tokens")
    (tmp_path / "a.txt").write_text("C G Am F")
    fails(etude("eval", text_model, tmp_path / "a.txt", "--songs", "1"), 2, "--songs is for files of songs")
    assert "nats_per_token" in json.loads(etude("eval", text_model, tmp_path / "a.txt", "--json").stdout)


def test_what_is_read_is_not_replaced(etude: Etude, songs_file: Path, tmp_path: Path) -> None:
    before = songs_file.read_bytes()
    fails(etude("chart", "text", songs_file, "-o", songs_file), 1, "is read from and would be replaced")
    fails(etude("tokens", "train", songs_file, "-o", songs_file), 1, "is read from and would be replaced")
    (tmp_path / "a.train.jsonl").write_bytes(before)
    fails(etude("chart", "text", "a.train.jsonl", "-o", "a.jsonl", "--split"), 1, "a.train.jsonl: is read from")
    assert songs_file.read_bytes() == before == (tmp_path / "a.train.jsonl").read_bytes()
