"""Wrong digits are put right up to the code's limit, wherever they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.prime.parity import PARITY, codewords, mended, parity_digits, parity_length


@given(st.text("0123456789", min_size=1, max_size=120), st.data())
@settings(max_examples=40, deadline=None)
def test_eight_wrong_digits_are_mended(digits: str, data: st.DataObject) -> None:
    whole = digits + parity_digits(digits)
    assert len(whole) == len(digits) + parity_length(len(digits))
    places = data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=PARITY // 2, unique=True))
    heard = list(whole)
    for place in places:
        heard[place] = str((int(heard[place]) + data.draw(st.integers(1, 9))) % 10)
    spoiled = "".join(heard)
    assert mended(spoiled[: len(digits)], spoiled[len(digits) :]) == digits


def test_a_passage_of_wrong_digits_is_shared_by_the_codewords() -> None:
    digits = "".join(str(i * i % 7 + i % 3) for i in range(3600))
    parity = parity_digits(digits)
    assert (codewords(1200), len(parity)) == (2, 128)
    spoiled = digits[:1000] + "".join(str(9 - int(digit)) for digit in digits[1000:1045]) + digits[1045:]
    assert mended(spoiled, parity) == digits


@pytest.mark.parametrize("wrong", [9, 20, 60])
def test_too_many_are_not_mended_into_something_else(wrong: int) -> None:
    digits = "31415926535897932384626433832795028841971693993751" * 6
    spoiled = "".join(str(9 - int(digit)) for digit in digits[: 3 * wrong]) + digits[3 * wrong :]
    assert mended(spoiled, parity_digits(digits)) is None
    assert mended(digits, "0" * 60) is None
