"""The race and its command: engines that agree, what is told meanwhile, and faults as one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from etude.bench.race import Lap, duration, installed, plot, race
from etude.corpus.lines import CorpusError
from etude.errors import EtudeError

WORDS = "ava\nmia\nzoë\nliv\nelvira\n"
SLOW = Lap("scalar", 2.0, 2.5, (3.0, 2.0), ("ava", "mia"))
FAST = Lap("compiled", 0.001, 0.4, (3.00001, 2.00001), ("ava", "mia"))


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.txt"
    path.write_text(WORDS, encoding="utf-8")
    return path


def command(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "etude", "race", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


@pytest.mark.slow
def test_all_engines_run_the_same_race(words: Path) -> None:
    told: list[tuple[str, int]] = []
    laps = list(race(words, installed(), 12, lambda engine, done, remark: told.append((engine, done))))
    assert [lap.engine for lap in laps] == installed() and installed()[0] == "scalar"
    for lap in laps:
        assert len(lap.losses) == 12 and len(lap.names) == 20
        assert lap.same_losses(laps[0]) and lap.names == laps[0].names
        assert 0 < lap.seconds < lap.process_seconds
        assert (lap.engine, 12) in told
    assert laps[0].losses[0] == pytest.approx(2.3, abs=0.3)  # ln of the ten characters and the end, give or take


def test_laps_are_the_same_to_the_printed_digit() -> None:
    assert FAST.same_losses(SLOW)
    assert not replace(FAST, losses=(3.0, 2.0001)).same_losses(SLOW)
    assert FAST.microseconds_per_step == pytest.approx(500)


@pytest.mark.parametrize(("seconds", "text"), [(21.04, "21 s"), (0.0157, "15.7 ms"), (0.0000157, "15.7 µs")])
def test_durations_have_the_unit_that_suits_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_process_that_fails_is_told_with_its_own_words(words: Path) -> None:
    with pytest.raises(EtudeError, match="the engine nonsense failed: "):
        list(race(words, ["nonsense"], 2))
    with pytest.raises(CorpusError, match="No such file"):
        list(race(words.with_name("none.txt"), ["scalar"], 2))


def test_the_plot_is_the_same_bytes_twice_and_names_the_engines(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib (the train extra)")
    for name in ("a.svg", "b.svg", "c.png"):
        plot([SLOW, FAST], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "2,000 times faster" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_the_document(words: Path) -> None:
    result = command(words, "--engine", "scalar", "--steps", "3", "--json")
    document = json.loads(result.stdout)
    (lap,) = document["engines"]
    assert {"engine", "seconds", "microseconds_per_step", "losses", "names"} <= lap.keys()
    assert lap["microseconds_per_step"] == pytest.approx(1e6 * lap["seconds"] / 3)
    assert (len(lap["losses"]), len(lap["names"])) == (3, 20)
    assert "scalar: 3 / 3 steps" in result.stderr


def test_the_table_names_what_agrees(words: Path) -> None:
    result = command(words, "--steps", "3")
    assert result.returncode == 0
    rows = [line.split() for line in result.stdout.splitlines() if line.split()[:1] and line.split()[0] in installed()]
    assert [row[0] for row in rows] == installed()
    assert all(row[-2:] == ["yes", "yes"] for row in rows[1:])


@pytest.mark.parametrize(
    ("arguments", "status", "words_of_it"),
    [
        (["none.txt"], 1, "none.txt: cannot be read (No such file or directory)"),
        (["words.txt", "--engine", "array"], 2, "no engine 'array' races; these do: compiled, tensor, scalar"),
        (["words.txt", "--plot", "race.gif"], 2, "--plot writes .svg, .png, .pdf, not 'race.gif'"),
        ([], 1, "no names.txt in this folder"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, words: Path, arguments: list[str], status: int, words_of_it: str) -> None:
    folder = tmp_path / "deep" / "er"  # where ../shared is none
    folder.mkdir(parents=True)
    (folder / "words.txt").write_bytes(words.read_bytes())
    result = command(*arguments, cwd=folder)
    assert result.returncode == status and result.stdout == ""
    assert result.stderr.startswith("etude: ") and len(result.stderr.splitlines()) == 1
    assert words_of_it in result.stderr
