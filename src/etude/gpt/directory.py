"""The model directory, the project's one noun: configuration, weights, tokenizer and card, read and written safely.

`model.safetensors` carries digests of its own tensors, of the configuration and of the tokenizer in its header, so
that a changed byte or a file of another model is one clear error. A `gpt2` directory is also what `transformers` reads
and writes: what it wrote has no digests, and may have its weights in several files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.files import atomic_write
from etude.tokens.bpe import BPETokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import TextTokenizer, Tokenizer, TokenizerError, read_tokenizer

from .config import ConfigError, GPTConfig, parameter_shapes
from .tensors import TensorFile, TensorFileError, digest, is_finite, write_tensors

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"
NGRAMS = "ngrams.safetensors"  # optional: the counts behind the baselines of `etude eval`
VOCABULARY = ("vocab.json", "merges.txt")  # GPT-2's tokenizer in two files, where there is no tokenizer.json
INDEX = "model.safetensors.index.json"  # of weights in several files
MAX_TEXT_BYTES = 64 << 20
_HEADER_KEY = "etude"
_PREFIX = "transformer."  # before every name but the head's, in what `GPT2LMHeadModel` writes
_SHARD = re.compile(r"[^/\\]+\.safetensors")
# The causal mask and what it masks with: constants that older files carry beside the weights.
_MASK = re.compile(r"h\.\d+\.attn\.(masked_)?bias")

Weights = dict[str, NDArray[Any]]  # float32 or float64


class ModelError(EtudeError):
    """A model directory that cannot be used; the message names the file and the fault."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model directory holds. Weights, not to be written to, are float64 where they are on disk, else float32."""

    config: GPTConfig
    weights: Weights
    tokenizer: TextTokenizer | ChordTokenizer
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
    tensors = {_name_in_file(config, name): array for name, array in weights.items()}
    header = {"tensors": digest(tensors, dtype), CONFIG: _sha256(config_text), TOKENIZER: _sha256(tokenizer_text)}
    metadata = {_HEADER_KEY: json.dumps(header, sort_keys=True)}
    if config.architecture == "gpt2" and config.precision == "float32":
        metadata["format"] = "pt"  # without it, transformers refuses the file
    for name, content in {CONFIG: config_text, TOKENIZER: tokenizer_text, CARD: card.encode()}.items():
        with atomic_write(directory / name) as file:
            file.write(content)
    with atomic_write(directory / WEIGHTS) as file:
        write_tensors(file, tensors, metadata, dtype)


def load_model(directory: Path, tokenizer_path: Path | None = None) -> ModelFiles:
    """Read and check a model directory. Raises `ModelError`.

    `tokenizer_path`, as `BPETokenizer.from_path` takes it, goes before what `directory` has for a tokenizer.
    """
    if not directory.is_dir():
        raise ModelError(f"{directory}: no such model directory")
    try:
        config_text = _text(directory / CONFIG)
        config = GPTConfig.from_dict(_json(config_text, directory / CONFIG))
    except ConfigError as error:
        raise ModelError(f"{directory / CONFIG}: {error}") from error
    if tokenizer_path is None:
        source = directory / TOKENIZER
        tokenizer, tokenizer_text = _tokenizer(directory, config)
    else:
        source, tokenizer = tokenizer_path, _other_tokenizer(tokenizer_path)
    unused = config.vocab_size - tokenizer.vocab_size
    if unused < 0 or (unused and config.architecture != "gpt2"):
        raise ModelError(f"{source}: has {tokenizer.vocab_size:,} ids, but {CONFIG} says {config.vocab_size:,}")
    beside = {CONFIG: _sha256(config_text.encode())}
    if tokenizer_path is None:
        beside[TOKENIZER] = _sha256(tokenizer_text.encode())
    weights = _weights(directory, config, beside)
    if not isinstance(tokenizer, ChordTokenizer):  # what the configuration does not say, the vocabulary does
        bos, end = config.bos_token_id, config.eos_token_id
        config = replace(
            config,
            bos_token_id=tokenizer.bos_id if bos is None else bos,
            eos_token_id=tokenizer.end_id if end is None else end,
        )
    card = _text(directory / CARD) if (directory / CARD).exists() else ""
    return ModelFiles(config, weights, tokenizer, card)


def _tokenizer(directory: Path, config: GPTConfig) -> tuple[TextTokenizer | ChordTokenizer, str]:
    """The tokenizer and the text that it is saved as; for `gpt2` the two files that OpenAI published do as well."""
    path = directory / TOKENIZER
    parts = [directory / name for name in VOCABULARY]
    try:
        if config.architecture == "gpt2" and not path.exists():
            if not all(part.exists() for part in parts):
                raise ModelError(
                    f"{path}: missing, and {' with '.join(VOCABULARY)} too; a model needs its tokenizer: "
                    "etude import --tokenizer PATH takes one from elsewhere"
                )
            tokenizer = BPETokenizer.from_files(*parts)
            return tokenizer, tokenizer.to_json()
        text = _text(path)
        return read_tokenizer(text), text
    except TokenizerError as error:
        # What is read from two files names the one at fault itself.
        raise ModelError(f"{path}: {error}" if path.exists() else str(error)) from error


