"""Whether a number is prime, as far as a test without a proof can say.

Baillie-PSW (Baillie and Wagstaff 1980; Pomerance, Selfridge and Wagstaff 1980) is a strong probable-prime test to base
2 and a strong Lucas test. No composite that passes both is known, and there is none below 2^64; that there is none at
all is not proved. The Miller-Rabin rounds after it are independent of it: of all bases at least three in four reveal a
composite (Rabin 1980), and these are made from a hash of the number, so that the answer is always the same.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

ROUNDS = 8


def gmp() -> Any:
    """The module gmpy2, whose arithmetic is some ten times as fast at these sizes; None where it is not installed."""
    try:
        import gmpy2
    except ImportError:
        return None
    return gmpy2


def is_probable_prime(n: int, rounds: int = ROUNDS) -> bool:
    """Whether n is a prime, or the first composite known that passes Baillie-PSW and so many Miller-Rabin rounds."""
    if n < 2:
        return False
    for p in _SMALL:
        if n % p == 0:
            return n == p
    library = gmp()
    if library is not None:
        n = library.mpz(n)
        passes = library.is_strong_bpsw_prp(n)
    else:
        passes = is_strong_probable_prime(n, 2) and is_strong_lucas_probable_prime(n)
    return bool(passes) and all(is_strong_probable_prime(n, base) for base in bases(int(n), rounds))


def bases(n: int, rounds: int) -> list[int]:
    """Bases from 2 to n - 2 for n, at most 64 bits long; n is at least 5."""
    content = n.to_bytes((n.bit_length() + 7) // 8, "big")
    digests = (hashlib.sha256(bytes([i]) + content).digest() for i in range(rounds))
    return [2 + int.from_bytes(digest[:8], "big") % (n - 3) for digest in digests]


def is_strong_probable_prime(n: int, base: int) -> bool:
    """The test of Miller and Rabin: of the roots that lead from base^(n-1) to 1, n - 1 must be the first that is not 1.

    n is odd and at least 5. For a prime it always holds.
    """
    halvings = ((n - 1) & (1 - n)).bit_length() - 1  # n - 1 = odd * 2^halvings
    library = gmp()
    power = pow if library is None else library.powmod
    x = power(base, (n - 1) >> halvings, n)
    if x in (1, n - 1):
        return True
    for _ in range(halvings - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False


def is_strong_lucas_probable_prime(n: int) -> bool:
    """The Lucas counterpart, with Selfridge's parameters: the first D of 5, -7, 9, ... with (D/n) = -1; P = 1.

    n is odd and at least 5, and has no factor below 50. For a prime it always holds.
    """
    if math.isqrt(n) ** 2 == n:  # no D would be found
        return False
    d = 5
    while (symbol := jacobi(d, n)) != -1:
        if symbol == 0 and abs(d) < n:
            return False
        d = -d - 2 if d > 0 else -d + 2
    q = (1 - d) // 4
    halvings = ((n + 1) & -(n + 1)).bit_length() - 1  # n + 1 = odd * 2^halvings
    u, v, q_power = 0, 2, 1  # U_k, V_k and Q^k for the k whose bits were read so far
    for bit in bin((n + 1) >> halvings)[2:]:
        u, v, q_power = u * v % n, (v * v - 2 * q_power) % n, q_power * q_power % n
        if bit == "1":
            u, v, q_power = _half(u + v, n), _half(d * u + v, n), q_power * q % n
    if u == 0:
        return True
    for _ in range(halvings):
        if v == 0:
            return True
        v, q_power = (v * v - 2 * q_power) % n, q_power * q_power % n
    return False


def jacobi(a: int, n: int) -> int:
    """The Jacobi symbol (a/n) of an odd positive n: 0 where they share a factor, and for a prime n 1 for a square."""
    a %= n
    result = 1
    while a:
        while a % 2 == 0:
            a //= 2
            if n % 8 in (3, 5):
                result = -result
        a, n = n, a
        if a % 4 == n % 4 == 3:
            result = -result
        a %= n
    return result if n == 1 else 0


def _half(x: int, n: int) -> int:
    """x / 2 modulo an odd n."""
    x %= n
    return (x if x % 2 == 0 else x + n) // 2


_SMALL = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
