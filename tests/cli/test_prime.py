"""`etude prime` as people use it."""

from __future__ import annotations

import gzip
import json
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from etude.cli import main
from etude.prime.number import decimal

PROGRAM = "'''A test.'''\nimport random\nrandom.seed(5)\nfor number in range(4):\n    print(number, random.random())\n"


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Result]


@pytest.fixture
def etude(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """The command in this process, whose start would take longer than what it does."""

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["etude", *map(str, arguments)])
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfdbinary.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, said.out.decode(), said.err.decode())

    return run


def fails(result: Result, status: int, *words: str) -> None:
    """The last line on standard error says the fault and holds `words`; nothing on standard output."""
    assert result.returncode == status, result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert [line[:7] for line in result.stderr.splitlines() if line.startswith("etude: ")] == ["etude: "]
    for word in words:
        assert word in result.stderr.splitlines()[-1]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_a_program_becomes_a_prime_and_runs_from_it(etude: Command, program: Path, tmp_path: Path) -> None:
    prime, document, picture = tmp_path / "p.prime", tmp_path / "p.json", tmp_path / "p.svg"
    result = etude("prime", "pack", program, "-o", prime, "-o", document, "-o", picture, "--json")
    assert result.returncode == 0, result.stderr
    assert "prints the same 4 lines to its end" in result.stderr
    told = json.loads(result.stdout)
    assert told["prime"] == "probable" and told["number"] == prime.read_text().strip()
    assert told["files"] == [str(prime), str(document), str(picture)]
    n = int(told["number"])
    unpacked = zlib.decompress(n.to_bytes((n.bit_length() + 7) // 8, "big")[: told["gzip_bytes"]], 31)
    assert len(unpacked) == told["program_bytes"] < len(PROGRAM)
    assert picture.read_text().startswith("<svg")
    for file in (prime, document):
        verified = etude("prime", "verify", file, "--json")
        assert verified.returncode == 0, verified.stderr
        found = json.loads(verified.stdout)
        assert found["prime"] == "probable" and found["sha256"] == told["sha256"]
        assert found.keys() >= {"prime", "digits", "bits", "bytes", "offset", "program_bytes", "sha256"}
    spoken = etude("prime", "verify", prime).stdout
    assert "probable prime" in spoken and "no proof" in spoken
    ran = etude("prime", "run", prime, "--yes")
    assert ran.returncode == 0
    assert ran.stdout.splitlines()[0] == "0 0.6229016948897019"
    assert "random" in ran.stderr and told["sha256"] in ran.stderr  # it was shown
    assert not list(tmp_path.glob(".*"))  # the search's state is gone


def test_a_changed_digit_is_found(etude: Command, program: Path, tmp_path: Path) -> None:
    prime = tmp_path / "p.prime"
    assert etude("prime", "pack", program, "-o", prime, "--no-check").returncode == 0
    digits = prime.read_text().strip()
    for at in (0, len(digits) // 2, len(digits) - 1):
        changed = digits[:at] + str((int(digits[at]) + 3) % 10) + digits[at + 1 :]
        prime.write_text(changed)
        result = etude("prime", "verify", prime, "--json")
        assert result.returncode == 1
        assert json.loads(result.stdout)["prime"] == "no"
        assert len(result.stderr.splitlines()) == 1 and "it is not prime" in result.stderr


def test_a_proof_is_carried_lost_and_found_again(etude: Command, program: Path, tmp_path: Path) -> None:
    prime, bare, again = tmp_path / "p.prime", tmp_path / "bare", tmp_path / "again.hex"
    assert etude("prime", "pack", program, "-o", prime, "--proven", "--no-check").returncode == 0
    assert json.loads(etude("prime", "verify", prime, "--json").stdout)["prime"] == "proved"
    assert "proved prime by its certificate: 2^" in etude("prime", "verify", prime).stdout
    bare.write_text(prime.read_text().splitlines()[-1])
    assert json.loads(etude("prime", "verify", bare, "--json").stdout)["prime"] == "probable"
    assert etude("prime", "prove", bare, "-o", again, "--hex").returncode == 0
    assert json.loads(etude("prime", "verify", again, "--json").stdout)["prime"] == "proved"
    line = etude("prime", "prove", bare).stdout
    assert line.startswith("# certificate: 2^")
    wrong = prime.read_text().replace(" a=", " a=1")
    prime.write_text(wrong)
    result = etude("prime", "verify", prime, "--json")
    assert result.returncode == 1 and "certificate" in result.stderr
    assert json.loads(result.stdout)["prime"] == "probable"


def test_what_was_not_made_for_a_proof_has_none(etude: Command, program: Path, tmp_path: Path) -> None:
    prime = tmp_path / "p.prime"
    assert etude("prime", "pack", program, "-o", prime, "--no-check").returncode == 0
    fails(etude("prime", "prove", prime), 1, "cannot be proved here", "--proven", "ECPP")


def test_faults_are_one_line(etude: Command, tmp_path: Path, program: Path) -> None:
    n = tmp_path / "n"
    n.write_text("1" * 10_000_000)
    for verb in ("verify", "run", "prove"):
        fails(etude("prime", verb, n), 1, "too large")
    n.write_bytes(bytes(range(256)))
    fails(etude("prime", "verify", n), 1, "not a number")
    n.write_text(decimal(int.from_bytes(gzip.compress(bytes(20 << 20)), "big")))
    fails(etude("prime", "run", n, "--yes"), 1, "larger than 1 MiB")
    n.write_text("2147483647")
    result = etude("prime", "verify", n, "--json")
    assert result.returncode == 1 and json.loads(result.stdout)["prime"] == "probable" and "no program" in result.stderr
    fails(etude("prime", "verify", tmp_path / "none"), 1, "No such file")
    fails(etude("prime", "pack"), 2, "--model")
    fails(etude("prime", "pack", program, "-o", tmp_path / "p.gif"), 2, ".svg")
    fails(etude("prime", "pack", program, "-o", tmp_path / "none" / "p.prime"), 1, "no such folder")
    fails(etude("prime", "prove", program, "-o", tmp_path / "none" / "p.prime"), 1, "no such folder")
    fails(etude("prime", "pack", "--model", "chords"), 1, "of the architecture micro")
    fails(etude("prime", "pack", program, "--within", "0.02"), 2, "--within is for --model")
    fails(etude("prime", "pack", "--model", tmp_path, "--input", program), 2, "--input is for a PROGRAM")
    program.write_text("print(")
    fails(etude("prime", "pack", program), 1, "program.py", "--no-minify")


def test_what_does_something_else_minified_is_refused(etude: Command, program: Path) -> None:
    program.write_text("# a comment\nprint(len(open('program.py').read()))\n")  # it reads itself
    fails(etude("prime", "pack", program), 1, "line 1", "--no-minify")


def test_nobody_is_asked_where_nobody_is(etude: Command, program: Path, tmp_path: Path) -> None:
    prime = tmp_path / "p.prime"
    program.write_text("while True: print('over')")
    assert etude("prime", "pack", program, "-o", prime, "--no-check").returncode == 0
    fails(etude("prime", "run", prime), 1, "--yes")
    result = etude("prime", "run", prime, "--yes", "--seconds", "5")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("etude: ") and "was stopped" in result.stderr
    assert len(result.stdout) <= 1 << 20


def test_a_picture_that_cannot_be_is_refused_before_the_search(etude: Command, program: Path, tmp_path: Path) -> None:
    import random

    noise = random.Random(1).randbytes(1500).hex()
    program.write_text(f"print({noise + noise[::-1]!r})\n# {random.Random(2).randbytes(2500).hex()}")
    result = etude("prime", "pack", program, "--no-minify", "-o", tmp_path / "p.svg")
    fails(result, 1, "7,089 digits")


def test_the_reference_is_verified(etude: Command, tmp_path: Path) -> None:
    path = Path(__file__).parents[3] / "shared" / "reference" / "prime.txt"
    if not path.is_file():
        pytest.skip("the published prime is not beside the checkout (prime.txt in ../shared/reference)")
    result = etude("prime", "verify", path, "--json")
    found = json.loads(result.stdout)
    assert result.returncode == 0, result.stderr
    assert [found[name] for name in ("prime", "digits", "bits", "bytes", "offset", "program_bytes")] == [
        "probable", 3600, 11957, 1495, 5019, 2750,
    ]  # fmt: skip


def test_what_is_read_is_not_replaced(etude: Command, program: Path, tmp_path: Path) -> None:
    text = program.with_suffix(".txt")
    text.write_bytes(program.read_bytes())
    fails(etude("prime", "pack", text, "-o", text), 1, "is read from and would be replaced")
    fails(etude("prime", "pack", program, "--input", text, "-o", text), 1, "is read from and would be replaced")
    assert text.read_bytes() == program.read_bytes()
