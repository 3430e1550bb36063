"""The model directory, the project's one noun: configuration, weights, tokenizer and card, read and written safely.

`model.safetensors` carries digests of its own tensors, of the configuration and of the tokenizer in its header, so
that a changed byte or a file of another model is one clear error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from etude.errors import EtudeError
from etude.files import atomic_write
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import Tokenizer, TokenizerError, read_tokenizer

from .config import ConfigError, GPTConfig, parameter_shapes

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"
NGRAMS = "ngrams.safetensors"  # optional: the counts behind the baselines of `etude eval`
MAX_TEXT_BYTES = 64 << 20
_HEADER_KEY = "etude"  # one key: the header's order, and so the file's bytes, stay the same

Weights = dict[str, NDArray[Any]]  # float32 or float64


class ModelError(EtudeError):
    """A model directory that cannot be used; the message names the file and the fault."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model directory holds. Weights are float64 here where they are on disk, else float32."""

    config: GPTConfig
    weights: Weights
    tokenizer: CharTokenizer | ChordTokenizer
    card: str


def save_model(
    directory: Path,
    config: GPTConfig,
    weights: Mapping[str, NDArray[Any]],
    tokenizer: Tokenizer,
    card: str,
    dtype: str = "float32",
) -> None:
    """Write the four files, each atomically and the weights last.

    `dtype` is what the weights are on disk: `float16`, `float32` or `float64`.
    """
    _check_shapes(config, {name: array.shape for name, array in weights.items()}, directory / WEIGHTS)
    directory.mkdir(parents=True, exist_ok=True)
    config_text = (json.dumps(config.to_dict(), indent=2) + "\n").encode()
    tokenizer_text = tokenizer.to_json().encode()
    tensors = {name: np.ascontiguousarray(weights[name], dtype=dtype) for name in sorted(weights)}
    header = {"tensors": _digest(tensors), CONFIG: _sha256(config_text), TOKENIZER: _sha256(tokenizer_text)}
    files = {
        CONFIG: config_text,
        TOKENIZER: tokenizer_text,
        CARD: card.encode(),
        WEIGHTS: safetensors_bytes(tensors, {_HEADER_KEY: json.dumps(header, sort_keys=True)}),
    }
    for name, content in files.items():
        with atomic_write(directory / name) as file:
            file.write(content)


def load_model(directory: Path) -> ModelFiles:
    """Read and check a model directory. Raises `ModelError`."""
    if not directory.is_dir():
        raise ModelError(f"{directory}: no such model directory")
    try:
        config_text = _text(directory / CONFIG)
        config = GPTConfig.from_dict(_json(config_text, directory / CONFIG))
    except ConfigError as error:
        raise ModelError(f"{directory / CONFIG}: {error}") from error
    tokenizer_text = _text(directory / TOKENIZER)
    try:
        tokenizer = read_tokenizer(tokenizer_text)
    except TokenizerError as error:
        raise ModelError(f"{directory / TOKENIZER}: {error}") from error
    if tokenizer.vocab_size != config.vocab_size:
        raise ModelError(
            f"{directory / TOKENIZER}: has {tokenizer.vocab_size:,} ids, but {CONFIG} says {config.vocab_size:,}"
        )
    beside = {CONFIG: _sha256(config_text.encode()), TOKENIZER: _sha256(tokenizer_text.encode())}
    weights = _weights(directory / WEIGHTS, config, beside)
    card = _text(directory / CARD) if (directory / CARD).exists() else ""
    return ModelFiles(config, weights, tokenizer, card)


def _weights(path: Path, config: GPTConfig, beside: dict[str, str]) -> Weights:
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER_KEY, "{}"))
            _check_shapes(config, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, path)  # noqa: SIM118
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; a model directory needs it") from error
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: damaged or not a safetensors file ({error})") from error
    if not isinstance(header, dict) or header.get("tensors") != _digest(tensors):
        raise ModelError(f"{path}: its content is not what was written (digest differs); copy or train it again")
    for name, digest in beside.items():
        if header.get(name) != digest:
            raise ModelError(f"{path}: was written with another {name} than the one beside it")
    if any(array.dtype not in (np.float16, np.float32, np.float64) for array in tensors.values()):
        raise ModelError(f"{path}: holds tensors that are not float16, float32 or float64")
    precision = np.result_type(np.float32, *(array.dtype for array in tensors.values()))
    weights = {name: array.astype(precision) for name, array in tensors.items()}
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise ModelError(f"{path}: holds numbers that are not finite")
    return weights


def _check_shapes(config: GPTConfig, found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    wanted = parameter_shapes(config)
    faults = [f"missing {name}" for name in wanted.keys() - found.keys()]
    faults += [f"unknown {name}" for name in found.keys() - wanted.keys()]
    faults += [
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in wanted.keys() & found.keys()
        if tuple(found[name]) != wanted[name]
    ]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ModelError(f"{path}: does not fit {CONFIG}: {'; '.join(sorted(faults)[:4])}{more}")


def _digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _text(path: Path) -> str:
    try:
        if os.path.getsize(path) > MAX_TEXT_BYTES:
            raise ModelError(f"{path}: larger than {MAX_TEXT_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelError(f"{path}: missing; a model directory needs it") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not JSON ({error})") from error
    if not isinstance(document, dict):
        raise ModelError(f"{path}: not a JSON object")
    return document
