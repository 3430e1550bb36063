from __future__ import annotations

import math

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.prime import search
from etude.prime.number import PrimeError
from etude.prime.search import Progress, Progression, expected_tests, first_prime, next_prime, sieve_limit


@given(st.integers(2, 1 << 200))
def test_the_next_prime_is_that_of_the_library(n: int) -> None:
    assert next_prime(n) == gmpy2.next_prime(n)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_it_does_not_depend_on_how_many_search(jobs: int) -> None:
    n = 3**700
    assert next_prime(n, jobs) == gmpy2.next_prime(n)


def test_a_gap_as_long_as_the_window_is_crossed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_WINDOW", 3)
    n = 10**60
    assert next_prime(n) == gmpy2.next_prime(n)


@given(st.integers(1 << 60, 1 << 120), st.integers(1, 50), st.integers(0, 30))
def test_the_first_prime_of_a_progression_is_found(base: int, shift: int, first: int) -> None:
    numbers = Progression(base | 1, shift, 60)
    wanted = next((i for i in range(first, 60) if gmpy2.is_prime(numbers.at(i))), None)
    assert first_prime(numbers, first) == wanted


def test_what_only_looks_prime_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    # A Fermat pseudoprime to base 2 without small factors: (2^61 - 1) and (2^61 - 1)·2 + 1 or so are rare, so all pass.
    monkeypatch.setattr(search, "_is_fermat_probable_prime", lambda numbers, i: True)
    n = 10**50
    assert next_prime(n) == gmpy2.next_prime(n)


def test_progress_says_where_to_go_on() -> None:
    numbers = Progression(3**400, 1, 5000)
    seen: list[Progress] = []
    found = first_prime(numbers, report=seen.append)
    assert found is not None and seen[0].tested == 0
    assert [progress.tested for progress in seen] == list(range(len(seen)))
    assert all(progress.next <= found for progress in seen)  # whoever goes on there finds it
    for progress in seen[:: max(1, len(seen) // 5)]:
        assert first_prime(numbers, progress.next) == found


def test_expected_tests_are_what_it_takes() -> None:
    """Over many gaps, the mean number of tests is the formula's, within a few standard errors."""
    bits, total, gaps = 400, 0, 150
    limit = sieve_limit(bits, 2)
    for k in range(gaps):
        seen: list[Progress] = []
        first_prime(Progression((1 << (bits - 1)) + (k << 300) + 1, 1, 1 << 14), report=seen.append)
        total += seen[-1].tested
    wanted = expected_tests(bits, limit)
    assert abs(total / gaps - wanted) < 4 * wanted / math.sqrt(gaps)


def test_a_wider_sieve_is_worth_it_for_longer_numbers() -> None:
    limits = [sieve_limit(bits, 2) for bits in (64, 500, 4000, 12_000, 50_000)]
    assert limits == sorted(limits)
    assert 10**7 < limits[3] < 10**9


def test_without_the_library_one_line_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "gmp", lambda: None)
    with pytest.raises(PrimeError, match=r"etude\[prime\]"):
        next_prime(1000)
