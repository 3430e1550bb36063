"""A program as a prime: made small, compressed, and followed by the fewest bytes that make the number a prime.

The same program gives the same prime on every machine: the gzip header is written here, byte by byte, and of the
numbers that begin with these bytes the smallest prime is taken. So that a search can be stopped, what is known is kept
in a file beside the result.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import math
import platform
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from etude.files import atomic_write

from .certificate import Certificate, Factor, check
from .number import MAX_DIGITS, MAX_PROGRAM_BYTES, PROOF_ROOM, NumberFile, PrimeError, decimal, decode, to_bytes
from .primality import gmp, jacobi
from .search import Progress, Progression, first_prime

Say = Callable[[str], None]

# Magic number, deflate, no flags, no time, "compressed as far as it goes", and "unknown" for the operating system.
_HEADER = bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 2, 255])
_ROUNDS, _QUICK_ROUNDS = 300, 15  # of zopfli; what is gained after so many is nothing, for programs of some kilobytes
_SAVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Packed:
    """A prime that carries a program; `certificate` proves it, where there is one."""

    number: int
    certificate: Certificate | None
    tests: int
    seconds: float

    def file(self) -> NumberFile:
        return NumberFile(self.number, (str(self.certificate),) if self.certificate else ())


def minify(source: str) -> list[str]:
    """Shorter programs that do the same, by several settings of python-minifier: which packs best is seen by packing.

    Raises `PrimeError` for what is no Python, or where the minifier is not installed.
    """
    try:
        import python_minifier
    except ImportError as error:
        raise PrimeError("to minify needs python-minifier: pip install 'etude[prime]', or --no-minify") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(source)
            return [
                python_minifier.minify(
                    source,
                    remove_literal_statements=True,
                    rename_globals=rename,
                    hoist_literals=hoist,
                    preserve_shebang=False,
                )
                for rename, hoist in product((True, False), repeat=2)
            ]
    except (SyntaxError, ValueError, RecursionError, MemoryError, python_minifier.UnstableMinification) as error:
        raise PrimeError(f"it cannot be read as Python ({error}); --no-minify packs it as it is") from error


def gzip_member(program: bytes, rounds: int = _ROUNDS) -> bytes:
    """The program as a gzip file, the same bytes everywhere, as small as zopfli makes it. Raises `PrimeError`."""
    try:
        from zopfli.zlib import compress
    except ImportError as error:
        raise PrimeError("to compress needs zopfli: pip install 'etude[prime]'") from error
    if len(program) > MAX_PROGRAM_BYTES:
        raise PrimeError(f"a program of at most {MAX_PROGRAM_BYTES >> 20} MiB is packed")
    tries = [compress(program, numiterations=rounds, blocksplitting=split)[2:-4] for split in (True, False)]
    deflated: bytes = min(tries, key=len)
    member = _HEADER + deflated + zlib.crc32(program).to_bytes(4, "little") + len(program).to_bytes(4, "little")
    if len(member) * 8 * math.log10(2) > MAX_DIGITS:
        raise PrimeError(f"compressed it has {len(member):,} bytes, too many for a prime of {MAX_DIGITS:,} digits")
    return member


def smallest(programs: list[bytes]) -> bytes:
    """Of programs that do the same the one that compresses best; of equal ones the first."""
    return min(programs, key=lambda program: len(gzip_member(program, _QUICK_ROUNDS)))


def find(
    member: bytes,
    proven: bool = False,
    state: Path | None = None,
    jobs: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Packed:
    """The smallest prime that begins with the bytes of `member` and has the fewest bytes after them.

    `proven` finds the smallest of the form A·2^m + c·2^s + 1 instead, with a c of 16 bits and an s of a third of all
    bits, so that a short certificate proves it. What was searched already is read from `state` and kept there; the file
    is taken away at the end. Raises `PrimeError`.
    """
    if (digits := digits_at_least(member, proven)) > MAX_DIGITS:
        raise PrimeError(f"the prime would have {digits:,} digits; at most {MAX_DIGITS:,} are read again")
    began, tests = time.monotonic(), 0
    kept = _State(state, member, proven)
    for room, numbers in _rooms(int.from_bytes(member, "big"), proven):
        if room < kept.room:
            continue
        first, before = kept.next if room == kept.room else 0, 0

        def told(progress: Progress, room: int = room) -> None:
            nonlocal before, tests
            tests += progress.tested - before
            before = progress.tested
            kept.save(room, progress.next)
            report(replace(progress, tested=tests))

        try:
            found = first_prime(numbers, first, jobs, told)
        except BaseException:
            kept.save(now=True)
            raise
        if found is not None:
            number = numbers.at(found)
            certificate = certify(number, {2: numbers.shift}) if proven else None
            kept.remove()
            return Packed(number, certificate, tests, time.monotonic() - began)
    raise AssertionError("there is a prime between any number and its double (Chebyshev 1852)")


def _rooms(payload: int, proven: bool) -> Iterator[tuple[int, Progression]]:
    """Ever more bytes after the payload, from 1 up, with the odd numbers there are; or those of the provable form."""
    for room in range(1, 1 << 16):
        bits = payload.bit_length() + 8 * room
        if not proven:
            yield room, Progression((payload << 8 * room) + 1, 1, 1 << (8 * room - 1))
        elif 3 * (8 * room - PROOF_ROOM) >= bits:
            shift = 8 * room - PROOF_ROOM
            yield room, Progression((payload << 8 * room) + 1, shift, 1 << PROOF_ROOM)


class _State:
    """What is known of a search: in so many free bytes, before number `next`, there is no prime."""

    def __init__(self, path: Path | None, member: bytes, proven: bool) -> None:
        self._path, self.room, self.next, self._saved = path, 0, 0, time.monotonic()
        self._key = hashlib.sha256(member + bytes([proven])).hexdigest()
        if path is not None and path.exists():
            with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                known = json.loads(path.read_bytes()[:1000])
                sound = all(type(known[name]) is int and known[name] >= 0 for name in ("room", "next"))
                if known["search"] == self._key and sound and known["room"] < 1 << 12:
                    self.room, self.next = known["room"], max(0, known["next"])

    def save(self, room: int | None = None, next: int | None = None, now: bool = False) -> None:
        if room is not None and next is not None:
            self.room, self.next = room, next
        if self._path is not None and (now or time.monotonic() - self._saved > _SAVE_SECONDS):
            with atomic_write(self._path) as file:
                file.write(json.dumps({"search": self._key, "room": self.room, "next": self.next}).encode())
            self._saved = time.monotonic()

    def remove(self) -> None:
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)


def certify(number: int, factors: dict[int, int]) -> Certificate:
    """The certificate of a prime, with these known factors q: exponent of the number less 1, checked.

    Raises `CertificateError` where they are too few, or the number is no prime.
    """
    library = gmp()
    n: Any = number if library is None else library.mpz(number)
    power = pow if library is None else library.powmod
    found = []
    for q, exponent in factors.items():
        # A q-th power is no base for q. For q = 2 the symbol says so; else one in q is, and a few are tried.
        tries = (base for base in range(2, 1000) if q != 2 or jacobi(base, number) == -1)
        base = next((base for base in tries if power(base, (n - 1) // q, n) != 1), 2)
        found.append(Factor(q, exponent, base))
    certificate = Certificate(tuple(found))
    check(n, certificate)
    return certificate


def bundled(name: str) -> bytes:
    """A program of `etude.prime.programs`."""
    return files("etude.prime.programs").joinpath(name).read_bytes()


def shortest(content: bytes) -> bytes:
    """Of a Python program and what minifying makes of it, what compresses best. Raises `PrimeError`."""
    try:
        source = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PrimeError("it is not UTF-8 and cannot be minified; --no-minify packs it as it is") from error
    return smallest([content, *(each.encode() for each in minify(source))])


def digits_at_least(member: bytes, proven: bool) -> int:
    """How many decimal digits the prime will have, unless it needs a byte more than most."""
    payload = int.from_bytes(member, "big")
    room, _ = next(each for each in _rooms(payload, proven) if proven or each[0] == 2)
    return len(decimal(payload << 8 * room))


def digits_of(number: int, hexadecimal: bool) -> str:
    """The digits, decimal or hexadecimal."""
    return hex(number) if hexadecimal else decimal(number)


def versions() -> dict[str, str]:
    """What made the bytes: of other versions the minifier and the compressor may write others."""
    names = ("python-minifier", "zopfli", "gmpy2")
    found = {"python": platform.python_version()}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def qr_code(number: int, kind: str) -> bytes:
    """The decimal digits as a QR code, `svg` or `png`. Raises `PrimeError`."""
    try:
        import segno
    except ImportError as error:
        raise PrimeError("to draw a QR code needs segno: pip install 'etude[prime]'") from error
    try:
        code = segno.make_qr(decimal(number), error="l", mode="numeric", boost_error=False)
    except segno.DataOverflowError as error:
        raise PrimeError(
            "a QR code holds at most 7,089 digits, and the prime has more; leave out the picture"
        ) from error
    picture = io.BytesIO()
    code.save(picture, kind=kind, **({"scale": 4} if kind == "png" else {"xmldecl": False, "nl": True}))
    return picture.getvalue()


def text_of(file: NumberFile, hexadecimal: bool = False) -> str:
    """The lines of a number's file: its remarks, then all its digits in one."""
    remarks = "".join(f"# {remark}\n" for remark in file.remarks)
    return f"{remarks}{digits_of(file.number, hexadecimal)}\n"


def facts(file: NumberFile) -> dict[str, Any]:
    """What there is to say of a number without testing it; nothing of a program where it carries none.

    An offset above 2^53, as the provable form has, is a string of digits: most readers of JSON know no such integers.
    """
    number = file.number
    document: dict[str, Any] = {
        "digits": len(decimal(number)),
        "bits": number.bit_length(),
        "bytes": len(to_bytes(number)),
        "offset": None,
        "program_bytes": None,
        "sha256": None,
    }
    with suppress(PrimeError):
        payload = decode(number)
        document["offset"] = payload.offset if payload.offset < 1 << 53 else decimal(payload.offset)
        document |= {
            "program_bytes": len(payload.program),
            "sha256": payload.sha256,
            "gzip_bytes": len(payload.member),
            "free_bytes": payload.free_bytes,
        }
    return document
