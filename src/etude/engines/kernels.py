"""What both training loops of the `compiled` engine are made of: e^x, matrix products and Adam, for Numba.

The functions have no types: Numba compiles a version for each format of numbers and keeps it beside the source.
"""

from __future__ import annotations

import hashlib
import math
import mmap
from collections.abc import Callable
from pathlib import Path
from types import CellType, FunctionType
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

Array = NDArray[Any]
EPSILON = 1e-5  # of RMSNorm
_ALIGNMENT = 64  # bytes of a cache line: Adam took 8 µs instead of 4 where numbers lie across two

F = TypeVar("F", bound=Callable[..., Any])
_DIGEST = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()


def kernel(function: F) -> F:
    """Compile at the first call. `fastmath`: sums may be taken in another order, which is what vectors do.

    Numba takes compiled code from the disk if the function's own file and the values of its closure are the same. What
    it calls is compiled into it, so the digest of this folder's files becomes such a value.
    """
    code = function.__code__.replace(co_freevars=(*function.__code__.co_freevars, "kernels"))
    closure = (*(function.__closure__ or ()), CellType(_DIGEST))
    function = cast("F", FunctionType(code, function.__globals__, function.__name__, function.__defaults__, closure))
    compiled: Any
    try:
        compiled = numba.njit(function, cache=True, fastmath=True, error_model="numpy", nogil=True)
    except RuntimeError:  # there is no folder where the compiled code could be kept
        compiled = numba.njit(function, fastmath=True, error_model="numpy", nogil=True)
    return cast("F", compiled)


def inlined(function: F) -> F:
    """A part of one kernel, compiled into it. As a function of its own it might be taken from another kernel's code,
    where the compiler may have put its sums in another order: which one would depend on what was loaded before."""
    return cast("F", numba.njit(function, inline="always", fastmath=True, error_model="numpy", nogil=True))


class Weights(NamedTuple):
    """The weights of `micro`, or their gradients: views of one flat array, so that Adam needs one loop.

    What stands in products is stored [in, out] here, the layers stacked.
    """

    wte: Array  # [V, d]
    wpe: Array  # [block_size, d]
    lm_head: Array  # [d, V]
    c_attn: Array  # [n_layer, d, 3d]
    attn_proj: Array  # [n_layer, d, d]
    c_fc: Array  # [n_layer, d, 4d]
    mlp_proj: Array  # [n_layer, 4d, d]


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Zeros that begin on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    array: Array = raw[start : start + size].view(dtype).reshape(shape)
    return array


def reserved(shape: tuple[int, ...]) -> Array:
    """float32 zeros that take memory a small page at a time, as they are written; NumPy's may come as 2 MB each."""
    size = math.prod(shape)
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, np.float32)
    memory = mmap.mmap(-1, max(1, 4 * size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32, size).reshape(shape)


def instructions(function: Callable[..., Any]) -> Any:
    """A function that is written out as machine instructions: given types, it returns a signature and their writer."""
    return intrinsic(function)


@instructions
def _as_float(context: Any, bits: Any) -> Any:
    """The float whose bits these are."""
    kind = {types.int32: types.float32, types.int64: types.float64}[bits]
    machine = ir.FloatType() if kind == types.float32 else ir.DoubleType()
    make: Any = kind
    return make(bits), lambda _, builder, signature, arguments: builder.bitcast(arguments[0], machine)


def exp(x: float) -> float:
    """e^x for x <= 0: 2^n e^r with |r| <= ln(2) / 2, and e^r by its Taylor series. Off by a last digit or two of 1.

    The C library's is a call for each number; this one is arithmetic, so that loops over it become vector loops.
    """
    return math.exp(x)


@overload(exp, inline="always")
def _exp_for(x: Any) -> Any:
    log2e = 1 / math.log(2)
    if x == types.float32:
        c = tuple(np.float32(1 / math.factorial(k)) for k in range(7))
        scale, ln2, lowest = np.float32(log2e), np.float32(math.log(2)), np.float32(-87)
        bias, mantissa = np.int32(127), np.int32(23)

        def exp32(x: Any) -> Any:
            x = max(x, lowest)
            n = np.rint(x * scale)
            r = x - n * ln2
            e = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * (c[5] + r * c[6])))))
            return e * _as_float(np.int32((np.int32(n) + bias) << mantissa))

        return exp32
    d = tuple(1 / math.factorial(k) for k in range(14))
    log2 = math.log(2)

    def exp64(x: Any) -> Any:
        x = max(x, -700.0)
        n = np.rint(x * log2e)
        r = x - n * log2
        e = d[7] + r * (d[8] + r * (d[9] + r * (d[10] + r * (d[11] + r * (d[12] + r * d[13])))))
        e = d[0] + r * (d[1] + r * (d[2] + r * (d[3] + r * (d[4] + r * (d[5] + r * (d[6] + r * e))))))
        return e * _as_float((np.int64(n) + 1023) << 52)

    return exp64


