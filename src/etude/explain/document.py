"""A trace as one JSON document, written as it is made: the numbers of GPT-2 for a few words are many megabytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np

from etude.engines.array import Array

from .trace import Choice, Token, Trace


def write_json(trace: Trace, file: TextIO, only: Sequence[str] = ("*",)) -> None:
    """Write the document; its `trace` has the names that match `only`.

    Numbers have as many digits as give back the same bits. Raises `EtudeError` where a pattern matches no name,
    `KeyError` where the values of one were not kept.
    """
    operations = trace.only(only)
    c = trace.config
    head: dict[str, Any] = {
        "model": {
            "name": trace.model,
            "architecture": c.architecture,
            "n_layer": c.n_layer,
            "n_head": c.n_head,
            "n_embd": c.n_embd,
            "block_size": c.block_size,
            "vocab_size": c.vocab_size,
            "parameters": trace.n_parameters,
        },
        "prompt_tokens": trace.n_prompt,
        "tokens": list(map(_token, trace.tokens)),
        "steps": list(map(_top, trace.steps)),
        "lens": [{"name": name, "steps": list(map(_top, rows))} for name, rows in trace.lens().items()],
    }
    file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "trace": [')
    for i, operation in enumerate(operations):
        start = "," if i else ""
        file.write(f'{start}\n{{"name": "{operation.name}", "shape": {list(operation.shape)}, "values": ')
        _write_numbers(trace[operation.name], file)
        file.write("}")
    file.write("\n]}\n")


def _token(token: Token) -> dict[str, Any]:
    word = token.word
    return {
        "id": token.id,
        "text": word.text,
        "probability": token.probability,
        "rank": token.rank,
        "bytes": None if word.bytes is None else list(word.bytes),
        "merges": word.merges,
    }


def _top(choices: Sequence[Choice]) -> dict[str, Any]:
    return {"top": [{"id": c.id, "text": c.text, "logit": c.logit, "percent": c.percent} for c in choices]}


def _write_numbers(values: Array, file: TextIO) -> None:
    """Nested lists, a row written at a time."""
    if values.ndim > 1:
        for i, part in enumerate(values):
            file.write("," if i else "[")
            _write_numbers(part, file)
        file.write("]")
        return
    digits = {np.dtype(np.float32): "%.9g", np.dtype(np.float64): "%.17g"}.get(values.dtype, "%d")
    file.write("[" + ",".join([digits % value for value in values.tolist()]) + "]")
