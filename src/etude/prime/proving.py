"""A certificate for a number that has none: by factoring the number less 1, as far as small primes go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .certificate import MAX_FACTOR, MAX_FACTORS, Certificate
from .number import PrimeError
from .packing import certify
from .primality import gmp, is_probable_prime
from .sieve import primes_up_to, remainders

LIMIT = 10**7
"""Factors of the number less 1 are looked for up to here."""


def prove_number(number: int, say: Callable[[str], None] = lambda message: None) -> Certificate:
    """A certificate, checked. Raises `PrimeError` where the number is not prime, or too little of it is factored."""
    if not is_probable_prime(number):
        raise PrimeError("it is not prime, so there is nothing to prove")
    if number < 5:
        raise PrimeError("it is too small for a certificate; division proves it")
    library = gmp()
    rest: Any = number - 1 if library is None else library.mpz(number - 1)
    factors = {2: ((number - 1) & (1 - number)).bit_length() - 1}
    rest >>= factors[2]
    if not _enough(factors, number):
        say(f"looking for factors of the number less 1 up to {LIMIT:,}")
        for primes in primes_up_to(LIMIT):
            for q in primes[np.flatnonzero(remainders(rest, primes) == 0)].tolist():
                factors[q] = 0
                while rest % q == 0:
                    rest //= q
                    factors[q] += 1
        if 1 < rest <= MAX_FACTOR and is_probable_prime(int(rest)):
            factors[int(rest)] = 1
    # The largest powers first: few are enough, and each costs the one who checks it a modular power.
    chosen: dict[int, int] = {}
    for q, exponent in sorted(factors.items(), key=lambda each: -(each[0] ** each[1]))[:MAX_FACTORS]:
        if _enough(chosen, number):
            break
        chosen[q] = exponent
    if not _enough(chosen, number):
        bits = sum(exponent * q.bit_length() for q, exponent in factors.items())
        raise PrimeError(
            f"it is a probable prime, and cannot be proved here: of the number less 1 some {bits:,} bits of factors "
            f"are known, and {-(-number.bit_length() // 3):,} are needed, a third. A number that was not made for a "
            "proof needs elliptic curves (ECPP: programs such as Primo or CM); etude prime pack --proven makes one "
            "that is"
        )
    return certify(number, chosen)


def _enough(factors: dict[int, int], number: int) -> bool:
    known = 1
    for q, exponent in factors.items():
        known *= q**exponent
    return known**3 > number
