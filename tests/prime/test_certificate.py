from __future__ import annotations

import random

import gmpy2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.prime.certificate import Certificate, CertificateError, Factor, check, power, read_certificate


def prime_above(k: int, step: int) -> int:
    """The first prime k·step + 1, (k + 1)·step + 1, ..."""
    while not gmpy2.is_prime(k * step + 1):
        k += 1
    return k * step + 1


def provable(bits: int, s: int, seed: int) -> tuple[int, Certificate]:
    """A prime with 2^s in N - 1, and its certificate."""
    rng = random.Random(seed)
    n = prime_above(rng.getrandbits(bits - s) | 1 << (bits - s - 1), 1 << s)
    base = next(a for a in range(2, 100) if gmpy2.jacobi(a, n) == -1)
    return n, Certificate((Factor(2, s, base),))


@given(st.integers(40, 400), st.integers(0, 10**6), st.booleans())
def test_what_is_built_for_a_proof_is_proved(bits: int, seed: int, half: bool) -> None:
    n, certificate = provable(bits, bits // 2 + 2 if half else bits // 3 + 2, seed)
    check(n, certificate)
    check(gmpy2.mpz(n), certificate)
    assert read_certificate([str(certificate)]) == certificate


@given(st.integers(100, 300), st.integers(0, 10**6), st.integers(1, 10**9))
def test_no_neighbour_is_proved_by_it(bits: int, seed: int, change: int) -> None:
    n, certificate = provable(bits, bits // 3 + 2, seed)
    for other in (n + 2 * change, n - (change << (bits // 3 + 2)), n + (change << (bits // 3 + 2)), n * n, n * (n + 2)):
        if other > 0 and not gmpy2.is_prime(other):
            with pytest.raises(CertificateError):
                check(other, certificate)


@given(st.integers(20, 60), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_composite_for_which_all_but_the_square_holds_is_refused(s: int, first: int, second: int) -> None:
    """Prime factors x·F + 1, x odd, and y·F + 1, y even, and a base of order F = 2^s modulo both: a^((N-1)/2) = -1."""
    few = 1 << (s // 3)
    x, y = 1 + 2 * (first % few), 2 + 2 * (second % few)
    while not gmpy2.is_prime((x << s) + 1):
        x += 2
    while not gmpy2.is_prime((y << s) + 1):
        y += 2
    p, q = (x << s) + 1, (y << s) + 1
    n = p * q
    assert 2 ** (3 * s) > n
    roots = []
    for prime in (p, q):
        a = next(a for a in range(2, 100) if gmpy2.jacobi(a, prime) == -1)
        roots.append(pow(a, (prime - 1) >> s, prime))
    base = (roots[0] * q * pow(q, -1, p) + roots[1] * p * pow(p, -1, q)) % n
    assert pow(base, (n - 1) // 2, n) == n - 1
    with pytest.raises(CertificateError, match="square"):
        check(n, Certificate((Factor(2, s, base),)))


def test_carmichael_numbers_are_refused() -> None:
    """(6k+1)(12k+1)(18k+1): a^(N-1) = 1 for every a without a common factor."""
    for k in range(1, 4000):
        p, q, r = 6 * k + 1, 12 * k + 1, 18 * k + 1
        if all(map(gmpy2.is_prime, (p, q, r))):
            n = p * q * r
            factors = []
            rest, divisor = n - 1, 2
            while divisor * divisor <= rest and divisor < 2000:
                exponent = 0
                while rest % divisor == 0:
                    rest, exponent = rest // divisor, exponent + 1
                if exponent:
                    factors.append((divisor, exponent))
                divisor += 1
            for base in (2, 3, 5, 7, 11, 13):
                with pytest.raises(CertificateError):
                    check(n, Certificate(tuple(Factor(f, e, base) for f, e in factors)))


def test_each_condition_is_asked_for() -> None:
    n, certificate = provable(200, 70, 1)
    (factor,) = certificate.factors
    s = ((n - 1) & (1 - n)).bit_length() - 1
    square = next(a for a in range(2, 100) if gmpy2.jacobi(a, n) == 1)
    faults = {
        (Factor(2, 70, square),): "shares a factor",
        (Factor(2, 60, factor.base),): "are needed",
        (Factor(2, s + 1, factor.base),): "no factors",
        (Factor(2, 70, 1),): "out of range",
        (Factor(2, 70, n),): "out of range",
        (Factor(4, 35, factor.base),): "no prime",
        (Factor(1, 10, factor.base),): "no prime",
        (Factor(2, 0, factor.base),): "out of range",
        (Factor(2, 35, factor.base), Factor(2, 35, factor.base)): "twice",
        tuple(Factor(q, 200, 2) for q in (2, 3, 5)): "no factors",  # more than the number, and not even multiplied
        (): "are needed",
    }
    for factors, words in faults.items():
        with pytest.raises(CertificateError, match=words):
            check(n, Certificate(factors))
    for tiny in (-7, 0, 1, 2, 3, 4, 100):
        with pytest.raises(CertificateError, match="not odd"):
            check(tiny, certificate)


def test_several_factors_prove_too() -> None:
    n = prime_above(11, 2**3 * 3**20 * 7**2)
    check(n, Certificate((Factor(2, 3, 11), Factor(3, 20, next(a for a in range(2, 99) if pow(a, n // 3, n) != 1)))))
    # Of q^2 as q: what is no prime is not taken for one.
    with pytest.raises(CertificateError, match="no prime"):
        check(n, Certificate((Factor(9, 10, 2), Factor(2, 3, 11))))


@given(st.integers(256, 700), st.integers(1, 900), st.integers(2, 10**6), st.integers(1, 2**300))
def test_powers_without_division_are_powers(s: int, high: int, base: int, exponent: int) -> None:
    n = (random.Random(high).getrandbits(high) | 1) << s | 1
    assert power(base, exponent, n) == pow(base, exponent, n)


@pytest.mark.parametrize(
    "line",
    ["2^5", "2^5 a=", "2^-5 a=3", "a=3 2^5", "2^5 a=3;", "2^5 a=3, ", "2^1e9 a=3", "2^9999999 a=3", "2^1 a=3," * 41],
)
def test_a_line_that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(CertificateError, match="certificate"):
        read_certificate([f"certificate: {line}"])


def test_other_remarks_are_none() -> None:
    assert read_certificate(["a remark", "certificates are nice"]) is None
    with pytest.raises(CertificateError, match="more than one"):
        read_certificate(["certificate: 2^5 a=3"] * 2)
