"""A song's notes stand on the staff as they sound."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.prime.notation import sheet, write_score, written
from etude.prime.notes import RAGAS, TALAS
from etude.prime.song import compose, midi_key

NUMBER = 4015900675360164941257961833784007821955751818867272204251449157644366823689729146104054213


@given(st.sampled_from(sorted(RAGAS)), st.floats(66.0, 590.0))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_what_sounds(raga: str, sa: float) -> None:
    song = compose(NUMBER, RAGAS[raga], sa=sa)
    octaves = sheet(song).ottava
    for slot, note in zip(song.slots, written(song), strict=True):
        assert slot is not None and note is not None
        steps = note.step + 34  # from C0, the C below the lowest A of a piano: 34 is B4
        key = 12 * (steps // 7 + 1) + (0, 2, 4, 5, 7, 9, 11)[steps % 7] + note.alter
        assert key == midi_key(sa)[0] + slot + 12 * octaves
        assert -2 <= note.alter <= 1
        assert -11 <= note.step <= 13, "near the staff"


@pytest.mark.parametrize("tala", [None, "rupak"])
def test_a_score_is_the_same_twice_and_says_what_it_is(tala: str | None, tmp_path: Path) -> None:
    song = compose(NUMBER, RAGAS["todi"], tala=TALAS[tala] if tala else None, rests=7, first_digits=60)
    for name in ("a.svg", "b.svg"):
        write_score(song, tmp_path / name)
    content = (tmp_path / "a.svg").read_bytes()
    assert content == (tmp_path / "b.svg").read_bytes()
    text = "".join(ElementTree.fromstring(content).itertext())
    assert "The first 60 digits" in text
    assert "Raga Todi" in text and "147.2 Hz" in text
    assert ("Rupak" in text) == (tala is not None)
