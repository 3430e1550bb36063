from __future__ import annotations

import gmpy2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.prime.sieve import primes_up_to, remainders, survivors


@pytest.mark.parametrize("limit", [3, 4, 10, 1023, 1024, 1025, 1031, 99_991, 99_992, 1031**2 + 10, 4_200_000])
def test_primes_are_all_and_in_order(limit: int) -> None:
    found = np.concatenate(list(primes_up_to(limit))).tolist()
    p, wanted = 3, []
    while p <= limit:
        wanted.append(p)
        p = int(gmpy2.next_prime(p))
    assert found == wanted


def test_parts_join_without_a_gap() -> None:
    assert sum(len(part) for part in primes_up_to(10**7)) == 664_579 - 1  # pi(10^7), without 2


@given(st.integers(0, 1 << 900), st.integers(1, 40))
def test_remainders_are_those_of_division(n: int, count: int) -> None:
    small, large = np.arange(3, 3 + 2 * count, 2), 4_294_967_291 - 10 * np.arange(count)  # up to the largest below 2^32
    for divisors in (small, large):
        wanted = [n % d for d in divisors.tolist()]
        assert remainders(n, divisors.astype(np.uint64)).tolist() == wanted
        assert remainders(gmpy2.mpz(n), divisors.astype(np.uint64)).tolist() == wanted


@given(st.integers(10**9, 10**30), st.integers(1, 80), st.integers(1, 300), st.integers(3, 2000))
def test_what_stays_has_no_small_factor(base: int, shift: int, count: int, limit: int) -> None:
    base |= 1
    wanted = []
    for i in range(count):
        n = base + (i << shift)
        if all(n % d for d in range(3, limit + 1, 2)):
            wanted.append(i)
    assert survivors(gmpy2.mpz(base), shift, count, limit) == wanted
