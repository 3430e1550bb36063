"""`etude generate` from the outside: streams, files of prompts, what stands between samples, faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from etude.cli.generate import _lines
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.tokens.characters import CharTokenizer


@pytest.fixture
def lines_directory(tmp_path: Path) -> Path:
    """A model of random weights whose texts have many lines."""
    tokenizer = CharTokenizer("\nabc")
    config = GPTConfig("micro", tokenizer.vocab_size, block_size=8, n_layer=1, n_head=2, n_embd=8)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.3, shape) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "lines", config, weights, tokenizer, "# A model\n", "float64")
    return tmp_path / "lines"


def generate(*arguments: str | Path, given: str | bytes = b"", status: int = 0) -> tuple[str, str]:
    """What it prints, and what it says on standard error."""
    content = given.encode() if isinstance(given, str) else given
    command = [sys.executable, "-m", "etude", "generate", *map(str, arguments)]
    result = subprocess.run(command, input=content, capture_output=True, check=False, timeout=300)
    assert result.returncode == status, result.stderr
    return result.stdout.decode(), result.stderr.decode()


def on_a_terminal(*arguments: str | Path) -> str:
    """What a person sees: standard output and standard error are a terminal."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    here, there = pty.openpty()
    command = [sys.executable, "-m", "etude", "generate", *map(str, arguments)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=environment) as process:
        os.close(there)
        shown = b""
        try:
            while part := os.read(here, 4096):
                shown += part
        except OSError:  # on Linux the end of a terminal is an error
            pass
        assert process.wait(timeout=60) == 0
    os.close(here)
    return shown.decode().replace("\r\n", "\n")


