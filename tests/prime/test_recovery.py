"""Notes become the number: with no table at all, and with wrong notes among them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etude.prime.hearing import Heard
from etude.prime.notes import find_raga, ranking
from etude.prime.number import PrimeError, decimal, read_number
from etude.prime.recovery import first_digits, recover
from etude.prime.song import Song, compose, parse_tag

NUMBER = 4015900675360164941257961833784007821955751818867272204251449157644366823689729146104054213
PROGRAM = b'print("hello")'


def heard_as(song: Song, wrong: dict[int, int] | None = None, margin: float = 1.0, tag: bool = False) -> Heard:
    """What a listener makes of a song: at some places it heard so many notes too high, and was that unsure of them."""
    degrees = [slot for slot in song.slots if slot is not None]
    pitches = sorted(set(degrees))
    right = [pitches.index(degree) for degree in degrees]
    notes, margins = list(right), np.ones(len(right), np.float32)
    for place, shift in (wrong or {}).items():
        notes[place] = (right[place] + shift) % len(pitches)
        margins[place] = margin
    return Heard(
        tuple(notes),
        tuple(song.sa * 2 ** (pitch / 12) for pitch in pitches),
        0.25,
        0,
        tuple(right),
        margins,
        parse_tag(song.tag) if tag else None,
    )


def test_the_beginning_of_a_number_is_known_by_its_length() -> None:
    assert first_digits(bytes.fromhex("1f8b080000000000"), 91) == decimal(NUMBER)[:18]
    assert first_digits(bytes.fromhex("1f8b080000000000"), 92) == ""


@pytest.mark.parametrize("raga", ["nat-bhairav", "bhupali", "kafi"])
def test_without_a_table_the_number_gives_itself_away(raga: str) -> None:
    found = recover(heard_as(compose(NUMBER, find_raga(raga))))
    assert (found.number, found.table_from, found.mended, found.prime) == (NUMBER, "number", 0, True)
    assert found.payload is not None and found.payload.program == PROGRAM


def test_a_wrong_note_anywhere_is_found_and_put_right() -> None:
    song = compose(NUMBER)
    for place in (0, 3, 16, 40, 70, 80):
        for tag in (False, True):
            found = recover(heard_as(song, {place: 3}, tag=tag))
            assert (found.number, found.mended, found.prime) == (NUMBER, 1, True), (place, tag)


def test_two_wrong_notes_in_the_beginning_are_known() -> None:
    """Beyond the first twelve, which are tried in all ways when no note is more doubtful than another."""
    found = recover(heard_as(compose(NUMBER), {13: 3, 16: 2}, tag=True))
    assert (found.number, found.mended, found.prime) == (NUMBER, 2, True)


def test_behind_the_program_a_prime_is_taken_only_where_chance_makes_none(reference_prime: Path) -> None:
    number = read_number(reference_prime)
    found = recover(heard_as(compose(number), {3598: 3}, tag=True))
    assert (found.number, found.mended, found.prime) == (number, 1, True)
    for wrong in ({89: 3}, {90: 3}, {86: 2, 89: 4}, {87: 1, 88: 5}):  # of 91 digits one number in 200 is prime
        found = recover(heard_as(compose(NUMBER), wrong, tag=True))
        assert not found.prime and found.number != NUMBER and found.payload is not None
        assert found.payload.program == PROGRAM


def test_several_doubtful_notes_are_put_right() -> None:
    found = recover(heard_as(compose(NUMBER), {30: 1, 45: 2, 50: 5, 71: 4}, margin=0.01))
    assert (found.number, found.mended) == (NUMBER, 4)


def test_more_wrong_notes_than_can_be_found_are_not_passed_over() -> None:
    found = recover(heard_as(compose(NUMBER), {30: 1, 45: 2, 50: 5}, tag=True))
    assert not found.prime and found.payload is None
    with pytest.raises(PrimeError, match="nothing tells"):
        recover(heard_as(compose(NUMBER), {1: 1, 2: 2, 3: 5, 4: 1, 5: 7, 60: 1}))


def test_a_lying_comment_does_not_mislead() -> None:
    song = compose(NUMBER)
    heard = heard_as(song)
    tag = parse_tag(song.tag.replace(song.table, song.table[::-1]))
    found = recover(replace(heard, tag=tag))
    assert (found.number, found.table_from) == (NUMBER, "number")


def test_any_number_is_heard_by_its_table() -> None:
    prime = 2**127 - 1
    song = compose(prime, find_raga("durga"))
    heard = heard_as(song)
    found = recover(heard, song.table, find_raga("durga"))
    assert (found.number, found.prime, found.payload, found.table_from) == (prime, True, None, "table")
    assert recover(heard_as(song, tag=True)).number == prime
    assert not recover(heard_as(song, {5: 1}, tag=True)).prime, "a wrong note makes it composite"
    with pytest.raises(PrimeError, match="--raga"):
        recover(heard, ranking(str(prime)))
    with pytest.raises(PrimeError, match="--table"):
        recover(heard)


def test_an_intro_tells_all_and_mends() -> None:
    song = compose(NUMBER, intro=True)
    wrong = {place: 1 + place % 8 for place in (25, 40, 50, 61, 75, 100, 140, 160)}
    found = recover(heard_as(song, wrong))
    assert (found.number, found.table_from, found.mended) == (NUMBER, "intro", 5)
    for scale in ({0: 1}, {3: 4}, {15: 2}, {19: 7}, {2: 3, 14: 6}):
        found = recover(heard_as(song, scale))
        assert (found.number, found.table_from) == (NUMBER, "intro"), scale
    with pytest.raises(PrimeError, match="more were heard wrongly"):
        recover(heard_as(song, dict.fromkeys(range(40, 120, 3), 2)))


def test_a_shortened_song_says_so() -> None:
    with pytest.raises(PrimeError, match="shortened"):
        recover(heard_as(compose(NUMBER, first_digits=60), tag=True))


@pytest.mark.parametrize("number", [1_000_003, 2_399_323, 9_029_929, 13_331, 131_111_111])
def test_a_number_of_few_digits_is_told_by_its_keynote(number: int) -> None:
    song = compose(number)
    found = recover(heard_as(song, tag=True))
    assert (found.number, found.prime, found.table_from) == (number, True, "comment")
    higher = replace(heard_as(song, tag=True), pitches=tuple(2 * pitch for pitch in heard_as(song).pitches))
    with suppress(PrimeError):  # played higher than it says: refused, or right all the same, but never another number
        assert recover(higher).number == number
    with pytest.raises(PrimeError, match="more than one way"):
        recover(heard_as(song), song.table, song.raga)
