"""Named arrays in a safetensors file: written one after another, and mapped instead of read.

So a file of any size is written and used without a second copy of it in memory.
Format: 8 bytes of header length, a JSON header with names, types, shapes and offsets, then the numbers themselves
(https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from etude.errors import EtudeError

Tensors = Mapping[str, NDArray[Any]]

# bfloat16 is the upper half of a float32; NumPy does not know it, so its bits are read.
_DTYPES = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "BF16": np.uint16,
    "I8": np.int8,
    "U8": np.uint8,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items() if name != "BF16"} | {np.dtype(np.int64): "I64"}
_ALIGNMENT = 64  # a cache line: what is mapped can be computed with where it lies
_CHUNK = 1 << 20


class TensorFileError(EtudeError):
    """A safetensors file that cannot be used; the message names the file and the fault."""


@dataclass(frozen=True)
class TensorFile:
    """An open file: its metadata, and every tensor's type, shape and bytes, which are read when they are touched."""

    path: Path
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    _dtypes: dict[str, str]
    _bytes: dict[str, NDArray[np.uint8]]

    @staticmethod
    def open(path: Path) -> TensorFile:
        """Map a file. Raises `TensorFileError`, or `FileNotFoundError`."""
        try:
            path.open("rb").close()  # says better than the library why a file cannot be read
            with safe_open(path, framework="numpy") as file:  # checks header, shapes and offsets, reads no tensor
                metadata = file.metadata() or {}
            mapped = np.asarray(np.memmap(path, np.uint8, "r"))
            start = 8 + int.from_bytes(mapped[:8].tobytes(), "little")
            header = json.loads(mapped[8:start].tobytes())
        except FileNotFoundError:  # safetensors' own does not name the file
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
            raise TensorFileError(f"{path}: damaged or not a safetensors file ({error})") from error
        header.pop("__metadata__", None)
        return TensorFile(
            path,
            metadata,
            {name: tuple(tensor["shape"]) for name, tensor in header.items()},
            {name: tensor["dtype"] for name, tensor in header.items()},
            {name: mapped[slice(*(start + at for at in tensor["data_offsets"]))] for name, tensor in header.items()},
        )

    def raw(self, name: str) -> NDArray[Any]:
        """A tensor as it is in the file, not to be written to; bfloat16 as uint16. Raises `TensorFileError`."""
        kind = self._dtypes[name]
        if kind not in _DTYPES:
            raise TensorFileError(f"{self.path}: {name} is {kind}; floats of 16 to 64 bits and integers of 8 are read")
        array = self._bytes[name].view(_DTYPES[kind]).reshape(self.shapes[name])
        return np.require(array, requirements="A")

    def array(self, name: str) -> NDArray[Any]:
        """A tensor in float64 where the file has that, integers as they are, else in float32. Raises
        `TensorFileError`."""
        raw = self.raw(name)
        if raw.dtype == np.uint16:
            bits = raw.astype(np.uint32)
            np.left_shift(bits, 16, out=bits)
            return bits.view(np.float32)
        return raw.astype(np.float32) if raw.dtype == np.float16 else raw


def write_tensors(file: BinaryIO, tensors: Tensors, metadata: Mapping[str, str], dtype: str | None) -> None:
    """Write arrays in the order of their names, floats as `dtype` or as they are; equal arrays give equal bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in sorted(tensors):
        kind = _stored(tensors[name], dtype)
        begin, end = end, end + tensors[name].size * kind.itemsize
        header[name] = {
            "dtype": _NAMES[kind],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in sorted(tensors):
        file.write(np.ascontiguousarray(tensors[name], _stored(tensors[name], dtype)).data)


def _stored(array: NDArray[Any], dtype: str | None) -> np.dtype[Any]:
    """What an array is in a file: a float is of the type that is asked for."""
    return array.dtype if dtype is None or array.dtype.kind != "f" else np.dtype(dtype)


def digest(arrays: Mapping[str, NDArray[Any]] | TensorFile, dtype: str | None = None) -> str:
    """SHA-256 over names, types, shapes and bytes: of a file's tensors, or of what arrays are as `dtype`."""
    total = hashlib.sha256()
    for name in sorted(arrays.shapes if isinstance(arrays, TensorFile) else arrays):
        array = arrays.raw(name) if isinstance(arrays, TensorFile) else arrays[name]
        array = np.ascontiguousarray(array, _stored(array, dtype))
        total.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        for part in _parts(array):
            total.update(part.data)
            release(part)
    return total.hexdigest()


def is_finite(array: NDArray[Any]) -> bool:
    """Whether all its numbers are, looked at in parts: a mask of the whole would be a quarter of its size."""
    finite = True
    for part in _parts(array):
        finite = finite and bool(np.isfinite(part).all())
        release(part)
    return finite


def _parts(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Its numbers, some megabytes at a time."""
    flat = array.reshape(-1)
    return (flat[at : at + _CHUNK] for at in range(0, len(flat), _CHUNK))


def release(array: NDArray[Any]) -> None:
    """Let the system take back the memory of a mapped array that was read; what is read again comes from the file."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise") or not array.size:
        return
    beginning = np.frombuffer(base, np.uint8).ctypes.data
    steps = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    start = array.ctypes.data - beginning + sum(step for step in steps if step < 0)
    stop = start + sum(map(abs, steps)) + array.itemsize
    start -= start % mmap.PAGESIZE
    base.madvise(mmap.MADV_DONTNEED, start, stop - start)
