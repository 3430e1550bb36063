"""The JSON document: the agreed keys, the same bits, and no more than is asked for."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from etude.errors import EtudeError
from etude.explain import Trace, record
from etude.explain.document import write_json
from etude.explain.words import Word
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.model import TextModel


def document(trace: Trace, *only: str) -> Any:
    file = io.StringIO()
    write_json(trace, file, only or ("*",))
    return json.loads(file.getvalue(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_the_agreed_keys_and_every_bit(chord_trace: Trace) -> None:
    found = document(chord_trace)
    assert found["model"] == {
        "name": "model",
        "architecture": "modern",
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 16,
        "block_size": 32,
        "vocab_size": chord_trace.config.vocab_size,
        "parameters": chord_trace.n_parameters,
    }
    assert found["prompt_tokens"] == 7
    assert [token["text"] for token in found["tokens"]] == ["<song>", "D", "A", "Bm", "G", "D", "A"]
    assert found["tokens"][0]["probability"] is None
    assert found["tokens"][1]["bytes"] is None
    for token, before in zip(found["tokens"][1:], found["steps"], strict=False):
        same = [choice for choice in before["top"] if choice["id"] == token["id"]]
        assert all(choice["percent"] == pytest.approx(100 * token["probability"]) for choice in same)
    assert [len(step["top"]) for step in found["steps"]] == [3] * 7
    assert found["steps"][2]["top"][0].keys() == {"id", "text", "logit", "percent"}
    assert [row["name"] for row in found["lens"]] == ["resid_pre", "h.0.resid_post", "h.1.resid_post"]
    assert found["lens"][-1]["steps"] == found["steps"]
    assert [each["name"] for each in found["trace"]] == [each.name for each in chord_trace.operations]
    for each in found["trace"]:
        values = chord_trace[each["name"]]
        again = np.array(each["values"], values.dtype)
        assert list(again.shape) == each["shape"] and (again == values).all()


def test_float64_keeps_every_bit() -> None:
    config = GPTConfig("micro", 11, 8, 1, 2, 4)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape) for name, shape in parameter_shapes(config).items()}
    trace = record("m", config, weights, [1, 2], 2, lambda token: Word(str(token)), 11, 3, ["*"])
    for each in document(trace)["trace"]:
        assert trace[each["name"]].dtype == np.float64
        assert (np.array(each["values"]) == trace[each["name"]]).all()


def test_names_select(names_model: TextModel) -> None:
    trace = names_model.trace('a"<\\')
    found = document(trace, "h.?.attn.weights", "logits")
    assert [each["name"] for each in found["trace"]] == ["h.0.attn.weights", "h.1.attn.weights", "logits"]
    assert (np.array(found["trace"][2]["values"], np.float32) == trace["logits"]).all()
    assert [token["text"] for token in found["tokens"]] == ["<BOS>", "a", '"', "<", "\\"]
    assert found["tokens"][2]["bytes"] == [34]
    file = io.StringIO()
    with pytest.raises(EtudeError, match="no intermediate"):
        write_json(trace, file, ["nothing"])
    assert file.getvalue() == ""
