from __future__ import annotations

from pathlib import Path

from etude.prime.checking import run
from etude.prime.number import decode, read_number
from etude.prime.packing import bundled, digits_at_least, gzip_member, shortest
from etude.prime.primality import is_probable_prime
from etude.prime.running import Limits

FEW = Limits(seconds=120, output_bytes=250)  # the first losses


def test_the_smallest_gpt_prints_what_the_published_one_prints(reference_prime: Path, shared_names: Path) -> None:
    theirs = run(decode(read_number(reference_prime)).program, FEW, shared_names).output
    assert theirs.count(b"loss") >= 4
    assert run(bundled("micro.py"), FEW, shared_names).output == theirs
    assert run(shortest(bundled("micro.py")), FEW, shared_names).output == theirs


def test_it_is_smaller() -> None:
    member = gzip_member(shortest(bundled("micro.py")))
    assert len(member) <= 1100 and digits_at_least(member, False) < 2700  # the published: 1,491 and 3,600


def test_the_template_of_the_sampler_is_a_program_by_itself() -> None:
    seen = run(bundled("sampler.py"), Limits(seconds=60), None)
    assert seen.ended.status == 0 and seen.output.count(b"\n") == 2


def test_the_prime_that_comes_with_the_documents_writes_what_they_show() -> None:
    docs = Path(__file__).parents[2] / "docs"
    number = read_number(docs / "primes" / "chords.prime")
    assert is_probable_prime(number, rounds=0)
    lines = run(decode(number).program, Limits(seconds=60), None).output.decode().splitlines()
    assert len(lines) == 20
    shown = (docs / "prime.md").read_text(encoding="utf-8").partition("docs/primes/chords.prime --yes\n")[2]
    assert [line.strip() for line in shown.splitlines()[:4]] == lines[:4]
