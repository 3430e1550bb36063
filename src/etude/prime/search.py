"""The first prime of an arithmetic progression of huge numbers, on all cores.

A wide sieve leaves few candidates, each of them is tested in order, and the first that passes is the result: it does
not depend on how many work. The modular powers are GMP's; it lets go of Python's lock meanwhile, so threads do.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from etude.system import cores

from .number import PrimeError
from .primality import gmp, is_probable_prime
from .sieve import survivors

# About what the machines of the year take: a power modulo a number of 12,000 bits (it grows with the power 2.6), and
# the division of such a number by a prime. Both decide how wide the sieve is, and nothing of the result.
_POWER_SECONDS, _POWER_BITS, _POWER_GROWTH = 0.18, 12_000, 2.6
_DIVISION_SECONDS = 2e-7
_WIDEST = 1 << 30
_WINDOW = 1 << 17  # odd numbers that are sieved at once

_EULER = 0.57721566490153286


@dataclass(frozen=True, slots=True)
class Progression:
    """The numbers base + i·2^shift, i from 0 to count - 1; base is odd and shift at least 1."""

    base: int
    shift: int
    count: int

    def at(self, i: int) -> int:
        return self.base + (i << self.shift)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a search is: tests done, of how many candidates; tests still expected; and the next i to be tested.

    `expected` is the same at every moment: what failed says nothing about what follows.
    """

    tested: int
    candidates: int
    expected: float
    next: int
    seconds: float


def expected_tests(bits: int, limit: int) -> float:
    """How many numbers of so many bits without a factor up to `limit` are tested until one is prime, on average.

    One number in ln(N) is prime, and by Mertens' third theorem one in e^0.577·ln(limit) has no factor up to `limit`.
    """
    return max(1.0, bits * math.log(2) / (math.exp(_EULER) * math.log(limit)))


def power_seconds(bits: int) -> float:
    """About how long one test of a number of so many bits takes, on one core."""
    return float(_POWER_SECONDS * (bits / _POWER_BITS) ** _POWER_GROWTH)


def sieve_limit(bits: int, jobs: int, count: int = 1 << 30) -> int:
    """The width at which one more prime in the sieve costs as much as it spares in tests, for so many odd numbers.

    There are B / ln(B) primes up to B, so that the next costs its division, and expected tests fall by their number
    over B·ln(B) where B grows by 1: B·ln(B) = ln(N)·e^-0.577·(a test's time, over jobs) / (a division's time). Where
    there are fewer numbers than are looked at until one is prime, their number stands for half of ln(N).
    """
    test = power_seconds(bits) / jobs
    worth = (
        2
        * min(bits * math.log(2) / 2, count)
        * math.exp(-_EULER)
        * test
        / (_DIVISION_SECONDS * max(1, bits / _POWER_BITS))
    )
    limit = 1000.0
    for _ in range(20):
        limit = max(1000.0, worth / math.log(limit))
    return int(min(limit, _WIDEST, 2.0 ** min(bits - 2, 60)))


def first_prime(
    numbers: Progression,
    first: int = 0,
    jobs: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> int | None:
    """The first i from `first` on at which the progression has a (probable) prime; None where there is none.

    Raises `PrimeError` where gmpy2 is not installed.
    """
    library = gmp()
    if library is None:
        raise PrimeError("to find a prime needs gmpy2: pip install 'etude[prime]'")
    if first >= numbers.count:
        return None
    jobs, began = jobs or cores(), time.monotonic()
    bits = numbers.at(numbers.count - 1).bit_length()
    if bits < 40:  # too small to sieve: it might itself be a prime of the sieve
        return next((i for i in range(first, numbers.count) if is_probable_prime(numbers.at(i))), None)
    limit = sieve_limit(bits, jobs, numbers.count - first)
    base = library.mpz(numbers.at(first))
    candidates = [first + i for i in survivors(base, numbers.shift, numbers.count - first, limit)]
    expected = expected_tests(bits, limit)
    report(Progress(0, len(candidates), expected, first, time.monotonic() - began))
    with ThreadPoolExecutor(jobs) as pool:
        try:
            tests = _ahead(pool, numbers, candidates, jobs)
            for tested, (i, passes) in enumerate(tests, 1):
                report(Progress(tested, len(candidates), expected, i + 1 - passes, time.monotonic() - began))
                if passes and is_probable_prime(numbers.at(i), rounds=0):
                    return i
        finally:
            pool.shutdown(cancel_futures=True)
    return None


def next_prime(n: int, jobs: int | None = None, report: Callable[[Progress], None] = lambda progress: None) -> int:
    """The smallest (probable) prime above n, n at least 2, as `gmpy2.next_prime` gives it."""
    start = n + 1 + n % 2
    while True:
        numbers = Progression(start, 1, _WINDOW)
        found = first_prime(numbers, 0, jobs, report)
        if found is not None:
            return numbers.at(found)
        start = numbers.at(_WINDOW)


def _ahead(
    pool: ThreadPoolExecutor, numbers: Progression, candidates: list[int], jobs: int
) -> Iterator[tuple[int, bool]]:
    """Each candidate and whether it passes, in order; of those after it no more are begun than keep all cores busy."""
    running: deque[tuple[int, Future[bool]]] = deque()
    for i in candidates:
        running.append((i, pool.submit(_is_fermat_probable_prime, numbers, i)))
        if len(running) > jobs:
            at, future = running.popleft()
            yield at, future.result()
    for at, future in running:
        yield at, future.result()


def _is_fermat_probable_prime(numbers: Progression, i: int) -> bool:
    """2^(n-1) = 1 modulo n, which holds for odd primes and hardly ever else."""
    library: Any = gmp()
    library.get_context().allow_release_gil = True  # of this thread alone
    n = library.mpz(numbers.at(i))
    return bool(library.powmod(2, n - 1, n) == 1)
