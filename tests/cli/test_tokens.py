"""`etude tokens` as people and programs call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import BufferedReader, BytesIO, TextIOWrapper
from pathlib import Path
from typing import Protocol

import pytest

from etude.cli import main
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_training import train_bpe

LINE = "Intro: Adim G7/13 Em Bb (4x) G#dim Bm/C F#m Ab|---------------------------------| (Bridge) C G Em7 Asus4"
TEXT = "Verse: Adim Bb Bm/C Em7 G#dim F#m Ab | Asus4 G7/13 Em (4x)\nIntro: C G Adim Bb Ab Bm\n" * 3


class Tokens(Protocol):
    def __call__(self, *arguments: str | Path, given: str = "") -> tuple[int, str, str]: ...


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tokens:
    """Runs the command in this process: its exit status, standard output and standard error."""

    def run(*arguments: str | Path, given: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["etude", "tokens", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BufferedReader(BytesIO(given.encode()))))
        monkeypatch.setattr(signal, "signal", lambda *each: None)
        with pytest.raises(SystemExit) as stopped:
            main()
        return (int(stopped.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of chord text."""
    path = tmp_path_factory.mktemp("tokenizer") / "chords-bpe.json"
    path.write_text(train_bpe([[TEXT]], 400, "chords").text, encoding="utf-8")
    return path


def test_it_is_learnt_from_standard_input_too(tmp_path: Path, trained: Path, tokens: Tokens) -> None:
    path = tmp_path / "t.json"
    status, out, err = tokens("train", "-", "-o", path, "--vocab-size", "400", "--pattern", "chords", given=TEXT)
    assert (status, out) == (0, "")
    assert "no pair of tokens is left that occurs twice" in err and f"{path}: " in err
    assert path.read_bytes() == trained.read_bytes()


def test_what_was_learnt_is_shown(trained: Path, tokens: Tokens) -> None:
    status, out, err = tokens("show", trained, LINE)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["#", "id", "token", "bytes"]
    rows = [line.split() for line in lines[1:] if line and line.split()[0].isdigit() and not line.endswith("text")]
    assert " ".join(" ".join(row[3:]) for row in rows) == LINE.encode().hex(" ")
    shown = [row[2] for row in rows]
    assert {"␣Adim", "␣Bb", "␣Bm", "␣Ab"} <= set(shown)
    assert f"{len(rows)} tokens of " in lines[-1] and "104 characters (104 bytes); decoded: the same text" in lines[-1]
    verbose = tokens("show", trained, "-", "-v", given="Adim Bb\n")[1]
    assert "␣·B·b → ␣B·b → ␣Bb" in verbose or "␣·B·b → ␣·Bb → ␣Bb" in verbose


def test_the_document_of_show(trained: Path, tokens: Tokens) -> None:
    found = json.loads(tokens("show", trained, "Bb é", "--json")[1])
    assert (found["kind"], found["anchor"], found["exact"], found["text"]) == ("bpe", None, True, "Bb é")
    assert bytes.fromhex("".join(token["bytes"] for token in found["tokens"])).decode() == "Bb é"
    assert [token["id"] for token in found["tokens"]] == BPETokenizer.from_path(trained).encode("Bb é")
    (bundled, other) = (json.loads(tokens("show", "chords", text, "--json")[1]) for text in ("D A Bm", "F C Dm"))
    assert [token["text"] for token in bundled["tokens"]] == ["<song>", "D", "A", "Bm"]
    assert (bundled["anchor"], other["anchor"]) == ("D", "F")
    assert [token["id"] for token in bundled["tokens"]] == [token["id"] for token in other["tokens"]]


def test_chords_that_have_no_token_are_told(tokens: Tokens) -> None:
    status, out, err = tokens("show", "chords", "C Am11b13 F", "-v")
    assert status == 0 and "no token for Am11b13" in err
    assert "counted from the anchor C" in out and "nothing is merged" in out


