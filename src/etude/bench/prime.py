"""`etude bench prime`: the next prime after a program, found here on all cores and by `gmpy2.next_prime` on one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from etude.prime.number import PrimeError, decode, read_number
from etude.prime.packing import bundled, gzip_member, shortest
from etude.prime.primality import gmp
from etude.prime.search import Progress, next_prime
from etude.system import cores

FREE_BYTES = 4
"""After the program's gzip file, as the reference's prime has them."""


def bench(number: Path | None = None, say: Callable[[str], None] = lambda message: None) -> list[dict[str, Any]]:
    """Rows {"subject", "metric", "value", "unit"}; "same prime" is 1 where both found the same.

    The payload is the gzip file in a number's file, or that of the smallest GPT of this package.
    """
    library = gmp()
    if library is None:
        raise PrimeError("the bench needs gmpy2: pip install 'etude[prime]'")
    member = gzip_member(shortest(bundled("micro.py"))) if number is None else decode(read_number(number)).member
    start = int.from_bytes(member, "big") << 8 * FREE_BYTES
    tests = 0

    def count(progress: Progress) -> None:
        nonlocal tests
        tests = progress.tested

    say(f"{len(member) + FREE_BYTES:,} bytes; first here, on {cores()} cores")
    began = time.perf_counter()
    ours = next_prime(start, report=count)
    seconds = time.perf_counter() - began
    say(f"{seconds:.1f} s; now gmpy2.next_prime")
    began = time.perf_counter()
    theirs = library.next_prime(start)
    peer = time.perf_counter() - began
    say(f"{peer:.1f} s")
    rows = [
        ("étude", "time", seconds, "s"),
        ("étude", "tests", tests, "tests"),
        ("étude", "cores", cores(), "cores"),
        ("gmpy2.next_prime", "time", peer, "s"),
        ("étude over gmpy2", "speed", peer / seconds, "times"),
        ("étude over gmpy2", "same prime", int(ours == theirs), "of 1"),
        ("payload", "size", start.bit_length(), "bits"),
        ("payload", "offset of the prime", ours - start, ""),
    ]
    return [dict(zip(("subject", "metric", "value", "unit"), row, strict=True)) for row in rows]
