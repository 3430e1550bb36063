"""ONNX: onnxruntime computes what the array engine computes, cached and in batches; the page's program runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.gpt.exporting import export_model
from etude.model import TextModel, load
from etude.sampling import GREEDY
from etude.tokens.characters import CharTokenizer

from .conftest import MakeGPT2

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
onnx: Any = pytest.importorskip("onnx", reason="the format onnx needs the onnx package (the export extra)")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="these checks run onnxruntime (the dev extra)")


class Session:
    """A file of ours in onnxruntime, and its cache after the last run."""

    def __init__(self, directory: Path) -> None:
        path = str(directory / "model.onnx")
        onnx.checker.check_model(path, full_check=True)
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.cache: list[np.ndarray] = []

    def run(self, ids: list[list[int]], fresh: bool = False) -> np.ndarray:
        """The logits [b, t, V] after new tokens [b, t]."""
        names = self.session.get_inputs()[1:]
        if fresh:
            self.cache = [np.zeros((len(ids), each.shape[1], 0, each.shape[3]), np.float32) for each in names]
        cache = {each.name: array for each, array in zip(names, self.cache, strict=True)}
        logits, *self.cache = self.session.run(None, {"input_ids": np.array(ids), **cache})
        return np.asarray(logits)


@pytest.fixture
def micro(tmp_path: Path) -> Path:
    tokenizer = CharTokenizer.train(["the hills"])
    config = GPTConfig("micro", tokenizer.vocab_size, 24, 2, 2, 8)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "micro", config, weights, tokenizer, "")
    return tmp_path / "micro"


@pytest.mark.parametrize("kind", ["tied", "untied", "micro"])
def test_logits_equal_those_of_the_array_engine(tmp_path: Path, make_gpt2: MakeGPT2, micro: Path, kind: str) -> None:
    source = micro if kind == "micro" else make_gpt2(tie_word_embeddings=kind == "tied", layer_norm_epsilon=0.5)
    model = export_model(source, tmp_path / "x", "onnx")
    session, engine = Session(tmp_path / "x"), ArrayEngine(model.config, model.weights)
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, 20).tolist()
    theirs, ours = session.run([ids[:9]], fresh=True)[0], engine.start_all(ids[:9])
    assert theirs.shape == ours.shape and np.abs(theirs - ours).max() < 1e-4
    for token in ids[9:14]:
        assert np.abs(session.run([[token]])[0, -1] - engine.step(token)).max() < 1e-4
    rest = session.run([ids[14:]])[0]  # several at once after a cache
    assert np.abs(rest - engine.start_all(ids)[14:]).max() < 1e-4
    assert session.cache[0].shape == (1, model.config.n_head, 20, model.config.head_size)


def test_the_rows_of_a_batch_are_apart(tmp_path: Path, make_gpt2: MakeGPT2) -> None:
    model = export_model(make_gpt2(), tmp_path / "x", "onnx")
    session, engine = Session(tmp_path / "x"), ArrayEngine(model.config, model.weights)
    batch = np.random.default_rng(2).integers(0, 352, (3, 12)).tolist()
    session.run([row[:7] for row in batch], fresh=True)
    theirs = session.run([row[7:] for row in batch])
    for row, logits in zip(batch, theirs, strict=True):
        assert np.abs(logits - engine.start_all(row)[7:]).max() < 1e-4


def test_the_folder_has_the_names_that_other_tools_look_for(tmp_path: Path, make_gpt2: MakeGPT2) -> None:
    source = make_gpt2(card="# A card\n")
    export_model(source, tmp_path / "x", "onnx")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "README.md", "config.json", "model.onnx", "model.onnx_data", "tokenizer.json"
    ]  # fmt: skip
    for name in ("config.json", "tokenizer.json", "README.md"):
        assert (tmp_path / "x" / name).read_bytes() == (source / name).read_bytes()
    graph = Session(tmp_path / "x").session
    cache = [f"{i}.{part}" for i in (0, 1) for part in ("key", "value")]
    assert [each.name for each in graph.get_inputs()] == ["input_ids", *(f"past_key_values.{each}" for each in cache)]
    assert [each.name for each in graph.get_outputs()] == ["logits", *(f"present.{each}" for each in cache)]
    assert (tmp_path / "x" / "model.onnx").stat().st_size < 50_000  # all weights are beside it


def test_the_pages_program_writes_what_generate_writes(tmp_path: Path, make_gpt2: MakeGPT2) -> None:
    source = make_gpt2(vocab_size=320, seed=24)
    export_model(source, tmp_path / "my-onnx", "onnx")
    (program,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    command = [sys.executable, "-X", "utf8", "-c", program]
    result = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False, timeout=300)
    assert result.returncode == 0, result.stderr.decode()
    model = load(source)
    assert isinstance(model, TextModel)
    (sample,) = model.generate("Over the hills", max_tokens=50, sampling=GREEDY)
    assert len(set(sample.tokens)) > 10
    assert result.stdout.decode() == sample.text + "\n"
