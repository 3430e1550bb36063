"""The drawing is well-formed, has every note once, and as many pages as it needs."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from etude.music.score.melody import HEIGHT, Sheet, Written, draw

SVG = "{http://www.w3.org/2000/svg}"


def sheet(groups: tuple[int, ...] = (4, 4), marks: tuple[str, ...] = ("X", "0")) -> Sheet:
    return Sheet('A <song> & "more"', ("a line",), 2, 1, groups, marks)


def drawn(notes: list[Written | None], given: Sheet) -> ElementTree.Element:
    return ElementTree.fromstring("\n".join(draw(given, notes)))


def uses(root: ElementTree.Element, name: str) -> int:
    return sum(each.get("href") == f"#{name}" for each in root.iter(f"{SVG}use")) - 2 * (name == "flat")


@pytest.mark.parametrize(("count", "pages"), [(1, 1), (33, 1), (256, 1), (257, 2), (2000, 8)])
def test_every_note_is_there_once(count: int, pages: int) -> None:
    note = Written(1, 1, "S", 1, "7")
    root = drawn([None if place % 9 == 8 else note for place in range(count)], sheet())
    assert uses(root, "head") == count - count // 9
    assert uses(root, "rest") == count // 9
    assert root.get("height") == str(HEIGHT * pages)
    letters = "".join(text.text or "" for text in root.iter(f"{SVG}text"))
    assert letters.count("S") == count - count // 9
    assert len(list(root.iter(f"{SVG}circle"))) == count - count // 9, "a dot for the octave"


def test_accidentals_stand_where_the_key_and_the_bar_do_not_say_it() -> None:
    sharp_f, natural_f, flat_b = Written(4, 1, "G", 0, "1"), Written(4, 0, "g", 0, "2"), Written(0, -1, "d", 0, "3")
    root = drawn(
        [sharp_f, natural_f, natural_f, sharp_f, flat_b, flat_b, sharp_f, sharp_f, natural_f], sheet((8,), ("",))
    )
    # Two sharps of the key, and one to cancel the natural; a natural in each bar; one flat for two notes.
    assert (uses(root, "sharp"), uses(root, "natural"), uses(root, "flat")) == (3, 2, 1)
