"""An intro tells the table, the length and a check; an outro mends."""

from __future__ import annotations

from etude.prime.intro import INTRO_NOTES, framed, scale_of, unframed

DIGITS = "4015900675360164941257961833784007821955751818867272204251449157644366823689729146104054213"


def test_what_is_framed_comes_back() -> None:
    sung = framed(DIGITS)
    assert sung.startswith("01234567899876543210000091")
    found = unframed(sung)
    assert found is not None
    assert (found.digits, found.mended) == (DIGITS, 0)


def test_the_scale_is_recognised_on_any_notes_and_only_there() -> None:
    notes = [5, 2, 9, 0, 1, 3, 4, 6, 8, 7]
    assert scale_of([*notes, *reversed(notes), 1, 2, 3]) == dict(zip(notes, "0123456789", strict=True))
    assert scale_of([*notes, *notes]) is None
    assert scale_of([int(digit) for digit in DIGITS]) is None


def test_digits_whose_parity_fits_are_refused_where_the_check_of_them_does_not() -> None:
    other = DIGITS[:40] + "7" * 51
    sung = framed(DIGITS)[:INTRO_NOTES] + framed(other)[INTRO_NOTES:]
    assert unframed(sung) is None


def test_wrong_notes_in_every_part_are_mended_or_refused() -> None:
    sung = framed(DIGITS)
    for place in (22, 30, 37, INTRO_NOTES, 80, len(sung) - 1):
        spoiled = sung[:place] + str((int(sung[place]) + 3) % 10) + sung[place + 1 :]
        found = unframed(spoiled)
        assert found is not None, place
        assert found.digits == DIGITS
    lost = sung[:INTRO_NOTES] + "7" * 60 + sung[INTRO_NOTES + 60 :]
    assert unframed(lost) is None
    assert unframed(sung[:60]) is None
