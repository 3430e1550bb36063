"""GPT-2 as one GGUF file, which llama.cpp and all that is built on it run.

The format is a header, keys with values, the tensors' names and shapes, then their numbers, all little-endian and each
tensor on a multiple of 32 bytes (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). It is written here, not by
the `gguf` package, because it is short and weights so go from their map to the file in pieces, without a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError

from .config import GPTConfig
from .directory import Weights

Array = NDArray[Any]

# Names of GPT-2's tensors in llama.cpp; a layer's begin with blk.0, blk.1, ... instead of h.0, h.1, ...
_NAMES = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "ln_f": "output_norm",
    "lm_head": "output",
}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5  # kinds of token
_ALIGNMENT = 32
_PIECE = 1 << 18  # numbers that are converted at once
BLOCK = 32
"""Neighbours in a row that share a scale where weights are quantised."""


def q8_0(rows: Array) -> Array:
    """Blocks of 32 numbers as a float16 scale and 32 whole numbers from -127 to 127: [n, in] to bytes [n, in/32 * 34].

    Bit for bit what ggml's own reference makes, as is `q4_0`.
    """
    blocks = rows.reshape(-1, BLOCK)  # [b, 32]
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)  # [b, 1]
    scaled = blocks * _inverse(scale)
    whole = np.trunc(scaled)
    whole += np.trunc(2 * (scaled - whole))  # halves away from zero
    packed = np.hstack([scale.astype("<f2").view(np.uint8), whole.astype(np.int8).view(np.uint8)])  # [b, 2 + 32]
    return packed.reshape(len(rows), -1)


def q4_0(rows: Array) -> Array:
    """Blocks of 32 numbers as a float16 scale and 32 whole numbers from -8 to 7: [n, in] to bytes [n, in/32 * 18].

    The number farthest from zero is -8 times the scale. A byte holds number i of the block and, above it, 16 + i.
    """
    blocks = rows.reshape(-1, BLOCK)  # [b, 32]
    farthest = np.abs(blocks).argmax(axis=1)[:, None]
    scale = np.take_along_axis(blocks, farthest, axis=1) / np.float32(-8)  # [b, 1]
    shifted = (blocks * _inverse(scale) + np.float32(8.5)).astype(np.uint8).clip(0, 15)  # 0 to 15 stands for -8 to 7
    packed = np.hstack([scale.astype("<f2").view(np.uint8), shifted[:, :16] | shifted[:, 16:] << 4])  # [b, 2 + 16]
    return packed.reshape(len(rows), -1)


def _inverse(scale: Array) -> Array:
    """1/scale, or 0 for zeros and for what is so small that 1/scale is beyond float32: as float16, both are 0."""
    usable = np.abs(scale) >= np.finfo(np.float32).tiny
    return np.divide(1, scale, out=np.zeros_like(scale), where=usable)


@dataclass(frozen=True, slots=True)
class _Type:
    """How a tensor's numbers are stored: ggml's number for it, bytes a block, and rows [n, in] as an array of them."""

    number: int
    block: int
    block_bytes: int
    convert: Callable[[Array], Array]


_TYPES = {
    "float32": _Type(0, 1, 4, lambda rows: rows.astype("<f4", copy=False)),
    "float16": _Type(1, 1, 2, lambda rows: rows.astype("<f2")),
    "int4": _Type(2, BLOCK, 18, q4_0),
    "int8": _Type(8, BLOCK, 34, q8_0),
}
_FILE_TYPES = {"float32": 0, "float16": 1, "int4": 2, "int8": 7}  # what most tensors of a file are


def write_gguf(
    file: BinaryIO,
    config: GPTConfig,
    weights: Weights,
    tokenizer: dict[str, Any],
    begins_with_bos: bool,
    kind: str,
    licence: str | None,
    pure: bool = False,
) -> None:
    """Write a `gpt2` model, with the document of its tokenizer.json; equal arguments give equal bytes.

    `kind` is float32, float16, int8 (ggml's Q8_0) or int4 (Q4_0, with embeddings and head in Q8_0 unless it is `pure`).
    Biases, norms and positions are float32 in all of them. Raises `EtudeError` for what the format cannot say.
    """
    if kind in ("int8", "int4") and config.n_embd % BLOCK:
        raise EtudeError(
            f"n_embd {config.n_embd} is not a multiple of {BLOCK}, the block of {kind}; leave --quantize out"
        )
    tensors = {_name(name): (array.T if _is_linear(name) else array) for name, array in weights.items()}
    types = {name: _TYPES[_kind(name, array, kind, pure)] for name, array in tensors.items()}
    pairs = _keys(config, tokenizer, begins_with_bos, kind, licence)
    file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)))
    for key, value in pairs.items():
        file.write(_string(key) + _value(value))
    offset = 0
    for name, array in tensors.items():
        # The fastest dimension goes first, and is counted in numbers whatever their type.
        file.write(_string(name) + struct.pack(f"<I{array.ndim}Q", array.ndim, *reversed(array.shape)))
        file.write(struct.pack("<IQ", types[name].number, offset))
        offset += _padded(array.size // types[name].block * types[name].block_bytes)
    file.write(bytes(-file.tell() % _ALIGNMENT))
    for name, array in tensors.items():
        written = 0
        for rows in _pieces(array):
            written += file.write(np.ascontiguousarray(types[name].convert(rows)).data)
        file.write(bytes(_padded(written) - written))


def _name(name: str) -> str:
    """llama.cpp's name of a parameter."""
    module, _, part = name.rpartition(".")
    if not module.startswith("h."):
        return f"{_NAMES[module]}.{part}"
    _, layer, module = module.split(".", 2)
    return f"blk.{layer}.{_NAMES[module]}.{part}"


def _is_linear(name: str) -> bool:
    """Whether it is a matrix [in, out], which is [out, in] in llama.cpp; embeddings and heads are [V, d] in both."""
    return name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def _kind(name: str, array: Array, kind: str, pure: bool) -> str:
    if array.ndim == 1 or name == "position_embd.weight":
        return "float32"
    finer = kind == "int4" and not pure and name in ("token_embd.weight", "output.weight")
    return "int8" if finer else kind


def _pieces(array: Array) -> Iterator[Array]:
    """Some rows at a time in float32, contiguous: a converted copy of a whole table would be as large as the table."""
    matrix = array.reshape(1, -1) if array.ndim == 1 else array
    step = max(1, _PIECE // matrix.shape[1])
    for at in range(0, len(matrix), step):
        yield np.ascontiguousarray(matrix[at : at + step], np.float32)


def _keys(
    config: GPTConfig, tokenizer: dict[str, Any], begins_with_bos: bool, kind: str, licence: str | None
) -> dict[str, Any]:
    if config.eos_token_id is None or config.bos_token_id is None:
        raise EtudeError("the model names no token that ends a text, and llama.cpp would take token 11 for it")
    tokens, kinds = _tokens(tokenizer, config.vocab_size)
    merges = tokenizer["model"]["merges"]
    return {
        "general.architecture": "gpt2",
        **({} if licence is None else {"general.license": licence}),
        "general.file_type": _FILE_TYPES[kind],
        "general.quantization_version": 2,
        "general.alignment": _ALIGNMENT,
        "gpt2.context_length": config.block_size,
        "gpt2.embedding_length": config.n_embd,
        "gpt2.feed_forward_length": 4 * config.n_embd,
        "gpt2.block_count": config.n_layer,
        "gpt2.attention.head_count": config.n_head,
        "gpt2.attention.layer_norm_epsilon": config.layer_norm_epsilon,
        "gpt2.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [pair if isinstance(pair, str) else " ".join(pair) for pair in merges],
        "tokenizer.ggml.bos_token_id": config.bos_token_id,
        "tokenizer.ggml.eos_token_id": config.eos_token_id,
        "tokenizer.ggml.add_bos_token": begins_with_bos,
    }


def _tokens(tokenizer: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    """Text and kind of each id. Ids of a padded table that no token has are named, each otherwise, and unused."""
    tokens = [f"[unused {number}]" for number in range(vocab_size)]  # a token of BPE has no blank in it
    kinds = [_UNUSED] * vocab_size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], kinds[number] = token, _NORMAL
    for added in tokenizer.get("added_tokens", []):
        number, special = added["id"], added.get("special", False)
        tokens[number], kinds[number] = added["content"], _CONTROL if special else _USER_DEFINED
    return tokens, kinds


def _value(value: bool | int | float | str | Sequence[str] | Sequence[int]) -> bytes:
    """A value after the number of its type."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if value and isinstance(value[0], int):
        return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(str(each)) for each in value)


def _string(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _padded(size: int) -> int:
    return size + -size % _ALIGNMENT