def test_every_kind_is_written_and_read(tmp_path: Path, text_file: Path, songs_file: Path, tokens: Tokens) -> None:
    for kind, corpus in (("char", text_file), ("plain", text_file), ("byte", text_file), ("chord", songs_file)):
        path = tmp_path / f"{kind}.json"
        made = json.loads(tokens("train", corpus, "-o", path, "--kind", kind, "--json")[1])
        assert (made["tokenizer"] == str(path) and made["vocab_size"] > 100) or kind == "plain"
        found = json.loads(tokens("show", path, "A Bb", "--json")[1])
        assert (found["vocab_size"], found["exact"]) == (made["vocab_size"], True)


def test_a_comparison(tmp_path: Path, trained: Path, songs_file: Path, text_file: Path, tokens: Tokens) -> None:
    folder = tmp_path / "chords-bpe"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(trained.read_bytes())
    picture = tmp_path / "p.svg"
    same = (trained, folder, folder / "tokenizer.json", "chords")
    status, out, err = tokens("compare", *same, "--on", songs_file, "--plot", picture, "--json")
    assert (status, err) == (0, f"wrote {picture}\n")
    found = json.loads(out)
    names = [row["tokenizer"] for row in found["rows"]]
    assert names == ["chords-bpe", "chords-bpe (2)", "chords-bpe (3)", "chords"]
    assert found["rows"][0]["tokens_per_chord"] == found["rows"][1]["tokens_per_chord"] > 1
    assert found["rows"][3]["tokens_per_chord"] == 1
    assert list(found["lines"][0]["cuts"]) == names
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    table = tokens("compare", trained, "chords", "--on", text_file, "--lines", "1")[1]
    assert "1 document, " in table and "a chord" in table and "Verse: Adim" in table
    assert max(map(len, table.splitlines()[2:5])) <= 90


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train", "none.txt", "-o", "t.json"], 1, "none.txt: cannot be read"),
        (["train", "none.txt", "-o", "t.json", "--kind", "byte"], 1, "none.txt: cannot be read"),
        (["train", "empty.txt", "-o", "t.json"], 1, "empty.txt: empty"),
        (["train", "nul.txt", "-o", "t.json"], 1, "NUL"),
        (["train", "text.txt", "-o", "none/t.json"], 1, "no such folder"),
        (["train", "text.txt", "-o", "."], 1, "is a folder"),
        (["train", "text.txt", "-o", "t.json", "--vocab-size", "256"], 2, "a vocabulary has 257"),
        (["train", "text.txt", "-o", "t.json", "--kind", "byte", "--vocab-size", "300"], 2, "belongs to bpe"),
        (["train", "text.txt", "-o", "t.json", "--kind", "char", "--pattern", "chords"], 2, "belongs to bpe"),
        (["train", "text.txt", "-o", "t.json", "--kind", "words"], 2, "no kind 'words'; known: char"),
        (["train", "text.txt", "-o", "t.json", "--pattern", "gpt4"], 2, "no pattern 'gpt4'; known: gpt2, chords"),
        (["train", "text.txt", "-o", "t.json", "--kind", "chord"], 1, "songs in JSON lines"),
        (["show", "none", "x"], 1, "with --hub it is looked up"),
        (["show", "owner/name", "x"], 1, "with --hub it is looked up"),
        (["show", "text.txt", "x"], 1, "text.txt: not a tokenizer"),
        (["show", "chords", "Hq"], 1, "Hq"),
        (["compare", "chords", "--on", "none.txt"], 1, "none.txt"),
        (["compare", "chords", "--on", "text.txt", "--plot", "p.png"], 2, "ends in .svg"),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    tokens: Tokens,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").touch()
    Path("nul.txt").write_bytes(b"a\0b")
    before = sorted(tmp_path.iterdir())
    found, out, err = tokens(*arguments)
    assert (found, out) == (status, "")
    assert err.startswith("etude: ") and err.count("\n") == 1
    assert words in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "etude", "tokens", "train", "-", "-o", str(tmp_path / "t.json")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"some words " * 500_000)  # several blocks
        process.stdin.flush()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
        process.stdin.close()
        said = process.stderr.read()
    assert process.returncode in (1, 130) and b"Traceback" not in said
    assert list(tmp_path.iterdir()) == []
