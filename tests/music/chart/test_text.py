"""Progressions as they are typed: bars, beats, repeats, labels, and errors with their place."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.chart import MAX_CHORDS, parse_progression
from etude.music.theory import ChordError


def bars(text: str) -> str:
    """The bars of a text, a chord as `D` or `D*3/4` where it does not hold the whole bar."""
    return " | ".join(
        " ".join(f"{chord}" if share == 1 else f"{chord}*{share}" for chord, share in bar.chords)
        for bar in parse_progression(text).bars
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("D A Bm F#m", "D | A | Bm | F#m"),
        ("  D  ", "D"),
        ("| D A | Bm F#m |", "D*1/2 A*1/2 | Bm*1/2 F#m*1/2"),
        ("|D A|Bm F#m|", "D*1/2 A*1/2 | Bm*1/2 F#m*1/2"),
        ("D | A G", "D | A*1/2 G*1/2"),
        ("| D . . A |", "D*3/4 A*1/4"),
        ("| D / A |", "D*2/3 A*1/3"),
        ("| D | . A |", "D | D*1/2 A*1/2"),
        ("| D A | % | % |", "D*1/2 A*1/2 | D*1/2 A*1/2 | D*1/2 A*1/2"),
        ("D % A", "D | D | A"),
        ("|| D || A ||", "D | A"),
        ("|: D | A :|", "D | A | D | A"),
        ("|: D :| x3 A |", "D | D | D | A"),
        ("||: D :|| 4x", "D | D | D | D"),
        ("|: D :| |: A :|", "D | D | A | A"),
        ("|: D :||: A :|", "D | D | A | A"),
        ("|: D :| x1", "D"),
        ("D, A,Bm - F#m \N{EN DASH} G \N{RIGHTWARDS ARROW} A -> D", "D | A | Bm | F#m | G | A | D"),
        ("D\nA\r\nBm", "D | A | Bm"),
        ("| D A\nBm G |\n", "D*1/2 A*1/2 | Bm*1/2 G*1/2"),
        ("D A\n| Bm G |", "D | A | Bm*1/2 G*1/2"),
        ("N.C. D", "N.C. | D"),
        ("C7(b9, #11) F", "C7b9#11 | F"),
        ("C- Bb-7 D/F#", "Cm | Bbm7 | D/F#"),
        ("C6/9 | Dm/maj7", "C69 | DmMaj7"),
    ],
)
def test_bars_and_beats(text: str, expected: str) -> None:
    assert bars(text) == expected


def test_one_section_without_a_label() -> None:
    (section,) = parse_progression("D A").sections
    assert section.label == "" and len(section.bars) == 2


@pytest.mark.parametrize(
    "text",
    [
        "[Verse]\n| D A |\n[Chorus 2]\n| G | A |",
        "[Verse] | D A | [Chorus 2] | G | A |",
        "Verse: | D A |\nChorus 2: G A",
        "Verse: | D A | Chorus 2: G A",  # each label has its own way with bar lines
    ],
)
def test_labels_begin_sections(text: str) -> None:
    sections = parse_progression(text).sections
    assert [(section.label, len(section.bars)) for section in sections] == [("Verse", 1), ("Chorus 2", 2)]


def test_rehearsal_letters_are_labels() -> None:
    sections = parse_progression("[A] D A B: G").sections
    assert [(section.label, len(section.bars)) for section in sections] == [("A", 2), ("B", 1)]


def test_chords_are_given_as_written() -> None:
    assert [str(chord) for chord in parse_progression("| D . A | A |").chords] == ["D", "A", "A"]
    assert parse_progression("| D . A |").bars[0].chords[0][1] == Fraction(2, 3)


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "no chords"),
        (" \n ", 0, "no chords"),
        (" , - \n|", 0, "no chords"),
        ("D Hm A", 2, "'Hm' at character 3: .*nearest: Bm"),
        ("D A\n  Bm Cmaj7?", 14, r"'Cmaj7\?' at line 2, character 11: .*nearest: Cmaj7"),
        ("D A Bmm", 6, "'Bmm' at character 7"),
        ("C:min7", 1, "'C:min7'"),
        ("D C2", 3, "sus2 or add9.*nearest: Csus2, Cadd9"),
        ("A-F-C", 2, "'A-F-C'"),
        ("D . A", 2, "bar lines"),
        ("| . D |", 2, "no chord before"),
        ("% D", 0, "no bar before"),
        ("| D | A % |", 8, "whole bar"),
        ("| D | % A |", 6, "whole bar"),
        ("| D | | A |", 6, "empty bar"),
        ("D :|", 2, r"begins with \|:"),
        ("|: D | A", 0, r"ends with :\|"),
        ("|: D [Chorus] A :|", 0, r"ends with :\|"),
        ("|: D |: A :|", 5, "still open"),
        ("|: :|", 3, "no repeat is open"),
        ("|: D :| x17", 8, "1 to 16"),
        ("|: D :| x0", 8, "1 to 16"),
        ("D x3", 2, "'x3'"),
        ("[] D", 0, "1 to 40"),
        ("[" + "a" * 41 + "] D", 0, "1 to 40"),
        ("[Verse] [Chorus] D", 0, "no chords in this section"),
        ("D [Outro]", 2, "no chords in this section"),
        ("[Am] F", 0, "also a chord"),
        ("Dm7: F", 0, "also a chord"),
        ("[D F", 0, r"'\[D'"),
        ("D \x00", 2, "'\\\\x00'"),
    ],
)
def test_errors_say_where_and_what(text: str, position: int, message: str) -> None:
    with pytest.raises(ChordError, match=message) as caught:
        parse_progression(text)
    assert caught.value.position == position and caught.value.text == text
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "D " * (MAX_CHORDS + 1),
        "D A " * 50_000,
        "D" + " %" * MAX_CHORDS,
        "| D A |" + " % |" * (MAX_CHORDS // 2),
        "|: " + "D | " * 130 + ":| x16",
    ],
)
def test_too_many_chords_are_refused(text: str) -> None:
    with pytest.raises(ChordError, match="more than 2,000 chords"):
        parse_progression(text)


def test_as_many_chords_as_allowed_are_read() -> None:
    assert len(parse_progression("D A " * (MAX_CHORDS // 2)).chords) == MAX_CHORDS
    assert len(parse_progression("|: " + "D | " * 125 + ":| x16").chords) == MAX_CHORDS


def test_a_huge_text_is_refused_unread() -> None:
    with pytest.raises(ChordError, match="200,000 characters"):
        parse_progression("?" * 10_000_000)


PIECES = """D A/C# Bm7 F#m7b5 N.C. | || |: :| :|| % . / x2 3x [Verse] Verse: [Am] A: - , -> H x ( ) : [ ] C7(b9, #11)"""
pieces = st.lists(st.sampled_from([*PIECES.split(), "\n"]), max_size=20)


@settings(deadline=None)
@given(st.text(max_size=60) | pieces.map(" ".join) | pieces.map("".join))
def test_any_text_is_read_or_refused_with_a_place_inside_it(text: str) -> None:
    try:
        progression = parse_progression(text)
    except ChordError as error:
        assert 0 <= error.position <= len(text) and error.text == text and "\n" not in str(error)
    else:
        assert 0 < len(progression.chords) <= MAX_CHORDS
        assert all(section.bars for section in progression.sections)
