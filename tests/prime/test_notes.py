"""Which note a digit gets, and at what pitch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.prime.notes import (
    LETTERS,
    RAGAS,
    TALAS,
    Raga,
    check_table,
    degrees_of,
    find_raga,
    find_tala,
    frequency,
    parse_pitch,
    ranking,
    swara,
)
from etude.prime.number import PrimeError

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "prime.txt"


def test_ties_are_broken_by_first_appearance() -> None:
    assert ranking("7133710") == "7130245689"
    assert ranking("") == "0123456789"


@given(st.text("0123456789", min_size=1))
def test_a_ranking_falls_in_frequency(digits: str) -> None:
    table = ranking(digits)
    assert sorted(table) == list("0123456789")
    for a, b in pairwise(table):
        assert digits.count(a) >= digits.count(b)
        if a in digits and digits.count(a) == digits.count(b):
            assert digits.index(a) < digits.index(b)


def test_the_reference_table() -> None:
    if not REFERENCE.is_file():
        pytest.skip("the published prime is not beside the checkout (in ../shared/reference)")
    digits = REFERENCE.read_text().strip()
    table = ranking(digits)
    assert table == "3092854716"
    names = ("Sa", "Pa", "Sa'", "Re", "Ga", "Ma", "komal Dha", "Ni", "Ga'", "'Ni")
    raga = find_raga("nat-bhairav")
    assert raga.swaras == names
    assert degrees_of(table, table, raga) == [0, 7, 12, 2, 4, 5, 8, 11, 16, -1]


@pytest.mark.parametrize("raga", RAGAS.values(), ids=lambda raga: raga.name)
def test_a_raga_has_ten_notes_of_its_own_scale_sa_first(raga: Raga) -> None:
    assert raga.degrees[0] == 0
    assert len(set(raga.degrees)) == 10
    assert min(raga.degrees) > -12 and max(raga.degrees) < 24
    scale = raga.about.split(";")[0].split(":")[0].split(",")[0].split()
    written = {letter for letter in scale if letter in LETTERS}
    assert {LETTERS[degree % 12] for degree in raga.degrees} == written | ({"N"} if raga.name == "khamaj" else set())


def test_talas_have_their_beats_and_a_mark_for_each_part() -> None:
    beats = {"teental": 16, "ektal": 12, "jhaptal": 10, "keherwa": 8, "rupak": 7, "dadra": 6}
    assert {name: tala.beats for name, tala in TALAS.items()} == beats
    assert all(len(tala.marks) == len(tala.theka) for tala in TALAS.values())


def test_pitches() -> None:
    assert frequency(12, 147.2) == pytest.approx(294.4)
    assert frequency(7, 147.2, "just") == pytest.approx(220.8)
    assert frequency(-1, 160.0, "just") == pytest.approx(150.0)
    assert [swara(degree) for degree in (-1, 6, 13)] == ["'Ni", "tivra Ma", "komal Re'"]
    assert parse_pitch("A4") == pytest.approx(440.0)
    assert parse_pitch("Bb2") == pytest.approx(116.5409, abs=1e-3)
    assert parse_pitch("147.2 Hz") == 147.2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: find_raga("blues"), "nat-bhairav, bilawal"),
        (lambda: find_tala("waltz"), "teental"),
        (lambda: parse_pitch("H3"), "D3"),
        (lambda: check_table("0123456788"), "commonest first"),
    ],
)
def test_what_is_not_known_is_told_with_what_is(wrong: Callable[[], object], said: str) -> None:
    with pytest.raises(PrimeError, match=said):
        wrong()