def test_a_file_of_prompts_gives_what_each_gives_alone(lines_directory: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes(b"ab\r\n\nc\n")
    options = (
        "-n",
        "2",
        "--seed",
        "4",
        "--max-tokens",
        "20",
        "--min-p",
        "0.05",
        "--repetition-penalty",
        "1.1",
        "--json",
    )
    samples = json.loads(generate(lines_directory, "--prompts", prompts, *options)[0])["samples"]
    assert [sample["prompt"] for sample in samples] == ["ab", "ab", "", "", "c", "c"]
    alone = [json.loads(generate(lines_directory, prompt, *options)[0])["samples"] for prompt in ("ab", "", "c")]
    assert samples == [sample for each in alone for sample in each]
    piped = generate(lines_directory, "--prompts", "-", *options, given="ab\n\nc")[0]
    assert json.loads(piped)["samples"] == samples
    for sample in samples:
        assert list(sample) == ["text", "tokens", "logprob", "prompt", "finish"]
        assert sample["finish"] in ("end", "length")


@pytest.mark.parametrize(
    ("text", "lines"),
    [("", []), ("\n", [""]), ("a", ["a"]), ("a\n", ["a"]), ("a\n\n", ["a", ""]), ("a\r\nb \n", ["a", "b "])],
)
def test_every_line_of_a_file_is_a_prompt(text: str, lines: list[str]) -> None:
    assert _lines(text) == lines


def test_samples_of_several_lines_are_kept_apart(lines_directory: Path) -> None:
    options = (lines_directory, "--max-tokens", "12", "--seed", "1")
    samples = json.loads(generate(*options, "-n", "6", "--json")[0])["samples"]
    texts = [sample["text"] for sample in samples]
    several = ["\n" in text for text in texts]
    assert any(several)
    wanted = texts[0] + "\n"
    for number in range(1, 6):
        wanted += ("\n" if several[number] or several[number - 1] else "") + texts[number] + "\n"
    assert generate(*options, "-n", "6")[0] == wanted
    shown = on_a_terminal(*options, "-n", "6")
    numbers = [n for n in range(6) if several[n] or (n and several[n - 1])]
    assert [f"── {n + 1} ──" in shown for n in range(6)] == [n in numbers for n in range(6)]
    assert "\x1b[2m──" in shown
    lines = generate("chords", "C G", "-n", "3", "--max-tokens", "3")[0].splitlines()
    assert len(lines) == 3 and all(lines)


def test_one_sample_is_shown_as_it_comes_and_a_person_is_told_how_fast(lines_directory: Path) -> None:
    options = (lines_directory, "ab", "--max-tokens", "30", "--seed", "7")
    (sample,) = json.loads(generate(*options, "--json")[0])["samples"]
    assert generate(*options) == (sample["text"] + "\n", "")
    shown = on_a_terminal(*options)
    assert shown.startswith(sample["text"] + "\n\x1b[2m")
    assert f"{len(sample['tokens'])} tokens, " in shown
    assert "tokens/s, engine array" in shown


def test_stop_strings(lines_directory: Path) -> None:
    options = (lines_directory, "a\nb", "--max-tokens", "40", "-n", "5", "--json")
    samples = json.loads(generate(*options, "--stop", "\n", "--stop", "bb")[0])["samples"]
    assert "stop" in {sample["finish"] for sample in samples}
    for sample in samples:
        assert sample["text"].startswith("a\nb")
        assert "\n" not in sample["text"][3:] and "bb" not in sample["text"][3:]
    assert generate(lines_directory, "a\nb", "--stop", "\n")[0] == samples[0]["text"] + "\n"
    assert generate(lines_directory, "", "--stop", "", status=1)[1].count("\n") == 1


def test_greedy_takes_the_likeliest_of_what_the_penalty_left(lines_directory: Path) -> None:
    plain, again, penalised = (
        generate(lines_directory, "ab", "--greedy", "--max-tokens", "20", *more)[0]
        for more in ((), ("--seed", "9"), ("--repetition-penalty", "5"))
    )
    assert plain == again != penalised


@pytest.mark.parametrize(
    ("arguments", "given", "status", "words"),
    [
        (["--prompts", "-"], "ab\nax\n", 1, ["standard input, line 2: 'x' (character 2"]),
        (["--prompts", "-"], b"ab\n\xff\n", 1, ["standard input, line 2: not UTF-8"]),
        (["--prompts", "-"], b"a" * ((16 << 20) + 1), 1, ["standard input: longer than 16 MiB"]),
        (["-"], b"a" * ((16 << 20) + 1), 1, ["standard input: longer than 16 MiB"]),
        (["-"], b"a\xffb", 1, ["not UTF-8 (byte 2)"]),
        (["--prompts", "nowhere.txt"], "", 1, ["nowhere.txt", "No such file"]),
        (["--prompts", "."], "", 1, ["directory"]),
        (["a", "--prompts", "-"], "", 2, ["not both"]),
        (["--min-p", "1.5"], "", 2, ["min-p"]),
        (["--repetition-penalty", "0"], "", 2, ["repetition-penalty"]),
        (["--temperature", "inf"], "", 2, ["temperature"]),
        (["--max-tokens", "-1"], "", 2, ["max-tokens"]),
        (["ax"], "", 1, ["'x' (character 2"]),
        (["--stop", "", "-n", "2"], "", 1, ["stop must be"]),
    ],
)
def test_faults_are_one_line_and_print_nothing(
    lines_directory: Path, arguments: list[str], given: str | bytes, status: int, words: list[str]
) -> None:
    printed, said = generate(lines_directory, *arguments, given=given, status=status)
    assert printed == ""
    assert said.startswith("etude: ") and said.count("\n") == 1
    for word in words:
        assert word in said


def test_a_long_prompt_is_read_whole_and_its_newest_block_counts(lines_directory: Path) -> None:
    prompt = "abc" * 100_000 + "a"
    printed, said = generate(lines_directory, "-", "--max-tokens", "5", "--greedy", given=prompt + "\n")
    assert printed.startswith(prompt)
    assert said == "note: the prompt is longer than the block of 8 tokens; the model reads the newest 8\n"
    assert (
        generate(lines_directory, "-", "--max-tokens", "5", "--greedy", given="abc" * 5 + "a")[0][-6:] == printed[-6:]
    )


def test_a_chord_in_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    prompts = tmp_path / "songs.txt"
    prompts.write_text("C G\nAm Hq\n")
    said = generate("chords", "--prompts", prompts, status=1)[1]
    assert f"{prompts}, line 2: cannot read 'Hq'" in said
    prompts.write_text("C G\nAm F\n")
    lines = generate("chords", "--prompts", prompts, "-n", "2", "--stop", "G C")[0].splitlines()
    assert [line[:4] for line in lines] == ["C G ", "C G ", "Am F", "Am F"]
