"""A proof that a number is prime, in one line, and the code that checks it: this file, and nothing of the search.

Let N - 1 = F·R, where all prime factors q of F are known, and let there be for each of them a base a with

    (1)  a^(N-1) = 1 modulo N,  and  gcd(a^((N-1)/q) - 1, N) = 1.

Then every prime factor p of N is 1 modulo F (Pocklington 1914). For the order of a modulo p divides N - 1 by the first
half of (1), and does not divide (N - 1)/q by the second, so it has q as often as N - 1 has, at least as often as F has;
and it divides p - 1. As this holds for each q, F divides p - 1.

(2)  If F^2 > N, then N is prime: a composite would have a prime factor p <= sqrt(N) < F, but p >= F + 1.

(3)  If F^3 > N, write N = c2·F^2 + c1·F + 1 with 0 <= c1 < F. Then N is prime if c1^2 - 4·c2 is not a square
     (Brillhart, Lehmer and Selfridge 1975, theorem 5; Crandall and Pomerance, Prime Numbers, theorem 4.1.5). For all
     prime factors are above F and so above the cube root of N: a composite N has two, (x·F + 1)·(y·F + 1) with
     x, y >= 1. Now x·y·F^2 < N < F^3, so x·y <= F - 1 and x + y <= x·y + 1 <= F. Were x + y = F, then x·y = F - 1,
     one of them would be 1, and N = (F + 1)·((F - 1)·F + 1) = F^3 + 1. So x + y < F, c2 = x·y and c1 = x + y are the
     digits, and c1^2 - 4·c2 = (x - y)^2 is a square.

The line says F and the bases: `certificate: 2^6008 a=5`, or with more factors `certificate: 2^40 a=3, 17^1 a=2`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from .number import PrimeError, decimal, parse

MAX_FACTORS = 40
MAX_FACTOR = 10**12
"""Factors are checked by division, which for the largest takes a tenth of a second."""

_LINE = re.compile(r"certificate:(.*)")
_FACTOR = re.compile(r"\s*([0-9]{1,13})\^([0-9]{1,6}) a=([0-9]{1,100000})\s*")


class CertificateError(PrimeError):
    """A certificate that cannot be read, or that does not prove its number prime."""


@dataclass(frozen=True, slots=True)
class Factor:
    """A known factor q^exponent of N - 1, and the base a that (1) holds with."""

    q: int
    exponent: int
    base: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """The known factors of N - 1."""

    factors: tuple[Factor, ...]

    def __str__(self) -> str:
        said = (f"{factor.q}^{factor.exponent} a={decimal(factor.base)}" for factor in self.factors)
        return f"certificate: {', '.join(said)}"


def read_certificate(remarks: Iterable[str]) -> Certificate | None:
    """The certificate among the remarks of a file; None where there is none. Raises `CertificateError`."""
    found = [match.group(1) for remark in remarks if (match := _LINE.fullmatch(remark.strip()))]
    if not found:
        return None
    if len(found) > 1:
        raise CertificateError("it has more than one certificate; leave the right one")
    parts = found[0].split(",")
    if len(parts) > MAX_FACTORS:
        raise CertificateError(f"its certificate has {len(parts):,} factors; at most {MAX_FACTORS} are checked")
    factors = []
    for part in parts:
        match = _FACTOR.fullmatch(part)
        if not match:
            raise CertificateError(
                f"its certificate cannot be read at {part.strip()[:40]!r}; 2^6008 a=5 would be right"
            )
        factors.append(Factor(int(match.group(1)), int(match.group(2)), parse(match.group(3))))
    return Certificate(tuple(factors))


def check(n: int, certificate: Certificate) -> None:
    """Raise `CertificateError` unless the certificate proves n prime, by the conditions above.

    n may be any kind of whole number; those of gmpy2 are some ten times as fast.
    """
    if n < 4 or n % 2 == 0:
        raise CertificateError("its certificate proves nothing: the number is not odd and above 3")
    known = n**0  # F
    # No product of factors of n - 1 has more bits than n; what has is not even multiplied.
    if sum(factor.exponent * (factor.q.bit_length() - 1) for factor in certificate.factors) >= n.bit_length():
        raise CertificateError("its certificate proves nothing: what it names are no factors of the number less 1")
    for factor in certificate.factors:
        if not _is_prime(factor.q):
            raise CertificateError(f"its certificate proves nothing: {factor.q} is no prime of at most 10^12")
        if not 1 <= factor.exponent <= n.bit_length():
            raise CertificateError(f"its certificate proves nothing: {factor.q}^{factor.exponent} is out of range")
        known *= factor.q**factor.exponent
    if len({factor.q for factor in certificate.factors}) != len(certificate.factors):
        raise CertificateError("its certificate proves nothing: a factor stands in it twice")
    if (n - 1) % known:
        raise CertificateError("its certificate proves nothing: what it names are no factors of the number less 1")
    if known**3 <= n:
        raise CertificateError(
            f"its certificate proves nothing: it knows {known.bit_length():,} bits of the number less 1, and "
            f"{-(-n.bit_length() // 3):,} are needed, a third"
        )
    if known**2 <= n:
        c2, c1 = divmod((n - 1) // known, known)
        discriminant = c1 * c1 - 4 * c2
        if discriminant >= 0 and math.isqrt(discriminant) ** 2 == discriminant:
            raise CertificateError("its certificate proves that it is not prime: c1^2 - 4·c2 is a square")
    for factor in certificate.factors:
        if not 1 < factor.base < n:
            raise CertificateError(f"its certificate proves nothing: the base for {factor.q} is out of range")
        root = power(factor.base, (n - 1) // factor.q, n)
        if pow(root, factor.q, n) != 1:
            raise CertificateError("its certificate proves that it is not prime: a^(N-1) is not 1")
        if math.gcd(int(root) - 1, int(n)) != 1:
            raise CertificateError(f"its certificate proves nothing: a^((N-1)/{factor.q}) - 1 shares a factor with N")


def power(base: int, exponent: int, n: int) -> int:
    """base^exponent modulo n, for exponents above 0.

    Where n is 1 modulo a large power B = 2^s, as it is made to be, division is not needed (Montgomery 1985): with
    n = M·B + 1, x less its low digit t times n ends in a zero digit, and the others are x // B - t·M. Every such step
    divides by B modulo n, and after so many that B^steps > n, what was a square is as short as n again.
    """
    s = ((n - 1) & (1 - n)).bit_length() - 1
    if s < 256 or 8 * s < n.bit_length():
        return pow(base, exponent, n)
    steps, mask, m = -(-n.bit_length() // s), (1 << s) - 1, n >> s

    def reduce(x: int) -> int:
        for _ in range(steps):
            x = (x >> s) - (x & mask) * m
        return x

    x = (base << (s * steps)) % n
    small = n**0 * base
    for bit in bin(exponent)[3:]:
        x = reduce(x * x)
        if bit == "1":
            x = x * small % n
    return reduce(x) % n


def _is_prime(q: int) -> bool:
    """By division, for q up to `MAX_FACTOR`."""
    if not 2 <= q <= MAX_FACTOR:
        return False
    return all(q % divisor for divisor in range(2, math.isqrt(q) + 1))
