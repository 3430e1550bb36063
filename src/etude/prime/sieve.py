"""Which numbers of a long arithmetic progression have no small factor: the few that are worth a test.

A number of thousands of bits is divided by millions of small primes. For each of them alone a division of the whole
number would do; sixteen primes' product costs about the same, and leaves a remainder that NumPy takes from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInts = NDArray[np.uint64]

_SEGMENT = 1 << 22  # numbers whose primes are found at once
_GROUP = 16  # primes that the large number is divided by at once
_WORDS = 16  # words of 32 bits that hold a remainder modulo their product: primes are below 2^32
_SMALLEST = 1 << 10


def primes_up_to(limit: int) -> Iterator[UInts]:
    """The odd primes up to `limit`, below 2^32, ascending, in parts."""
    known = _small_primes(max(_SMALLEST, math.isqrt(limit)))
    yield known[known <= limit]
    low = (max(_SMALLEST, math.isqrt(limit)) + 1) // 2 * 2 + 1  # the first odd number after those
    while low <= limit:
        odd = np.ones(min(_SEGMENT, limit - low + 2) // 2, bool)  # of low, low + 2, ...
        for p in known.tolist():
            if p * p >= low + 2 * len(odd):
                break
            first = max(p * p, (low + p - 1) // p * p)
            first += p * (first % 2 == 0)
            odd[(first - low) // 2 :: p] = False
        yield (low + 2 * np.flatnonzero(odd)).astype(np.uint64)
        low += 2 * len(odd)


def _small_primes(limit: int) -> UInts:
    """The odd primes up to `limit`."""
    odd = np.ones((limit + 1) // 2, bool)  # of 1, 3, 5, ...
    odd[0] = False
    for p in range(3, math.isqrt(limit) + 1, 2):
        if odd[p // 2]:
            odd[p * p // 2 :: p] = False
    return (2 * np.flatnonzero(odd) + 1).astype(np.uint64)


def remainders(n: Any, primes: UInts) -> UInts:
    """n modulo each of the primes; n is a whole number of gmpy2, whose divisions are fast, or of Python."""
    groups = np.ones((-(-len(primes) // _GROUP), _GROUP), np.uint64)
    groups.ravel()[: len(primes)] = primes
    products = (groups[:, ::2] * groups[:, 1::2]).astype(object)  # [groups, 8]: two primes fit into 64 bits
    while products.shape[1] > 1:
        products = products[:, ::2] * products[:, 1::2]
    content = b"".join([int(n % product).to_bytes(4 * _WORDS, "big") for product in products[:, 0].tolist()])
    words = np.frombuffer(content, ">u4").reshape(-1, _WORDS).astype(np.uint64)  # [groups, words]
    rest = np.zeros_like(groups)
    for word in words.T:
        rest <<= 32
        rest |= word[:, None]
        rest %= groups
    return rest.ravel()[: len(primes)]


def survivors(base: Any, shift: int, count: int, limit: int) -> list[int]:
    """The i from 0 to count - 1 for which base + i·2^shift, an odd number, has no odd prime factor up to `limit`.

    A number that is such a prime itself counts as having a factor, so `limit` must be below the base.
    """
    stays = np.ones(count, bool)
    for primes in primes_up_to(limit):
        # base + i·2^shift = 0 modulo p where i = -base / 2^shift.
        first = (primes - remainders(base, primes)) % primes * _inverse_of_power(shift, primes) % primes
        often = int(np.searchsorted(primes, count))
        for p, at in zip(primes[:often].tolist(), first[:often].tolist(), strict=True):
            stays[at::p] = False
        once = first[often:]
        stays[once[once < count]] = False
    return list(map(int, np.flatnonzero(stays)))


def _inverse_of_power(shift: int, primes: UInts) -> UInts:
    """1 / 2^shift modulo each of the primes."""
    half = (primes + 1) // 2
    result = np.ones_like(primes)
    for bit in bin(shift)[2:]:
        result = result * result % primes
        if bit == "1":
            result = result * half % primes
    return result
