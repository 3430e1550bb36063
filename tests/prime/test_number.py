from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.prime.number import (
    MAX_DIGITS,
    MAX_FILE_BYTES,
    MAX_PROGRAM_BYTES,
    PrimeError,
    decimal,
    decode,
    parse,
    read_number,
    read_number_file,
)


@given(st.integers(1, 60_000).flatmap(lambda bits: st.integers(1 << (bits - 1), (1 << bits) - 1)))
def test_a_number_of_any_length_survives_its_digits(number: int) -> None:
    assert parse(decimal(number)) == number == parse(hex(number))


def test_digits_are_those_of_python() -> None:
    number = 3**9000  # just short enough for Python's own conversion
    assert decimal(number) == str(number)
    assert decimal(10**4000) == "1" + "0" * 4000
    assert decimal(0) == "0"


def test_a_file_may_break_its_digits_and_carry_remarks(tmp_path: Path) -> None:
    path = tmp_path / "n.prime"
    path.write_text("# certificate: 2^5 a=3\n 12 345\n\n678\n  # of mine \n9\n")
    file = read_number_file(path)
    assert file.number == 123456789
    assert file.remarks == ("certificate: 2^5 a=3", "of mine")
    path.write_text("0xFF\nfe")
    assert read_number(path) == 0xFFFE
    path.write_text(json.dumps({"number": "0x1F", "remarks": ["a\nb"]}))
    assert read_number_file(path).number == 31
    assert read_number_file(path).remarks == ("a b",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no digits"),
        (b"0", "0"),
        (b"12a4", "'a' after 2 digits"),
        (b"-7", "'-'"),
        (b"1.5", "'.'"),
        (b"\x1f\x8b\x08\x00\xff", "not a number"),
        ("١٢٣".encode(), "not a number"),
        (b"9" * (MAX_DIGITS + 1), "at most 100,000"),
        (b"0x" + b"f" * MAX_DIGITS, "at most"),
        (b"1" * 10_000_000, "too large"),
        (b'{"number": 7}', "not a number"),
        (b'{"number": "7"', "not a number"),
        (b"[" * 100_000, "'['"),
        (b'{"a":' * 40_000, "not a number"),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "n"
    path.write_bytes(content)
    with pytest.raises(PrimeError, match="n: ") as caught:
        read_number(path)
    assert words in str(caught.value) and "n:" in str(caught.value) and "\n" not in str(caught.value)


def test_a_pipe_is_read_no_further_than_the_limit(tmp_path: Path) -> None:
    with pytest.raises(PrimeError, match="too large"):
        read_number(Path("/dev/zero"))
    assert MAX_FILE_BYTES > 2 * MAX_DIGITS  # digits in groups and lines fit


@given(st.binary(max_size=300), st.integers(0, 2**40 - 1))
def test_a_gzip_file_and_what_follows_it_are_told_apart(program: bytes, offset: int) -> None:
    member = gzip.compress(program, mtime=0)
    payload = decode(int.from_bytes(member, "big") << 40 | offset)
    assert (payload.program, payload.member, payload.offset, payload.free_bytes) == (program, member, offset, 5)


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_are_opened_or_refused(content: bytes) -> None:
    for start in (b"", b"\x1f\x8b\x08", gzip.compress(b"print(1)")[:12]):
        number = int.from_bytes(start + content, "big")
        if number:
            try:
                decode(number)
            except PrimeError as error:
                assert "\n" not in str(error)


def test_a_bomb_is_refused() -> None:
    bomb = gzip.compress(bytes(20 * MAX_PROGRAM_BYTES))
    with pytest.raises(PrimeError, match="larger than 1 MiB"):
        decode(int.from_bytes(bomb, "big"))
    content = zlib.compress(b"x")
    with pytest.raises(PrimeError, match="no program"):
        decode(int.from_bytes(content, "big"))
    with pytest.raises(PrimeError, match="no end"):
        decode(int.from_bytes(gzip.compress(b"print(2)")[:-3], "big"))


def test_the_reference_is_read(reference_prime: Path) -> None:
    number = read_number(reference_prime)
    payload = decode(number)
    assert (len(decimal(number)), number.bit_length()) == (3600, 11957)
    assert (payload.offset, payload.free_bytes, len(payload.member), len(payload.program)) == (5019, 4, 1491, 2750)