@kernel
def matmul(a: Array, b: Array, c: Array, columns: int) -> None:
    """c [R, N] += a [R, K] @ b [K, N] for N = columns; b and c may have more, and their rows must be contiguous.

    Four rows and four columns of a at a time: sixteen multiplications for every eight numbers that are read.
    """
    rows, inner = a.shape
    for r in range(0, rows - 3, 4):
        for k in range(0, inner - 3, 4):
            a00, a01, a02, a03 = a[r, k], a[r, k + 1], a[r, k + 2], a[r, k + 3]
            a10, a11, a12, a13 = a[r + 1, k], a[r + 1, k + 1], a[r + 1, k + 2], a[r + 1, k + 3]
            a20, a21, a22, a23 = a[r + 2, k], a[r + 2, k + 1], a[r + 2, k + 2], a[r + 2, k + 3]
            a30, a31, a32, a33 = a[r + 3, k], a[r + 3, k + 1], a[r + 3, k + 2], a[r + 3, k + 3]
            for j in range(columns):
                b0, b1, b2, b3 = b[k, j], b[k + 1, j], b[k + 2, j], b[k + 3, j]
                c[r, j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
                c[r + 1, j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
                c[r + 2, j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
                c[r + 3, j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
        for k in range(inner - inner % 4, inner):
            a00, a10, a20, a30 = a[r, k], a[r + 1, k], a[r + 2, k], a[r + 3, k]
            for j in range(columns):
                c[r, j] += a00 * b[k, j]
                c[r + 1, j] += a10 * b[k, j]
                c[r + 2, j] += a20 * b[k, j]
                c[r + 3, j] += a30 * b[k, j]
    for r in range(rows - rows % 4, rows):
        for k in range(0, inner - 3, 4):
            a00, a01, a02, a03 = a[r, k], a[r, k + 1], a[r, k + 2], a[r, k + 3]
            for j in range(columns):
                c[r, j] += a00 * b[k, j] + a01 * b[k + 1, j] + a02 * b[k + 2, j] + a03 * b[k + 3, j]
        for k in range(inner - inner % 4, inner):
            a00 = a[r, k]
            for j in range(columns):
                c[r, j] += a00 * b[k, j]


@kernel
def matmul_transposed(a: Array, b: Array, c: Array, columns: int) -> None:
    """c [R, K] = a [R, N] @ b.T [N, K] for N = columns; as in `matmul`, the rows of a and b must be contiguous."""
    rows, inner = len(a), len(b)
    zero = c.dtype.type(0)
    for r in range(0, rows - 3, 4):
        for k in range(0, inner - 3, 4):
            c00 = c01 = c02 = c03 = c10 = c11 = c12 = c13 = zero
            c20 = c21 = c22 = c23 = c30 = c31 = c32 = c33 = zero
            for j in range(columns):
                a0, a1, a2, a3 = a[r, j], a[r + 1, j], a[r + 2, j], a[r + 3, j]
                b0, b1, b2, b3 = b[k, j], b[k + 1, j], b[k + 2, j], b[k + 3, j]
                c00, c01, c02, c03 = c00 + a0 * b0, c01 + a0 * b1, c02 + a0 * b2, c03 + a0 * b3
                c10, c11, c12, c13 = c10 + a1 * b0, c11 + a1 * b1, c12 + a1 * b2, c13 + a1 * b3
                c20, c21, c22, c23 = c20 + a2 * b0, c21 + a2 * b1, c22 + a2 * b2, c23 + a2 * b3
                c30, c31, c32, c33 = c30 + a3 * b0, c31 + a3 * b1, c32 + a3 * b2, c33 + a3 * b3
            c[r, k], c[r, k + 1], c[r, k + 2], c[r, k + 3] = c00, c01, c02, c03
            c[r + 1, k], c[r + 1, k + 1], c[r + 1, k + 2], c[r + 1, k + 3] = c10, c11, c12, c13
            c[r + 2, k], c[r + 2, k + 1], c[r + 2, k + 2], c[r + 2, k + 3] = c20, c21, c22, c23
            c[r + 3, k], c[r + 3, k + 1], c[r + 3, k + 2], c[r + 3, k + 3] = c30, c31, c32, c33
    for r in range(rows):
        for k in range(inner - inner % 4 if r < rows - rows % 4 else 0, inner):
            c00 = zero
            for j in range(columns):
                c00 += a[r, j] * b[k, j]
            c[r, k] = c00


@kernel
def adam(
    weights: Array,
    gradient: Array,
    moments: Array,
    rates: tuple[float, float, float, float],
    step: int,
    steps: int,
) -> None:
    """Step `step` of `steps`, counted from 0, on flat arrays [P]; moments is [2, P].

    `rates` are the learning rate, which falls linearly to 0, the two betas and epsilon (Kingma and Ba 2015).
    """
    number = weights.dtype.type
    learning_rate, beta1, beta2, epsilon = rates
    # Both corrections of the moments' beginning at zero are taken out of the loop.
    rate = number(learning_rate * (1 - step / steps) / (1 - beta1 ** (step + 1)))
    correction = number(1 / math.sqrt(1 - beta2 ** (step + 1)))
    forget1, forget2, small = number(1 - beta1), number(1 - beta2), number(epsilon)
    first, second = moments[0], moments[1]
    for i in range(weights.size):
        first[i] += forget1 * (gradient[i] - first[i])
        second[i] += forget2 * (gradient[i] * gradient[i] - second[i])
        weights[i] -= rate * first[i] / (np.sqrt(second[i]) * correction + small)
