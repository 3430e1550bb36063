"""Matrices in fewer bits, and products with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from etude.engines.kernels import Array, aligned, kernel
from etude.engines.matrices import (
    TILE,
    Matrix,
    Tile,
    encode,
    largest_code,
    make_tile,
    multiply,
    multiply_many,
    packed,
    unpack,
)
from etude.gpt.config import GROUP, PRECISIONS, Precision

SHAPES = [(5, 7), (16, 64), (33, 100), (64, 192), (3, 3072)]


@kernel
def run_unpack(matrix: Matrix, start: int, stop: int, tile: Array) -> None:
    unpack(matrix, 0, start, stop, tile)


@kernel
def run(matrix: Matrix, x: Array, codes: Array, steps: Array, y: Array, tile: Tile, limit: int, many: bool) -> None:
    if limit > 0:
        for t in range(len(x)):
            steps[t] = encode(x[t], codes[t], limit)
    if many:
        multiply_many(matrix, 0, x, codes, steps, y, 0, y.shape[1], tile)
    else:
        multiply(matrix, 0, x, codes, steps, y, 0, y.shape[1], tile)


def dense(matrix: Matrix, n: int, k: int) -> Array:
    """The numbers [n, k] that a matrix stands for."""
    rows = []
    for start in range(0, n, TILE):
        tile = aligned((TILE, -(-k // GROUP) * GROUP), np.float32)
        run_unpack(matrix, start, min(n, start + TILE), tile)
        rows.append(tile[: min(n, start + TILE) - start, :k])
    return np.concatenate(rows)


def product(matrix: Matrix, x: Array, n: int, many: bool) -> Array:
    """x [T, k] times the matrix [n, k] and its bias, T a multiple of four."""
    t, k = x.shape
    wide = -(-k // GROUP) * GROUP
    padded, codes = aligned((t, wide), np.float32), aligned((t, wide), np.int16)
    padded[:, :k] = x
    y, steps = aligned((t, matrix.bias.shape[1]), np.float32), aligned((t,), np.float32)
    run(matrix, padded, codes, steps, y, make_tile(k), largest_code(matrix, k), many)
    return y[:, :n]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_numbers_are_kept_to_their_precision(precision: Precision, n: int, k: int, transposed: bool) -> None:
    numbers = np.random.default_rng(0).normal(0, 1, (n, k)).astype(np.float32)
    source = np.ascontiguousarray(numbers.T) if transposed else numbers
    kept = dense(packed([source], None, precision, transposed=transposed), n, k)
    if precision == "float32":
        assert np.array_equal(kept, numbers)
    elif precision == "int8":
        assert (np.abs(kept - numbers) <= np.abs(numbers).max(axis=1, keepdims=True) / 127 / 2 * 1.001).all()
    else:
        padded = np.pad(numbers, ((0, 0), (0, -k % GROUP))).reshape(n, -1, GROUP)
        # 16 values from -8 to 7 times the largest number over -8, and each to the nearest: what anyone would try first.
        signed = np.take_along_axis(padded, np.abs(padded).argmax(-1, keepdims=True), -1) / -8
        plain = np.clip(np.rint(padded / np.where(signed == 0, 1, signed)), -8, 7) * signed
        ours = np.square(kept - numbers).sum()
        assert ours <= np.square(plain.reshape(n, -1)[:, :k] - numbers).sum() * 0.97
        assert ours <= 0.014 * np.square(numbers).sum()


def test_int4_keeps_what_it_can_say_exactly() -> None:
    codes = np.tile(np.arange(-8, 8), 8).reshape(2, 64)
    kept = dense(packed([(codes * [[0.5], [-3.0]]).astype(np.float32)], None, "int4"), 2, 64)
    assert kept == pytest.approx(codes * [[0.5], [-3.0]], rel=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_zeros_stay_zeros(precision: Precision) -> None:
    matrix = packed([np.zeros((20, 70), np.float32)], None, precision)
    assert not dense(matrix, 20, 70).any()
    assert not product(matrix, np.zeros((4, 70), np.float32), 20, many=True).any()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("many", [False, True])
def test_products_are_those_of_the_numbers_kept(precision: Precision, n: int, k: int, many: bool) -> None:
    rng = np.random.default_rng(1)
    numbers, bias = rng.normal(0, 1, (n, k)).astype(np.float32), rng.normal(0, 1, n).astype(np.float32)
    x = rng.normal(0, 1, (8, k)).astype(np.float32)
    matrix = packed([numbers], [bias], precision)
    wanted = x.astype(np.float64) @ dense(matrix, n, k).astype(np.float64).T + bias
    # Rounding x to 11 bits and more moves a sum of k products by some 1e-3 of its usual size.
    assert np.abs(product(matrix, x, n, many) - wanted).max() < (1e-5 if precision == "float32" else 3e-3) * k**0.5


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("k", [33, 48, 63, 64, 130, 4096])
def test_the_largest_numbers_do_not_overflow(precision: Precision, k: int) -> None:
    for sign in (-1, 1):
        matrix = packed([np.full((16, k), sign, np.float32)], None, precision)
        for many in (False, True):
            assert product(matrix, np.full((4, k), 3.0, np.float32), 16, many) == pytest.approx(
                sign * 3.0 * k, rel=1e-3
            )


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_token_does_not_depend_on_its_company(data: st.DataObject) -> None:
    precision: Any = data.draw(st.sampled_from(PRECISIONS))
    n, k = data.draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    matrix = packed([rng.normal(0, 1, (n, k)).astype(np.float32)], None, precision)
    x = rng.normal(0, 1, (12, k)).astype(np.float32)
    order = rng.permutation(12)
    for many in (False, True):
        assert np.array_equal(product(matrix, x[order], n, many), product(matrix, x, n, many)[order])
    assert np.array_equal(product(matrix, x[3:4], n, many=False), product(matrix, x, n, many=False)[3:4])
