"""`etude prime sing` and `hear` from the outside: there and back, JSON, and one line for every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from etude.cli.prime_song import register
from etude.errors import EtudeError

NUMBER = "4015900675360164941257961833784007821955751818867272204251449157644366823689729146104054213"

app = typer.Typer()
register(app)


def etude(*arguments: str | Path, status: int = 0) -> str:
    """What it prints; an `EtudeError` is what the command line makes one line of."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, EtudeError):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout if status == 0 else result.output


@pytest.fixture
def number(tmp_path: Path) -> Path:
    path = tmp_path / "n.prime"
    path.write_text(f"# a remark\n{NUMBER[:40]}\n{NUMBER[40:]}\n")
    return path


@pytest.mark.parametrize("kind", ["wav", "mid"])
def test_there_and_back(number: Path, tmp_path: Path, kind: str) -> None:
    song, back, program = tmp_path / f"song.{kind}", tmp_path / "back.prime", tmp_path / "program.py"
    facts = json.loads(etude("sing", number, "-o", song, "--raga", "Yaman", "--tempo", "600", "--json"))
    assert (facts["digits"], facts["notes"], facts["raga"], facts["whole"]) == (91, 91, "yaman", True)
    assert facts["seconds"] == pytest.approx(9.1)
    found = json.loads(etude("hear", song, "-o", back, "--program", program, "--json"))
    assert back.read_text() == NUMBER + "\n"
    assert program.read_bytes() == b'print("hello")'
    assert (found["prime"], found["mended"], found["table_from"], found["program_bytes"]) == (
        "probable",
        0,
        "comment",
        14,
    )
    assert found["files"] == [str(back), str(program)]
    assert "a program of 14 bytes" in etude("hear", song)


def test_a_score_and_a_shortened_song(number: Path, tmp_path: Path) -> None:
    told = etude("sing", number, "-o", tmp_path / "a.svg", "-o", tmp_path / "a.mid", "--seconds", "5")
    assert "20 notes" in told and "Sa = 147.2 Hz" in told
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    with pytest.raises(EtudeError, match="shortened"):
        etude("hear", tmp_path / "a.mid")


def test_a_composite_is_not_passed_off_as_a_prime(tmp_path: Path) -> None:
    (tmp_path / "n").write_text(str(10**20 + 3**30))
    etude("sing", tmp_path / "n", "-o", tmp_path / "a.mid")
    with pytest.raises(EtudeError, match="not prime"):
        etude("hear", tmp_path / "a.mid", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--raga", "blues"), "nat-bhairav"),
        (("--tala", "waltz"), "teental"),
        (("--sa", "20"), "600 Hz"),
        (("--intro", "--digits", "5"), "leave one of them out"),
    ],
)
def test_what_cannot_be_sung_is_one_line(number: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(EtudeError, match=said) as error:
        etude("sing", number, "-o", tmp_path / "a.wav", *arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "a.ogg"),
        ("-o", "a.wav", "--digits", "5", "--seconds", "5"),
        ("-o", "a.wav", "--sample-pitch", "D3"),
        ("-o", "a.wav", "--intonation", "meantone"),
        ("-o", "a.wav", "--tempo", "5000"),
    ],
)
def test_wrong_usage(number: Path, arguments: tuple[str, ...]) -> None:
    etude("sing", number, *arguments, status=2)


def test_a_raga_alone_tells_no_digits(number: Path) -> None:
    assert "--table" in etude("hear", number, "--raga", "bhairavi", status=2)


def test_places_that_cannot_be_written(number: Path, tmp_path: Path) -> None:
    with pytest.raises(EtudeError, match="no such folder"):
        etude("sing", number, "-o", tmp_path / "none" / "a.wav")
    with pytest.raises(EtudeError, match="is a folder"):
        etude("hear", number, "-o", tmp_path)
    with pytest.raises(EtudeError, match="not a sound file"):
        etude("hear", number)


def test_what_is_read_is_not_replaced(number: Path, tmp_path: Path) -> None:
    song, other = tmp_path / "s.mid", tmp_path / "o.txt"
    etude("sing", number, "-o", song)
    before = song.read_bytes()
    for option in ("-o", "--program"):
        with pytest.raises(EtudeError, match="is read from and would be replaced"):
            etude("hear", song, option, song)
    assert song.read_bytes() == before
    etude("hear", song, "-o", other, "--program", other, status=2)
    etude("hear", song, "--tempo", "20", status=2)
    assert not other.exists()
