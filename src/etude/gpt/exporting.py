"""Out of Étude, into the tools that everyone else uses: a model directory to transformers, llama.cpp or onnxruntime.

What is written appears whole or not at all, and where nothing stood before.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from etude.errors import EtudeError
from etude.files import atomic_directory, atomic_write
from etude.tokens.bpe import BPETokenizer
from etude.tokens.chords import ChordTokenizer

from .config import Architecture
from .directory import CARD, CONFIG, TOKENIZER, ModelFiles, load_model, save_model
from .importing import licence_of

ARCHITECTURES: dict[str, tuple[Architecture, ...]] = {"hf": ("gpt2",), "gguf": ("gpt2",), "onnx": ("gpt2", "micro")}
"""Each format's name, and the architectures that it takes."""
DTYPES = ("float32", "float16")
QUANTIZED = ("int8", "int4")
ONNX, ONNX_DATA = "model.onnx", "model.onnx_data"
_LARGEST_HALF = float(np.finfo(np.float16).max)


class ExportingError(EtudeError):
    """A model that a format does not take, or a destination that cannot be written."""


def export_model(
    source: Path, destination: Path, to: str, dtype: str | None = None, quantize: str | None = None
) -> ModelFiles:
    """Write the model directory `source` as `destination`: a directory for `hf` and `onnx`, a file for `gguf`.

    `dtype` (float32 unless it is told) is for `hf` and `gguf`; `quantize` is for `gguf`: `int8` is its Q8_0, `int4` its
    Q4_0. `destination` must not exist. Returns what was exported. Raises `ExportingError`, or `ModelError` for a source
    with a fault in it; then nothing is left behind.
    """
    kind = _kind(to, dtype, quantize)
    if os.path.lexists(destination):
        raise ExportingError(f"{destination}: exists already; name a new one, or take that one away")
    if to == "onnx":
        _check_onnx()
    model = load_model(source)
    if model.config.architecture not in ARCHITECTURES[to]:
        able = "; ".join(f"{each}: {' and '.join(ARCHITECTURES[each])}" for each in ARCHITECTURES)
        raise ExportingError(f"{source}: no {to} for a {model.config.architecture} model; what can be exported: {able}")
    if model.config.precision != "float32":
        raise ExportingError(f"{source}: is stored in {model.config.precision}; export the model that it was made from")
    try:
        plain = _with_standard_tokenizer(model)
        if kind != "float32":
            _check_range(plain)
        if to == "hf":
            _write_hf(plain, destination, kind)
        elif to == "gguf":
            _write_gguf(plain, destination, kind, not isinstance(model.tokenizer, BPETokenizer))
        else:
            _write_onnx(plain, destination)
    except EtudeError as error:
        raise ExportingError(f"{source}: {error}") from error
    except OSError as error:
        raise ExportingError(
            f"{destination}: cannot be written ({error.strerror or error}); nothing was left there"
        ) from error
    return plain


def _kind(to: str, dtype: str | None, quantize: str | None) -> str:
    """What the weights become. Raises `ExportingError` for what the format has not."""
    for name, value, known in (
        ("--to", to, ARCHITECTURES),
        ("--dtype", dtype, DTYPES),
        ("--quantize", quantize, QUANTIZED),
    ):
        if value is not None and value not in known:
            raise ExportingError(f"{name} {value!r} is none of {', '.join(known)}")
    if quantize is not None and to != "gguf":
        raise ExportingError(f"--quantize is for gguf and etude, not for {to}")
    if quantize is not None and dtype is not None:
        raise ExportingError("--dtype and --quantize exclude each other; give one")
    if dtype == "float16" and to == "onnx":
        raise ExportingError("onnx is written in float32 alone; leave --dtype out")
    return quantize or dtype or "float32"


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ExportingError("the format onnx needs the onnx package: pip install 'etude[export]'") from None


def _with_standard_tokenizer(model: ModelFiles) -> ModelFiles:
    """The same model with a tokenizer that others have, and the ids of the tokens that begin and end its texts."""
    if isinstance(model.tokenizer, ChordTokenizer):
        raise ExportingError("its tokens are chords, which no other tool has")
    if isinstance(model.tokenizer, BPETokenizer):
        return model
    bos = model.tokenizer.bos_id
    tokenizer = BPETokenizer.from_json(model.tokenizer.to_bpe_json())
    return replace(model, tokenizer=tokenizer, config=replace(model.config, bos_token_id=bos, eos_token_id=bos))


def _check_range(model: ModelFiles) -> None:
    """float16, the weights or their blocks' scales, ends at 65,504; what is beyond would become infinite."""
    for name, array in model.weights.items():
        if max(-float(array.min()), float(array.max())) > _LARGEST_HALF:
            raise ExportingError(
                f"{name} holds a number beyond {_LARGEST_HALF:,.0f}, float16's largest; export float32"
            )


def _write_hf(model: ModelFiles, destination: Path, dtype: str) -> None:
    """A model directory, and what `transformers` does not read from tokenizer.json itself."""
    config = model.config
    special = {"bos_token": config.bos_token_id, "eos_token": config.eos_token_id}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # the class that takes tokenizer.json as it is
        "model_max_length": config.block_size,
        "clean_up_tokenization_spaces": False,
        **{name: _token(model, number) for name, number in special.items() if number is not None},
    }
    with atomic_directory(destination) as folder:
        _write_json(folder / "tokenizer_config.json", settings)
        save_model(folder, config, model.weights, model.tokenizer, model.card, dtype)


def _token(model: ModelFiles, number: int) -> str:
    """The text of a token as tokenizer.json has it."""
    assert isinstance(model.tokenizer, BPETokenizer)
    document = json.loads(model.tokenizer.to_json())
    tokens = {each: text for text, each in document["model"]["vocab"].items()}
    tokens |= {each["id"]: each["content"] for each in document.get("added_tokens", [])}
    if number not in tokens:
        raise ExportingError(f"token {number}, which {CONFIG} names, is none of {TOKENIZER}")
    text: str = tokens[number]
    return text


def _write_gguf(model: ModelFiles, destination: Path, kind: str, begins_with_bos: bool) -> None:
    from .gguf import write_gguf

    assert isinstance(model.tokenizer, BPETokenizer)
    if model.tokenizer.pattern != "gpt2":
        raise ExportingError("its tokens are cut by the pattern of chord text, which llama.cpp has not; export hf")
    tokenizer: dict[str, Any] = json.loads(model.tokenizer.to_json())
    with atomic_write(destination) as file:
        write_gguf(file, model.config, model.weights, tokenizer, begins_with_bos, kind, licence_of(model.card))


def _write_onnx(model: ModelFiles, destination: Path) -> None:
    """The graph, its weights in a file beside it whatever their size, and what else a model directory has."""
    from .onnx_graph import onnx_model

    with atomic_directory(destination) as folder:
        _write_json(folder / CONFIG, model.config.to_dict())
        for name, text in {TOKENIZER: model.tokenizer.to_json(), CARD: model.card}.items():
            (folder / name).write_bytes(text.encode())
        with atomic_write(folder / ONNX_DATA) as data:
            graph = onnx_model(model.config, model.weights, data, ONNX_DATA)
        with atomic_write(folder / ONNX) as file:
            file.write(graph.SerializeToString(deterministic=True))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_bytes((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
