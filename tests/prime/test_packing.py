from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import gmpy2
import pytest

from etude.prime import packing
from etude.prime.certificate import check, read_certificate
from etude.prime.number import PrimeError, decode, read_number_file
from etude.prime.packing import digits_at_least, facts, find, gzip_member, minify, qr_code, shortest, text_of
from etude.prime.search import Progress

PROGRAM = b"""\
'''Says which squares end as they began.'''
def automorphic(number):
    # the last digits of the square
    return str(number ** 2).endswith(str(number))

for candidate in range(1000):
    if automorphic(candidate):
        print("found", candidate)
"""


def test_a_member_is_a_gzip_file_that_is_the_same_everywhere() -> None:
    member = gzip_member(PROGRAM)
    assert gzip.decompress(member) == PROGRAM
    assert member[:10] == bytes.fromhex("1f8b08000000000002ff")  # no time, no name, no operating system
    assert member == gzip_member(PROGRAM)
    assert len(member) < len(gzip.compress(PROGRAM, 9))


def test_minified_programs_are_shorter_and_the_best_is_taken() -> None:
    programs = [PROGRAM, *(each.encode() for each in minify(PROGRAM.decode()))]
    best = shortest(PROGRAM)
    assert len(gzip_member(best)) == min(len(gzip_member(each)) for each in programs)
    assert b"Says" not in best and b"found" in best


def test_what_is_no_program_is_refused_in_one_line() -> None:
    for content in (b"print(", b"\xff\xfe", b"x = \0"):
        with pytest.raises(PrimeError, match="--no-minify") as caught:
            shortest(content)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("program", [b"", b"print(1)", PROGRAM])
def test_the_prime_is_the_very_next_after_the_program(program: bytes) -> None:
    member = gzip_member(program)
    packed = find(member)
    payload = decode(packed.number)
    assert payload.program == program and payload.member == member
    start = int.from_bytes(member, "big") << 8 * payload.free_bytes
    assert packed.number == gmpy2.next_prime(start)
    assert packed.certificate is None
    if payload.free_bytes > 1:  # a byte less has no prime
        assert gmpy2.next_prime(start >> 8) >> 8 * (payload.free_bytes - 1) != int.from_bytes(member, "big")


@pytest.mark.parametrize("program", [b"print(1)", PROGRAM])
def test_a_proven_prime_carries_its_proof(program: bytes, tmp_path: Path) -> None:
    member = gzip_member(program)
    packed = find(member, proven=True)
    assert decode(packed.number).program == program
    path = tmp_path / "p.prime"
    for hexadecimal in (False, True):
        path.write_text(text_of(packed.file(), hexadecimal))
        file = read_number_file(path)
        certificate = read_certificate(file.remarks)
        assert file.number == packed.number and certificate is not None
        check(file.number, certificate)
    assert gmpy2.is_prime(packed.number)
    # No smaller number of its form is one.
    (factor,) = packed.certificate.factors if packed.certificate else ()
    free = decode(packed.number).free_bytes
    start = (int.from_bytes(member, "big") << 8 * free) + 1
    assert 3 * factor.exponent >= packed.number.bit_length()
    assert not any(gmpy2.is_prime(n) for n in range(start, packed.number, 1 << factor.exponent))


def test_a_search_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_SAVE_SECONDS", 0.0)
    member, state = gzip_member(PROGRAM), tmp_path / ".state"
    whole = find(member)

    def stop(progress: Progress) -> None:
        if progress.tested == whole.tests // 2:
            raise KeyboardInterrupt

    for proven in (False, True):
        whole = find(member, proven)
        assert whole.tests > 4
        with pytest.raises(KeyboardInterrupt):
            find(member, proven, state, report=stop)
        kept = json.loads(state.read_bytes())
        assert kept["next"] > 0
        rest = find(member, proven, state)
        assert rest.number == whole.number
        assert rest.tests <= whole.tests - whole.tests // 2 + 1
        assert not state.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"search": "x", "room": 1}', b'{"search": 7}', b"\xff" * 9999]
)
def test_a_state_of_something_else_is_not_believed(tmp_path: Path, content: bytes) -> None:
    state, member = tmp_path / ".state", gzip_member(b"print(1)")
    state.write_bytes(content)
    assert find(member, state=state).number == find(member).number


def test_a_state_of_another_search_is_not_believed(tmp_path: Path) -> None:
    state = tmp_path / ".state"
    one, other = gzip_member(b"print(1)"), gzip_member(b"print(2)")
    kept = packing._State(state, one, False)
    kept.save(3, 1000, now=True)
    assert find(other, state=state).number == find(other).number
    kept.save(3, 1000, now=True)
    assert find(one, True, state).number == find(one, True).number


def test_facts_are_those_of_the_number() -> None:
    packed = find(gzip_member(PROGRAM))
    found = facts(packed.file())
    assert found["digits"] == len(str(packed.number)) == digits_at_least(gzip_member(PROGRAM), False)
    assert found["bits"] == packed.number.bit_length()
    assert found["bytes"] == found["gzip_bytes"] + found["free_bytes"]
    assert found["program_bytes"] == len(PROGRAM)
    proven = facts(find(gzip_member(PROGRAM), proven=True).file())
    assert isinstance(proven["offset"], str)  # too long for most readers of JSON


def test_too_long_is_too_long_before_the_search() -> None:
    noise = random.Random(1).randbytes(42_000)
    with pytest.raises(PrimeError, match="too many"):
        gzip_member(noise, 1)
    with pytest.raises(PrimeError, match="7,089"):
        qr_code(10**7089, "svg")


def test_a_qr_code_holds_the_digits() -> None:
    number = find(gzip_member(b"print(1)")).number
    svg = qr_code(number, "svg")
    assert svg.startswith(b"<svg") and svg == qr_code(number, "svg")
    assert qr_code(number, "png").startswith(b"\x89PNG")
    assert len(qr_code(10**7088, "svg")) > 10_000  # 7,089 digits are the most
