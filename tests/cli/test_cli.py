"""The command as people and programs use it: documents, charts, files, and one clear line for every fault."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import mido
import numpy as np
import pytest

from etude.music.theory import Chord

KEYS = range(12)
PROMPT = "D A Bm F#m"


def etude(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etude", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


def transposed(prompt: str, semitones: int) -> str:
    return " ".join(str(Chord.parse(symbol).transpose(semitones)) for symbol in prompt.split())


def fails(result: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    """One line says the fault, the last on standard error, and holds `words`; nothing on standard output."""
    assert result.returncode == status, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    if status:
        assert [line[:7] for line in result.stderr.splitlines() if line.startswith("etude: ")] == ["etude: "]
        assert result.stderr.splitlines()[-1].startswith("etude: ")
    for word in words:
        assert word in result.stderr


def test_suggest_document() -> None:
    document = json.loads(etude("suggest", PROMPT, "--top", "5", "--json").stdout)
    assert document["prompt"] == ["D", "A", "Bm", "F#m"]
    assert document["key"] == "D major"
    assert [sorted(candidate) for candidate in document["candidates"]] == [
        ["chord", "numeral", "probability", "reason"]
    ] * 5
    first = document["candidates"][0]
    assert (first["chord"], first["numeral"]) == ("G", "IV")
    probabilities = [candidate["probability"] for candidate in document["candidates"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 0 < sum(probabilities) <= 1


def test_compose_document_and_files(tmp_path: Path) -> None:
    result = etude("compose", PROMPT, "--json", "-o", "a.mid", "-o", "a.wav", "--bars", "16", cwd=tmp_path)
    document = json.loads(result.stdout)
    assert {"prompt", "chords", "key", "tempo", "meter", "seed", "files"} <= document.keys()
    assert document["files"] == ["a.mid", "a.wav"]
    assert document["bars"] == 16
    midi = mido.MidiFile(tmp_path / "a.mid")
    assert midi.length == pytest.approx(document["seconds"], abs=0.01)
    with wave.open(str(tmp_path / "a.wav")) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), np.int16) / 32768
        assert document["seconds"] <= sound.getnframes() / sound.getframerate() < document["seconds"] + 5
    assert 0.5 < np.abs(samples).max() < 1.0
    again = etude("compose", PROMPT, "-o", "b.mid", "-o", "b.wav", "--bars", "16", cwd=tmp_path)
    assert again.returncode == 0
    for suffix in ("mid", "wav"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_compose_prints_a_chart() -> None:
    chart = etude("compose", PROMPT, "--title", "Morning", "--tempo", "90").stdout
    assert "Morning" in chart
    assert "D major" in chart
    assert "90" in chart
    lines = chart.splitlines()
    row = next(i for i, line in enumerate(lines) if "F#m" in line)
    assert lines[row + 1].split()[:4] == ["I", "V", "vi", "iii"]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["suggest", "D A Bq"], 1, ["Bq", "character", "nearest"]),
        (["compose", "D A Bq"], 1, ["Bq", "character", "nearest"]),
        (["suggest", ""], 1, ["chord"]),
        (["compose", "   "], 1, ["chord"]),
        (["suggest", "C " * 50_000], 1, ["2,000 chords"]),
        (["compose", "C " * 60_000], 1, ["2,000 chords"]),
        (["suggest", "C", "--model", "nowhere"], 1, ["nowhere", "no such model directory"]),
        (["suggest", "C", "--key", "X"], 1, ["key"]),
        (["suggest", "C", "--top", "0"], 2, ["--top"]),
        (["compose", "C", "--tempo", "5"], 2, ["--tempo"]),
        (["compose", "C", "--meter", "four"], 1, ["metre"]),
        (["compose", "C", "--genre", "polka"], 1, ["polka", "jazz"]),
        (["compose", "C", "--form", "AXB"], 1, ["AABA"]),
        (["compose", "C", "--bars", "1"], 1, ["bars"]),
        (["compose", "C", "--bars", "100000"], 1, ["bars"]),
        (["compose", "C", "--chords", "3", "--bars", "8"], 1, ["chords"]),
        (["compose", "C", "--top-p", "7"], 2, ["top-p"]),
        (["compose", "C", "--temperature", "-1"], 2, ["temperature"]),
        (["compose", "C", "-o", "song.xyz"], 2, ["song.xyz", ".mid"]),
        (["compose", "C", "-o", "nowhere/song.mid"], 1, ["nowhere"]),
        (["eval", "chords", "nothing.jsonl"], 1, ["nothing.jsonl"]),
        (["train", "nothing.jsonl", "-o", "run"], 1, ["nothing.jsonl"]),
        (["train", "nothing.jsonl", "-o", "run", "--recipe", "soup"], 1, ["soup", "chords, micro"]),
        (["train", "nothing.txt", "-o", "run", "--recipe", "micro"], 1, ["nothing.txt", "No such file"]),
        (["train", "nothing.txt", "-o", "run", "--recipe", "micro", "--set", "dropout=0"], 1, ["micro", "dropout"]),
        (["train", "nothing.jsonl", "-o", "run", "--engine", "scalar"], 1, ["chords", "tensor alone"]),
        (["train", "nothing.txt", "-o", "run", "--recipe", "classic", "--engine", "scalar"], 1, ["tensor alone"]),
        (["train", "nothing.txt", "-o", "run", "--recipe", "micro", "--init", "m"], 1, ["micro begins from nothing"]),
        (["train", "nothing.txt", "-o", "run", "--set", "init=m"], 2, ["init is no setting"]),
        (["train", "nothing.jsonl", "-o", "run", "--resume"], 1, ["run", "no run to resume"]),
        (["generate", "nowhere"], 1, ["nowhere", "no such model directory"]),
        (["generate", "chords"], 1, ["no chords"]),
        (["generate", "chords", "Hq"], 1, ["Hq"]),
        (["generate", "chords", "C", "--engine", "compiled"], 1, ["array"]),
        (["generate", "chords", "C", "-n", "0"], 2, ["-n"]),
        (["generate", "chords", "C", "--top-k", "-1"], 2, ["top-k"]),
        (["train", "nothing.jsonl", "-o", "run", "--set", "drop=1"], 1, ["dropout"]),
        (["train", "nothing.jsonl", "-o", "run", "--steps", "1", "--minutes", "1"], 2, ["not both"]),
        (["train", "nothing.jsonl", "-o", "run", "--steps", "1", "--set", "steps=2"], 2, ["steps is given twice"]),
        (["train", "a.txt", "-o", "run", "--set", "warmup=1", "--set", "warmup=2"], 2, ["warmup is given twice"]),
        (["sing"], 2, ["sing"]),
    ],
)
def test_faults_are_one_line(tmp_path: Path, arguments: list[str], status: int, words: list[str]) -> None:
    fails(etude(*arguments, cwd=tmp_path), status, *words)
    assert list(tmp_path.iterdir()) == []


def test_the_prompt_may_come_from_standard_input() -> None:
    def piped(prompt: bytes) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "etude", "suggest", "-", "--json"]
        return subprocess.run(command, input=prompt, capture_output=True, check=False)

    assert json.loads(piped(b"D A\nBm F#m").stdout)["prompt"] == ["D", "A", "Bm", "F#m"]
    for prompt in (b"C " * 1_000_000, b"", b"\xff\xfe", b"C \x00"):
        result = piped(prompt)
        assert result.returncode == 1
        assert result.stderr.startswith(b"etude: ")
        assert result.stderr.count(b"\n") == 1


def test_a_song_too_long_for_sound_writes_nothing(tmp_path: Path) -> None:
    arguments = ["compose", "C", "--bars", "304", "--tempo", "20", "-o", "a.mid", "-o", "a.wav"]
    fails(etude(*arguments, cwd=tmp_path), 1, "sound is made for at most")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_output_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "song.wav").mkdir()
    fails(etude("compose", PROMPT, "-o", "song.mid", "-o", "song.wav", cwd=tmp_path), 1, "song.wav", "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_a_damaged_model_is_one_line(model_directory: Path) -> None:
    weights = model_directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    fails(etude("suggest", "C", "--model", model_directory), 1, "model.safetensors")
    shutil.rmtree(model_directory)
    fails(etude("compose", "C", "--model", model_directory), 1, "no such model directory")


def test_a_chord_the_model_does_not_know_is_said_and_kept(tmp_path: Path) -> None:
    result = etude("compose", "C Am11b13 F G", "--json")
    assert result.returncode == 0
    assert "does not know" in result.stderr
    assert json.loads(result.stdout)["prompt"][1].startswith("Am11")


def test_eval_document(songs_file: Path) -> None:
    document = json.loads(etude("eval", "chords", songs_file, "--json").stdout)
    assert document["changes"] == 6 + 6 + 7
    for part in (document, document["first"], document["repeat"]):
        assert {"changes", "top1", "nats_per_chord"} <= part.keys()
        assert part["top1"].keys() == {"value", "se"}
    assert document["first"]["changes"] + document["repeat"]["changes"] == document["changes"]
    assert set(document["baselines"]) == {"3-gram", "5-gram", "3-gram + song", "5-gram + song"}
    table = etude("eval", "chords", songs_file, "--no-baselines").stdout
    assert "top-1" in table
    assert "5-gram" not in table


def test_eval_of_text(names_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_names(names_file, "-o", run)
    result = etude("eval", run, names_file, "--engine", "array")
    assert result.returncode == 0, result.stderr
    for words in ("nats a token", "bits a token", "bits a character", "bits a byte", "perplexity", "±"):
        assert words in result.stdout
    fails(etude("eval", run, names_file, "--block-size", "99"), 1, "2 to 6 tokens")
    fails(etude("eval", run, tmp_path / "none"), 1, "cannot be read")
    fails(etude("eval", run, names_file, "--engine", "gpu"), 1, "unknown engine")
    fails(etude("eval", "chords", names_file, "--block-size", "9"), 2, "models of text")


def test_train_then_suggest_and_resume(songs_file: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")
    sizes = ["--set", "n_layer=1", "--set", "n_embd=16", "--set", "n_head=2", "--set", "batch_size=2"]
    command: list[str | Path] = ["train", songs_file, "-o", tmp_path / "run", "--validation", songs_file, *sizes]
    fails(etude(*command, "--steps", "3"), 1, "every song of it")  # all of them are held out
    other = tmp_path / "valid.jsonl"
    other.write_text('{"group": "x", "chords": ["C", "F", "G", "C"]}\n')
    command = ["train", songs_file, "-o", tmp_path / "run", "--validation", other, *sizes]
    result = etude(*command, "--steps", "3", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["validation"]["changes"] == 3
    assert "step 3 / 3" in result.stderr
    assert etude("suggest", "C F", "--model", tmp_path / "run").returncode == 0
    fails(etude(*command, "--steps", "3"), 1, "--resume")
    assert etude(*command, "--steps", "3", "--resume").returncode == 0


NAMES = ["emma", "olivia", "ava", "isabella", "sophia", "mia", "zoë", "李"]


@pytest.fixture
def names_file(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(NAMES), encoding="utf-8")
    return path


def train_names(names_file: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    sizes = ["--set", "n_embd=4", "--set", "n_head=2", "--set", "block_size=6", "--steps", "120"]
    return etude("train", names_file, "--recipe", "micro", "--engine", "scalar", *sizes, *more)


def test_train_on_text_then_generate(names_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train_names(names_file, "-o", run, "--validation", names_file)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 5
    note, *_, last = result.stderr.splitlines()
    assert note.startswith("note: 1 of 8 documents are longer than the block of 6 characters")
    assert "step 120 / 120" in result.stderr
    assert re.fullmatch(
        rf"{re.escape(str(run))}: 120 steps in \d+\.\d\d s, training loss \d\.\d\d \(mean of the last 100 steps\), "
        r"validation loss \d\.\d{3} ± \d\.\d{3}",
        last,
    )
    lines = etude("generate", run, "-n", "4", "--seed", "1").stdout.splitlines()
    assert len(lines) == 4
    document = json.loads(etude("generate", run, "em", "-n", "3", "--max-tokens", "2", "--json").stdout)
    assert list(document) == ["samples"]
    for sample in document["samples"]:
        assert sorted(sample) == ["finish", "logprob", "prompt", "text", "tokens"]
        assert sample["text"].startswith("em")
        assert len(sample["tokens"]) <= 2
        assert sample["logprob"] < 0
    fails(etude("generate", run, "emx"), 1, "'x' (character 3 of 'emx')")
    fails(etude("compose", "C", "--model", run), 1, "writes text, not chords")
    fails(etude("suggest", "C", "--model", run), 1, "this model says no chords")


def test_text_training_as_a_document_and_resumed(names_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train_names(names_file, "-o", run, "--json")
    document = json.loads(result.stdout)
    assert (document["directory"], document["engine"], document["steps"]) == (str(run), "scalar", 120)
    assert document["loss"] > 0
    assert document["validation"] is None
    assert len(document["samples"]) == 5
    fails(train_names(names_file, "-o", run), 1, "--resume")
    resumed = etude("train", names_file, "-o", run, "--resume", "--json")  # recipe and engine are the run's own
    assert json.loads(resumed.stdout) == document
    assert "engine: scalar" in resumed.stderr
    fails(etude("train", names_file, "-o", run, "--resume", "--recipe", "chords"), 1, "recipe micro, not chords")
    fails(etude("train", names_file, "-o", run, "--resume", "--engine", "tensor"), 1, "begun in the engine scalar")
    names_file.write_text("emma\nzoë")
    fails(etude("train", names_file, "-o", run, "--resume"), 1, "another corpus")


@pytest.mark.slow
def test_train_on_a_stream_and_go_on_from_what_came(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")
    text, run, tuned = tmp_path / "hills.txt", tmp_path / "run", tmp_path / "tuned"
    text.write_text("Over the hills and far away,\nthe fiddler's playing;\n" * 20)
    sizes = [f"--set={size}" for size in ("n_layer=1", "n_head=2", "n_embd=16", "block_size=16", "batch_size=2")]
    result = etude("train", text, "--recipe", "classic", "-o", run, *sizes, "--steps", "8", "--set", "warmup=2")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) > 5  # a sample
    assert re.search(r"step 8 / 8  loss \d\.\d{3}  valid \d\.\d{3} nats  ", result.stderr)
    assert re.fullmatch(
        rf"{re.escape(str(run))}: 8 steps in \d+\.\d\d s, training loss \d\.\d\d \(mean of the last 8 steps\), "
        r"validation loss \d\.\d{3} ± \d\.\d{3} \(\d\.\d{4} on 20 random batches, as nanoGPT has it\)",
        result.stderr.splitlines()[-1],
    )
    document = json.loads(etude("train", text, "--init", run, "-o", tuned, "--steps", "3", "--json").stdout)
    assert (document["engine"], document["steps"], len(document["samples"])) == ("tensor", 3, 1)
    assert document["validation"]["random"]["batches"] == 20
    assert "from the model `run`" in (tuned / "README.md").read_text()
    fails(etude("train", text, "--init", run, "-o", tuned, "--steps", "3"), 1, "--resume")
    again: list[str | Path] = [
        "--recipe",
        "classic",
        "-o",
        tmp_path / "two",
        *sizes,
        "--steps",
        "4",
        "--tensorboard",
        "--json",
    ]
    result = etude("train", text, "--validation", text, *again, "--set", "validate_every=2")
    document = json.loads(result.stdout)
    assert (tmp_path / "two" / "events.out.tfevents.etude").stat().st_size > 100
    assert result.stderr.count("\nsample  ") == 2  # under the line of each validation
    result = etude("eval", tmp_path / "two", text, "--json")
    assert result.returncode == 0, result.stderr
    assert re.search(r"engine \w+: [\d,]+ tokens a second", result.stderr)
    scores = json.loads(result.stdout)
    assert scores["nats_per_token"] == pytest.approx(document["validation"]["nats_per_token"], abs=1e-6)
    assert (scores["tokens"], scores["characters"], scores["bytes"]) == (1040, 1040, 1040)
    for name in ("bits_per_token", "bits_per_character", "bits_per_byte", "perplexity"):
        assert scores[name].keys() == {"value", "se"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no documents in it"), (b"a\n\xff\n", "line 2: not UTF-8"), (b"a\0b\n", "NUL byte")],
)
def test_text_that_is_none_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "corpus.txt"
    path.write_bytes(content)
    fails(train_names(path, "-o", tmp_path / "run"), 1, "corpus.txt", words)
    assert not (tmp_path / "run").exists()


def test_validation_of_other_characters_is_refused_before_training(names_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("emma\nquinn\n")
    fails(train_names(names_file, "-o", tmp_path / "run", "--validation", other), 1, "'q' (character 1 of 'quinn')")
    assert not (tmp_path / "run").exists()


def test_progressions_are_generated_one_a_line() -> None:
    lines = etude("generate", "chords", "Bb F Gm", "-n", "3", "--max-tokens", "5").stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("Bb F Gm ")
        assert len(line.split()) == 8
        assert "A#" not in line
    piped = subprocess.run(
        [sys.executable, "-m", "etude", "generate", "chords", "-", "--greedy", "--json"],
        input="Bb F\nGm", capture_output=True, text=True, check=True,
    )  # fmt: skip
    (sample,) = json.loads(piped.stdout)["samples"]
    assert len(sample["tokens"]) == 8
    assert sample["text"].startswith("Bb F Gm ")


def test_a_stopped_reader_of_samples_is_no_fault(tmp_path: Path) -> None:
    command = f"{sys.executable} -m etude generate chords C -n 200 --max-tokens 1 | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("verb", ["compose", "suggest", "generate", "explain", "train", "eval"])
def test_help_has_an_example_and_defaults(verb: str) -> None:
    text = etude(verb, "--help").stdout
    assert f"etude {verb}" in text
    assert "Example:" in text
    assert "default" in text


def test_importing_etude_is_light() -> None:
    code = "import sys, etude; print(sorted({'numpy', 'torch', 'mido', 'typer', 'rich'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
