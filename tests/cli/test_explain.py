"""`etude explain` as people and programs call it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.tokens.bpe import BPETokenizer


def explain(*arguments: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etude", "explain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, input=given)


@pytest.fixture
def gpt2_shaped(tmp_path: Path, shared_gpt2: Path) -> Path:
    """A model of random weights with GPT-2's own tokens."""
    config = GPTConfig("gpt2", 50257, 16, 2, 2, 8, bos_token_id=50256, eos_token_id=50256)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "m", config, weights, BPETokenizer.from_path(shared_gpt2), "# A model\n")
    return tmp_path / "m"


def test_the_document_of_a_gpt2(gpt2_shaped: Path) -> None:
    result = explain(gpt2_shaped, "The Colosseum is in the city of", "--json", "--only", "h.1.*", "--only", "logits")
    assert (result.returncode, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert "".join(token["text"] for token in found["tokens"]) == "The Colosseum is in the city of"
    assert found["tokens"][1]["merges"] == [[" ", "C", "o", "l"], [" C", "o", "l"], [" C", "ol"], [" Col"]]
    for step in found["steps"]:
        assert [sorted(choice) for choice in step["top"]] == [["id", "logit", "percent", "text"]] * 3
        logits = [choice["logit"] for choice in step["top"]]
        assert logits == sorted(logits, reverse=True)
    t = len(found["tokens"])
    shapes = {each["name"]: each["shape"] for each in found["trace"]}
    assert shapes["logits"] == [t, 50257] and shapes["h.1.attn.weights"] == [2, t, t]
    assert len(shapes) == 16
    (last,) = [each["values"][-1] for each in found["trace"] if each["name"] == "logits"]
    assert found["steps"][-1]["top"][0]["id"] == int(np.argmax(last))
    assert json.loads(explain(gpt2_shaped, "", "--json").stdout)["tokens"][0]["id"] == 50256
    more = json.loads(explain(gpt2_shaped, "Hi", "-k", "5", "--steps", "2", "--json", "--only", "wte").stdout)
    assert (more["prompt_tokens"], len(more["tokens"]), len(more["steps"][0]["top"])) == (1, 3, 5)


def test_chords_in_the_terminal_and_on_a_page(tmp_path: Path) -> None:
    result = explain("chords", "-", given="D A\nBm F#m")
    assert result.returncode == 0 and "next after F#m" in result.stdout and "modern" in result.stdout
    page = tmp_path / "page.html"
    result = explain("chords", "C Am11b13 F", "--html", page)
    assert (result.returncode, result.stdout) == (0, "")
    assert "does not know" in result.stderr and f"wrote {page}" in result.stderr
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    document = json.loads(explain("chords", "C F", "--html", page, "--json").stdout)
    assert [token["text"] for token in document["tokens"]] == ["<song>", "C", "F"]
    assert len(document["steps"][0]["top"]) == 10


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere", "C"], 1, "no such model directory"),
        (["chords", ""], 1, "no chords"),
        (["chords", "Hq"], 1, "Hq"),
        (["chords", "C F " * 600], 1, "reads at most"),
        (["chords", "C", "--only", "h.99.*", "--json"], 1, "no intermediate has such a name"),
        (["chords", "C", "--only", "h.99.*", "--html", "page.html"], 1, "no intermediate has such a name"),
        (["chords", "C", "--html", "nowhere/page.html"], 1, "nowhere/page.html"),
        (["chords", "C", "-k", "0"], 2, "--top"),
        (["chords", "C", "--steps", "-1"], 2, "--steps"),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = explain(*arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.startswith("etude: ") and result.stderr.count("\n") == 1
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []
