"""A small model of letters and one of chords."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etude.explain import Trace, record
from etude.explain.words import Word
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.model import ChordModel, TextModel, load
from etude.tokens.characters import CharTokenizer


@pytest.fixture
def names_model(tmp_path: Path) -> TextModel:
    """A `micro` model that knows the letters a to e and whatever a page must escape."""
    tokenizer = CharTokenizer("".join(sorted(set("abcde </script>\\&\n[]'\"éimgonrx=()1\u202e"))))
    config = GPTConfig("micro", tokenizer.vocab_size, 64, 2, 2, 8)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "names", config, weights, tokenizer, "# Names\n")
    model = load(tmp_path / "names")
    assert isinstance(model, TextModel)
    return model


@pytest.fixture
def hostile_trace() -> Trace:
    """Tokens, and a model's name, that would be markup on a page and too wide for a terminal."""
    config = GPTConfig("gpt2", 7, 16, 2, 2, 8)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape) for name, shape in parameter_shapes(config).items()}
    words = [Word(f"</script><img src=x onerror=alert({i})>[/bold]", b"<") for i in range(7)]
    return record("</title><script>1</script>", config, weights, [0, 3, 6], 3, words.__getitem__, 7, 3, ["*"])


@pytest.fixture
def chord_model(model_directory: Path) -> ChordModel:
    model = load(model_directory)
    assert isinstance(model, ChordModel)
    return model


@pytest.fixture
def chord_trace(chord_model: ChordModel) -> Trace:
    return chord_model.trace("D A Bm G D A", top=3)