def _other_tokenizer(path: Path) -> BPETokenizer:
    try:
        return BPETokenizer.from_path(path)
    except TokenizerError as error:  # names the file at fault itself
        raise ModelError(str(error)) from error


def _name_in_file(config: GPTConfig, name: str) -> str:
    """A tied `gpt2` has the names of OpenAI's files, an untied one the prefix that sets the head apart."""
    untied = (config.architecture, config.precision) == ("gpt2", "float32") and not config.tie_word_embeddings
    return _PREFIX + name if untied and name != "lm_head.weight" else name


def _weights(directory: Path, config: GPTConfig, beside: dict[str, str]) -> Weights:
    """Every parameter, mapped from its file where that is float32 or float64."""
    path, files = _weight_files(directory, config)
    found: dict[str, tuple[TensorFile, str]] = {}  # a parameter: its file, and its name there
    twice = []
    for file in files:
        for name in file.shapes:
            parameter = name.removeprefix(_PREFIX) if config.architecture == "gpt2" else name
            if config.architecture == "gpt2" and _MASK.fullmatch(parameter):
                continue
            if parameter in found:
                twice.append(parameter)
            found[parameter] = file, name
    if twice:
        raise ModelError(f"{path}: holds more than once: {', '.join(sorted(twice)[:4])}")
    shapes = {parameter: file.shapes[name] for parameter, (file, name) in found.items()}
    head = "lm_head.weight"
    copied_head = config.architecture == "gpt2" and config.tie_word_embeddings and head in shapes
    if copied_head:
        del shapes[head]
    _check_shapes(config, shapes, path)
    try:
        _check_digests(files, config, beside)
        weights = {parameter: file.array(name) for parameter, (file, name) in found.items()}
    except TensorFileError as error:
        raise ModelError(str(error)) from error
    if copied_head and not np.array_equal(weights.pop(head), weights["wte.weight"]):
        raise ModelError(f"{path}: {head} is not wte.weight, but {CONFIG} ties them; set tie_word_embeddings to false")
    numbers = {"float32": np.float32, "int8": np.int8, "int4": np.uint8}[config.precision]
    for name, array in weights.items():
        whole = name.endswith(".numbers") and config.precision != "float32"
        # What is packed is read at addresses, and must be what it should be to the bit.
        fits = (
            array.dtype == (numbers if whole else np.float32)
            if config.precision != "float32"
            else array.dtype.kind == "f"
        )
        if not fits:
            raise ModelError(f"{path}: {name} is {array.dtype}, which a model in {config.precision} has not there")
    if config.precision == "float32":
        precision = np.result_type(np.float32, *(array.dtype for array in weights.values()))
        weights = {name: array.astype(precision, copy=False) for name, array in weights.items()}
    if not all(map(is_finite, weights.values())):
        raise ModelError(f"{path}: holds numbers that are not finite")
    return weights


def _weight_files(directory: Path, config: GPTConfig) -> tuple[Path, list[TensorFile]]:
    """What holds the weights: the file to name in an error, and the files themselves."""
    path, index = directory / WEIGHTS, directory / INDEX
    try:
        if config.architecture != "gpt2" or path.exists() or not index.exists():
            return path, [TensorFile.open(path)]
        places = _json(_text(index), index).get("weight_map")
        names = list(places.values()) if isinstance(places, dict) else []
        # A name with a folder in it could lead anywhere.
        if not names or not all(isinstance(name, str) and _SHARD.fullmatch(name) for name in names):
            raise ModelError(f"{index}: its weight_map does not say which file beside it holds which tensor")
        return index, [TensorFile.open(directory / name) for name in sorted(set(names))]
    except TensorFileError as error:
        raise ModelError(str(error)) from error
    except FileNotFoundError as error:
        pickles = sorted(each.name for each in directory.glob("pytorch_model*.bin"))
        if pickles:
            raise ModelError(
                f"{directory / pickles[0]}: is a pickle, which can run any program and is not read here; convert it: "
                'python -c "from transformers import GPT2LMHeadModel as M; '
                f'M.from_pretrained({str(directory)!r}).save_pretrained({str(directory)!r})"'
            ) from error
        raise ModelError(f"{error.filename or path}: missing; a model directory needs it") from error


def _check_digests(files: list[TensorFile], config: GPTConfig, beside: dict[str, str]) -> None:
    """Compare what the weights' header says with what is there; what others wrote says nothing."""
    file = files[0]
    if config.architecture == "gpt2" and (len(files) > 1 or _HEADER_KEY not in file.metadata):
        return
    try:
        header = json.loads(file.metadata.get(_HEADER_KEY, "{}"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file.path}: damaged or not a safetensors file ({error})") from error
    if not isinstance(header, dict) or header.get("tensors") != digest(file):
        raise ModelError(f"{file.path}: its content is not what was written (digest differs); copy or train it again")
    for name, wanted in beside.items():
        if header.get(name) != wanted:
            raise ModelError(f"{file.path}: was written with another {name} than the one beside it")


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
