"""A number that is a program: read from a file, written in digits, and opened.

The bytes of the number, big end first, begin with a gzip member, which is the program; a gzip reader ignores what
follows it, and what follows is there to make the number prime. Everything read here comes from outside, so every size
is checked before work is done in proportion to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from etude.errors import EtudeError

MAX_DIGITS = 100_000
MAX_FILE_BYTES = 1 << 18
MAX_PROGRAM_BYTES = 1 << 20
PROOF_ROOM = 16
"""Bits of c in A·2^m + c·2^s + 1, the form of a number with a proof: 65,536 numbers, of which some are prime."""

_PIECE = 4000  # digits that Python converts at once: it refuses more than 4,300, and takes a time that is their square
_HEX = re.compile(r"0[xX][0-9a-fA-F]+")


class PrimeError(EtudeError):
    """A number that cannot be read, opened, found, proved or run."""


@dataclass(frozen=True, slots=True)
class NumberFile:
    """A number and the remarks that stood beside it in the file: its comment lines, without their `#`."""

    number: int
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Payload:
    """What a number carries: the bytes of `program`, in the gzip member `member`, and `free_bytes` after that.

    The number is the member's, shifted left by the free bytes, plus `offset`.
    """

    program: bytes
    member: bytes
    offset: int
    free_bytes: int

    @property
    def sha256(self) -> str:
        """The hash of the program, in hexadecimal digits."""
        return hashlib.sha256(self.program).hexdigest()


def read_number(path: Path) -> int:
    """The number in a file, as `read_number_file` reads it."""
    return read_number_file(path).number


def read_number_file(path: Path) -> NumberFile:
    """The positive number in a file: decimal, hexadecimal after 0x, or the JSON document of `etude prime pack`.

    Digits may be broken into lines and groups; lines that begin with `#` are remarks. Raises `PrimeError`.
    """
    if path.is_file() and os.path.getsize(path) > MAX_FILE_BYTES:
        raise PrimeError(f"{path}: too large; numbers of at most {MAX_DIGITS:,} digits are read")
    with open(path, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise PrimeError(f"{path}: too large; numbers of at most {MAX_DIGITS:,} digits are read")
    try:
        text = content.decode("ascii")
        if text.lstrip().startswith("{"):
            text = _text_of_document(text)
    except ValueError as error:
        raise PrimeError(f"{path}: not a number; decimal digits, or hexadecimal ones after 0x, are read") from error
    lines = text.splitlines()
    remarks = tuple(line.lstrip()[1:].strip() for line in lines if line.lstrip().startswith("#"))
    digits = "".join("".join(line.split()) for line in lines if not line.lstrip().startswith("#"))
    try:
        return NumberFile(parse(digits), remarks)
    except PrimeError as error:
        raise PrimeError(f"{path}: {error}") from error


def _text_of_document(text: str) -> str:
    """A JSON document as the lines of a text file. Raises `ValueError`."""
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    number, remarks = document.get("number"), document.get("remarks", [])
    if not isinstance(number, str) or not isinstance(remarks, list) or not all(isinstance(r, str) for r in remarks):
        raise ValueError("no number in it")
    return "".join(f"# {' '.join(remark.split())}\n" for remark in remarks) + number


def parse(digits: str) -> int:
    """The positive number that decimal digits, or hexadecimal ones after 0x, say. Raises `PrimeError`."""
    if not digits:
        raise PrimeError("no digits in it")
    if _HEX.fullmatch(digits):
        if (len(digits) - 2) * 1.204 > MAX_DIGITS:  # 16 is 10 to the power of 1.204
            raise PrimeError(f"{len(digits) - 2:,} hexadecimal digits; at most {int(MAX_DIGITS / 1.204):,} are read")
        number = int(digits, 16)
    elif digits.isascii() and digits.isdigit():
        if len(digits) > MAX_DIGITS:
            raise PrimeError(f"{len(digits):,} digits; at most {MAX_DIGITS:,} are read")
        number = 0
        for start in range(0, len(digits), _PIECE):
            piece = digits[start : start + _PIECE]
            number = number * 10 ** len(piece) + int(piece)
    else:
        wrong = next(at for at, sign in enumerate(digits) if not (sign.isascii() and sign.isdigit()))
        raise PrimeError(f"{digits[wrong]!r} after {wrong:,} digits is not one; decimal, or hexadecimal after 0x, is")
    if not number:
        raise PrimeError("the number is 0; a positive one is needed")
    return number


def decimal(number: int) -> str:
    """The decimal digits of a number that is not negative, of any length."""
    pieces, base = [], 10**_PIECE
    while number >= base:
        number, piece = divmod(number, base)
        pieces.append(str(piece).zfill(_PIECE))
    return str(number) + "".join(reversed(pieces))


def to_bytes(number: int) -> bytes:
    """The bytes of a number, big end first, as few as there can be."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def decode(number: int) -> Payload:
    """The program that a number carries. Raises `PrimeError` where there is none, or one that is too large."""
    content = to_bytes(number)
    if not content.startswith(b"\x1f\x8b"):
        raise PrimeError("its bytes do not begin as a gzip file does, so there is no program in it")
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        program = reader.decompress(content, MAX_PROGRAM_BYTES + 1)
    except zlib.error as error:
        raise PrimeError(f"the gzip file in its bytes is damaged ({error})") from error
    if len(program) > MAX_PROGRAM_BYTES:
        raise PrimeError(f"its program is larger than {MAX_PROGRAM_BYTES >> 20} MiB unpacked, which is refused")
    if not reader.eof:
        raise PrimeError("the gzip file in its bytes has no end")
    rest = reader.unused_data
    return Payload(program, content[: len(content) - len(rest)], int.from_bytes(rest, "big"), len(rest))
