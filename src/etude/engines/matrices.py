"""Matrices of float32, int8 or int4 numbers and their products, for Numba.

A row of int8 has one scale; of int4 one for every 64 numbers. What such rows are multiplied with is rounded as well, to
integers of up to 16 bits, so that the sums are exact or nearly so and the processor takes 32 products at once.
A token's results do not depend on which other tokens it is computed with: every product sums in one fixed order.

A function that raises here is a name alone: Numba compiles the body that its `overload` below picks by the numbers'
type, and outside of compiled code there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from etude.gpt.config import GROUP, ROWS, Precision
from etude.gpt.tensors import release

from .kernels import Array, aligned, kernel
from .team import barrier, share, team
from .vectors import dots_float32, dots_int4, dots_int8, largest, square_float32, square_int16

TILE = ROWS  # rows that are unpacked or multiplied at a time
_BLOCK = 4096  # bytes of each row that a tile's products take at a time, so that they stay in the nearest cache
_LANE_SUM = 16 * (2**31 - 1)  # what the products in all 16 lanes may sum to
_CHUNK = 2048  # rows that are read at a time where a matrix is packed
_FRACTIONS = np.array([1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7], np.float32)


class Matrix(NamedTuple):
    """m matrices of one shape, [n, k] each, with which y = W x + bias. Zeros round n up to whole tiles, k to groups."""

    numbers: Array  # [m, n, k] float32 or int8, or [m, n, k / 2] uint8 for int4
    scales: Array  # [m, n, 0] for float32, [m, n, 1] for int8, [m, n, groups] for int4
    bias: Array  # [m, n]


class Tile(NamedTuple):
    """Some rows, unpacked: as float32, or as integers with a scale a row."""

    numbers: Array  # [TILE, k]
    codes: Array  # [TILE, k] int16
    scales: Array  # [TILE], or the sums of one token
    sums: Array  # [4, 4] of four tokens


def make_tile(k: int) -> Tile:
    """A tile for rows of up to k."""
    k = -(-k // GROUP) * GROUP
    shapes = ((TILE, k), np.float32), ((TILE, k), np.int16), ((TILE,), np.float32), ((4, 4), np.float32)
    return Tile(*(aligned(shape, dtype) for shape, dtype in shapes))


def packed(
    sources: list[Array], biases: list[Array] | None, precision: Precision, *, transposed: bool = False
) -> Matrix:
    """The matrices `sources`, [n, k] each or [k, n] where they are `transposed`, in a precision.

    What is mapped from a file is given back to the system as soon as it is read.
    """
    n, k = sources[0].shape[::-1] if transposed else sources[0].shape
    m, rows, groups = len(sources), -(-n // TILE) * TILE, -(-k // GROUP)
    dtype, width = {"float32": (np.float32, GROUP), "int8": (np.int8, GROUP), "int4": (np.uint8, GROUP // 2)}[precision]
    numbers = aligned((m, rows, groups * width), dtype)
    scales = aligned((m, rows, {"float32": 0, "int8": 1, "int4": groups}[precision]), np.float32)
    bias = aligned((m, rows), np.float32)
    for i, source in enumerate(sources):
        if biases is not None:
            bias[i, :n] = biases[i]
        # One kind of array, so that one version is compiled: mapped ones cannot be written to, and slices have gaps.
        flat = np.ascontiguousarray(source, np.float32).reshape(-1)
        flat.flags.writeable = False
        steps = (1, n) if transposed else (k, 1)  # from one row to the next, and within a row
        if not i:  # compiled or loaded by one thread: an interrupt then leaves no other waiting
            team().run(_pack, flat[:0], steps, k, numbers[i, :0], scales[i, :0], threads=1)
        for start in range(0, n, _CHUNK):
            chunk = slice(start, min(start + _CHUNK, n))
            team().run(_pack, flat[start * steps[0] :], steps, k, numbers[i, chunk], scales[i, chunk])
            if not transposed:
                release(source[chunk])
        release(source)
    return Matrix(numbers, scales, bias)


def stored(weights: Mapping[str, Array], name: str) -> Matrix:
    """A matrix that was saved packed, in memory of its own: large pages are read faster than those of a file."""
    parts = []
    for part in Matrix._fields:
        source = weights[f"{name}.{part}"]
        array = aligned(source.shape, source.dtype)
        for layer, rows in enumerate(source):
            for start in range(0, len(rows), _CHUNK):
                array[layer, start : start + _CHUNK] = rows[start : start + _CHUNK]
                release(rows[start : start + _CHUNK])
        parts.append(array)
    return Matrix(*parts)


@kernel
def _pack(
    source: Array,
    steps: tuple[int, int],
    k: int,
    numbers: Array,
    scales: Array,
    meeting: Array,
    thread: int,
    threads: int,
) -> None:
    """Round rows of k numbers to numbers and scales; number i of row j is source[j * steps[0] + i * steps[1]]."""
    n = len(numbers)
    tile = np.zeros((TILE, (k + GROUP - 1) // GROUP * GROUP), np.float32)
    first, last = share(n, TILE, thread, threads)
    for start in range(first, min(last, n), TILE):
        stop = min(start + TILE, n)
        for i in range(k):  # along the rows of a transposed source
            for j in range(start, stop):
                tile[j - start, i] = source[j * steps[0] + i * steps[1]]
        for j in range(start, stop):
            round_row(tile[j - start], numbers[j], scales[j])
    barrier(meeting, threads)


def round_row(row: Array, numbers: Array, scales: Array) -> None:
    """Write a row [k] of float32 in the precision that `numbers` has."""
    raise NotImplementedError("compiled only")  # a name: Numba compiles what `overload` picks for it


@overload(round_row)
def _round_row_for(row: Any, numbers: Any, scales: Any) -> Any:
    if numbers.dtype == types.float32:

        def copy(row: Any, numbers: Any, scales: Any) -> None:
            for i in range(len(numbers)):
                numbers[i] = row[i]

        return copy
    if numbers.dtype == types.int8:

        def to_int8(row: Any, numbers: Any, scales: Any) -> None:
            most = largest(row.ctypes.data, len(row) // GROUP)
            scales[0] = most / np.float32(127)
            inverse = np.float32(127) / most if most > 0 else np.float32(0)
            for i in range(len(numbers)):
                numbers[i] = np.int8(np.int32(np.rint(row[i] * inverse)))

        return to_int8

    def to_int4(row: Any, numbers: Any, scales: Any) -> None:
        half = GROUP // 2
        for group in range(len(scales)):
            start = group * GROUP
            most = np.float32(0)  # with its sign: it becomes -8, or nearly so
            for i in range(start, start + GROUP):
                if abs(row[i]) > abs(most):
                    most = row[i]
            best, least = np.float32(0), np.float32(np.inf)
            for fraction in _FRACTIONS:  # a smaller scale cuts the largest number and is finer for the others
                scale = most * fraction / np.float32(-8)
                inverse = np.float32(1) / scale if scale != 0 else np.float32(0)
                along, square = np.float32(0), np.float32(0)
                for i in range(start, start + GROUP):
                    code = min(max(np.rint(row[i] * inverse), np.float32(-8)), np.float32(7))
                    along += code * row[i]
                    square += code * code
                # The scale of least squares for these codes, and by how much it lessens the square of the error.
                gain = -along * along / square if square > 0 else np.float32(0)
                if gain < least:
                    best, least = scale, gain
            inverse = np.float32(1) / best if best != 0 else np.float32(0)
            along, square = np.float32(0), np.float32(0)
            for i in range(start, start + GROUP):
                code = min(max(np.rint(row[i] * inverse), np.float32(-8)), np.float32(7))
                along += code * row[i]
                square += code * code
            scales[group] = along / square if square > 0 else np.float32(0)
            for i in range(half):
                low = min(max(np.rint(row[start + i] * inverse), np.float32(-8)), np.float32(7))
                high = min(max(np.rint(row[start + half + i] * inverse), np.float32(-8)), np.float32(7))
                numbers[group * half + i] = np.uint8((np.int32(low) & 15) | ((np.int32(high) & 15) << 4))

    return to_int4


def unpack(matrix: Matrix, layer: int, start: int, stop: int, tile: Array) -> None:
    """Write rows start to stop of a matrix to tile [TILE, k or more] as float32."""
    raise NotImplementedError("compiled only")  # a name: Numba compiles what `overload` picks for it


@overload(unpack)
def _unpack_for(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any) -> Any:
    kind = matrix.types[0].dtype
    if kind == types.float32:

        def from_float32(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any) -> None:
            for j in range(start, stop):
                row, into = matrix.numbers[layer][j], tile[j - start]
                for i in range(len(row)):
                    into[i] = row[i]

        return from_float32
    if kind == types.int8:

        def from_int8(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any) -> None:
            for j in range(start, stop):
                row, into, scale = matrix.numbers[layer][j], tile[j - start], matrix.scales[layer][j, 0]
                for i in range(len(row)):
                    into[i] = np.float32(row[i]) * scale

        return from_int8

    def from_int4(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any) -> None:
        half = GROUP // 2
        for j in range(start, stop):
            row, into, scales = matrix.numbers[layer][j], tile[j - start], matrix.scales[layer][j]
            for group in range(len(scales)):
                scale = scales[group] / 16
                pairs, low = row[group * half : (group + 1) * half], into[group * GROUP : group * GROUP + half]
                high = into[group * GROUP + half : (group + 1) * GROUP]
                for i in range(half):
                    low[i] = np.float32(np.int8(pairs[i] << 4)) * scale
                    high[i] = np.float32(np.int8(pairs[i] & 240)) * scale

    return from_int4


@kernel
def encode(x: Array, codes: Array, limit: int) -> Any:
    """Round x [k], k in whole groups, to codes [k] of -limit to limit; returns the scale."""
    most = largest(x.ctypes.data, len(x) // GROUP)
    if most == 0:
        for i in range(len(x)):
            codes[i] = 0
        return np.float32(0)
    inverse = np.float32(limit) / most
    for i in range(len(x)):
        codes[i] = np.int16(np.int32(np.rint(x[i] * inverse)))
    return most / np.float32(limit)


def largest_code(matrix: Matrix, k: int) -> int:
    """The largest integer that numbers may be rounded to before they meet this matrix of rows of k; 0 for none.

    Sums must fit into 31 bits: of a whole row for int8, of a lane's k / 16 products for int4 in tiles.
    """
    if matrix.numbers.dtype == np.float32:
        return 0
    k = -(-k // GROUP) * GROUP  # as it is stored
    return min(32767, (2**31 - 1) // (127 * k) if matrix.numbers.dtype == np.int8 else math.isqrt(_LANE_SUM // k))


def multiply(
    matrix: Matrix, layer: int, x: Array, codes: Array, steps: Array, y: Array, start: int, stop: int, tile: Tile
) -> None:
    """y [T, n] = x [T, k] W.T + bias, columns start to stop, each row of W read once. Integers come from `encode`:
    codes [T, k] and their scales, steps [T]; k is rounded up to whole groups, with zeros."""
    raise NotImplementedError("compiled only")  # a name: Numba compiles what `overload` picks for it


@overload(multiply)
def _multiply_for(
    matrix: Any, layer: Any, x: Any, codes: Any, steps: Any, y: Any, start: Any, stop: Any, tile: Any
) -> Any:
    kind = matrix.types[0].dtype
    dots: Any = {types.float32: dots_float32, types.int8: dots_int8, types.uint8: dots_int4}[kind]
    exact, factor = kind == types.float32, np.float32(1 / 16 if kind == types.uint8 else 1)

    def multiply(
        matrix: Any, layer: Any, x: Any, codes: Any, steps: Any, y: Any, start: Any, stop: Any, tile: Any
    ) -> None:
        numbers, scales, bias = matrix.numbers[layer], matrix.scales[layer], matrix.bias[layer]
        others, stride = (x.ctypes.data, x.strides[0]) if exact else (codes.ctypes.data, codes.strides[0])
        for j in range(start, stop, TILE):
            row, scale = numbers.ctypes.data + j * numbers.strides[0], scales.ctypes.data + j * scales.strides[0]
            for t in range(len(x)):
                dots(row, scale, others + t * stride, x.shape[1] // GROUP, tile.scales.ctypes.data)
                step = factor if exact else steps[t] * factor
                for i in range(min(TILE, stop - j)):
                    y[t, j + i] = tile.scales[i] * step + bias[j + i]

    return multiply


def multiply_many(
    matrix: Matrix, layer: int, x: Array, codes: Array, steps: Array, y: Array, start: int, stop: int, tile: Tile
) -> None:
    """As `multiply`, for many tokens: rows are unpacked to a tile, and products are summed four tokens by four rows at
    a time. T, `start` and `stop` must be multiples of four."""
    raise NotImplementedError("compiled only")  # a name: Numba compiles what `overload` picks for it


@overload(multiply_many)
def _multiply_many_for(
    matrix: Any, layer: Any, x: Any, codes: Any, steps: Any, y: Any, start: Any, stop: Any, tile: Any
) -> Any:
    exact = matrix.types[0].dtype == types.float32
    square: Any = square_float32 if exact else square_int16
    width = 4 if exact else 2
    most, one = _BLOCK // width, np.float32(1)

    def multiply_many(
        matrix: Any, layer: Any, x: Any, codes: Any, steps: Any, y: Any, start: Any, stop: Any, tile: Any
    ) -> None:
        bias, k = matrix.bias[layer], x.shape[1]
        rows, stride = (
            (tile.numbers.ctypes.data, tile.numbers.strides[0])
            if exact
            else (tile.codes.ctypes.data, tile.codes.strides[0])
        )
        others, step = (x.ctypes.data, x.strides[0]) if exact else (codes.ctypes.data, codes.strides[0])
        for first in range(start, stop, TILE):
            last = min(first + TILE, stop)
            if exact:
                unpack(matrix, layer, first, last, tile.numbers)
            else:
                unpack_codes(matrix, layer, first, last, tile, k)
            for t in range(len(x)):
                for j in range(first, last):
                    y[t, j] = 0
            for block in range(0, k, most):
                groups = min(most, k - block) // GROUP
                for t in range(0, len(x), 4):
                    for j in range(first, last, 4):
                        square(
                            others + t * step + block * width,
                            step,
                            rows + (j - first) * stride + block * width,
                            stride,
                            groups,
                            tile.sums.ctypes.data,
                        )
                        for a in range(4):
                            for b in range(4):
                                y[t + a, j + b] += tile.sums[a, b]
            # By itself, and so by the same instructions for each token, whichever four it is among.
            for t in range(len(x)):
                for j in range(first, last):
                    y[t, j] = y[t, j] * (one if exact else steps[t] * tile.scales[j - first]) + bias[j]

    return multiply_many


def unpack_codes(matrix: Matrix, layer: int, start: int, stop: int, tile: Tile, k: int) -> None:
    """Write rows start to stop of int8 or int4 to a tile, as integers with a scale a row."""
    raise NotImplementedError("compiled only")  # a name: Numba compiles what `overload` picks for it


@overload(unpack_codes)
def _unpack_codes_for(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any, k: Any) -> Any:
    if matrix.types[0].dtype == types.int8:

        def from_int8(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any, k: Any) -> None:
            for j in range(start, stop):
                row, into = matrix.numbers[layer][j], tile.codes[j - start]
                tile.scales[j - start] = matrix.scales[layer][j, 0]
                for i in range(len(row)):
                    into[i] = row[i]

        return from_int8

    def from_int4(matrix: Any, layer: Any, start: Any, stop: Any, tile: Any, k: Any) -> None:
        half, limit = GROUP // 2, np.float32(np.sqrt(np.float64(_LANE_SUM) / k))
        for j in range(start, stop):
            row, into, scales = matrix.numbers[layer][j], tile.codes[j - start], matrix.scales[layer][j]
            most = np.float32(0)
            for group in range(len(scales)):
                most = max(most, abs(scales[group]))
            tile.scales[j - start] = most * 8 / limit
            inverse = limit / (most * np.float32(8 * 16)) if most > 0 else np.float32(0)
            for group in range(len(scales)):
                factor = scales[group] * inverse
                pairs, low = row[group * half : (group + 1) * half], into[group * GROUP : group * GROUP + half]
                high = into[group * GROUP + half : (group + 1) * GROUP]
                for i in range(half):
                    low[i] = np.int16(np.int32(np.rint(np.float32(np.int8(pairs[i] << 4)) * factor)))
                    high[i] = np.int16(np.int32(np.rint(np.float32(np.int8(pairs[i] & 240)) * factor)))

    return from_int4
