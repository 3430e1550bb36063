from __future__ import annotations

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.prime import primality
from etude.prime.primality import (
    bases,
    is_probable_prime,
    is_strong_lucas_probable_prime,
    is_strong_probable_prime,
    jacobi,
)


@pytest.fixture(params=["gmpy2", "python"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the library, and as where it is not installed."""
    if request.param == "python":
        monkeypatch.setattr(primality, "gmp", lambda: None)


@pytest.mark.usefixtures("arithmetic")
def test_small_numbers_are_told_right() -> None:
    prime = [n for n in range(5000) if is_probable_prime(n)]
    assert prime == [n for n in range(2, 5000) if all(n % d for d in range(2, int(n**0.5) + 1))]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(
    "n",
    [
        561, 41041, 825265, 9746347772161,  # Carmichael numbers
        2047, 3215031751, 3825123056546413051,  # strong pseudoprimes to base 2, to 2, 3, 5, 7, and to the primes to 23
        5459, 5777, 10877, 16109, 18971,  # strong Lucas pseudoprimes
        (2**61 - 1) ** 2, 1093**2, 3511**2,  # squares, of Wieferich primes too
        (2**127 - 1) * (2**89 - 1), 2**1000,
    ],
)  # fmt: skip
def test_composites_that_deceive_one_test_are_found(n: int) -> None:
    assert not is_probable_prime(n)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("n", [2**31 - 1, 2**521 - 1, 10**100 + 267, 2**255 - 19])
def test_primes_pass(n: int) -> None:
    assert is_probable_prime(n)


@given(st.integers(3, 2**80).map(lambda n: n | 1))
def test_each_part_agrees_with_the_library(n: int) -> None:
    if n % 3 and n % 5 and n % 7 and n > 50:
        assert is_strong_probable_prime(n, 2) == gmpy2.is_strong_prp(n, 2)
        assert is_strong_lucas_probable_prime(n) == gmpy2.is_strong_selfridge_prp(n)
    assert jacobi(1234577, n) == gmpy2.jacobi(1234577, n)


def test_bases_are_the_same_every_time_and_in_range() -> None:
    n = 2**61 - 1
    assert bases(n, 8) == bases(n, 8)
    assert len(set(bases(n, 8))) == 8
    assert all(2 <= base <= n - 2 for base in bases(n, 8))
    assert bases(n + 2, 8) != bases(n, 8)


def test_the_rounds_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(n: int, base: int) -> bool:
        asked.append(base)
        return len(asked) < 3

    monkeypatch.setattr(primality, "is_strong_probable_prime", counted)
    assert not is_probable_prime(2**127 - 1, rounds=8)
    assert len(asked) == 3
