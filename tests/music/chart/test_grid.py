"""The chart in plain text: what stands where, at any width."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.chart import parse_progression, render
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song

LONG = "C#m7b5b9#11add13/G#"


def song(text: str, key: str = "D", **more: object) -> Song:
    return Song("Rain", Key.parse(key), parse_progression(text).sections, **more)  # type: ignore[arg-type]


def test_a_whole_chart() -> None:
    text = "[Verse] | D | A Bm | Bm . . F#m | % | G | [Chorus] G A7sus4/G D D"
    assert render(song(text, meter=Meter(3, 4), tempo=90.0, genre="folk")) == (
        "Rain\n"
        "D major · 3/4 · ♩ = 90 · folk · 9 bars · 0:18\n"
        "\n"
        "[Verse]\n"
        "| D               | A       Bm      | Bm          F#m | %               |\n"
        "  I                 V       vi        vi          iii\n"
        "| G               |\n"
        "  IV\n"
        "\n"
        "[Chorus]\n"
        "| G               | A7sus4/G        | D               | %               |\n"
        "  IV                V7sus4/4          I\n"
    )


def test_chords_are_spelled_in_the_songs_key() -> None:
    assert "| Bb      | Eb      | F7/A    | F#dim7  |" in render(song("A# D# F7/A Gbdim7", "Bb"))
    assert "| B       | D#m     | A#dim   | E       |" in render(song("B Ebm Bbdim E", "B"))


def test_a_bar_is_written_out_again_where_a_section_begins() -> None:
    lines = render(song("[A] D D [B] D D")).splitlines()
    assert [line for line in lines if line.startswith("|")] == ["| D       | %       |"] * 2


@pytest.mark.parametrize(("bars", "rows"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_four_bars_a_row_at_most(bars: int, rows: int) -> None:
    names = ["D", "A", "G", "Em", "Bm", "F#m", "C", "B", "E"][:bars]
    for width in (60, 80, 200):
        chart = render(song(" ".join(names)), width).splitlines()
        found = [line for line in chart if line.startswith("|")]
        assert len(found) == rows and all(line.count("|") <= 5 for line in found)
        assert " ".join(found).replace("|", "").split() == names


def test_bar_lines_stand_in_the_same_columns_over_the_whole_song() -> None:
    chart = render(song("[A] | D | A Bm | G A D E | % | [B] | Bm7b5/F | G |"))
    columns = [[i for i, c in enumerate(line) if c == "|"] for line in chart.splitlines() if line.startswith("|")]
    assert len(columns) == 2 and columns[1] == columns[0][:3]


def test_numerals_stand_below_their_chords() -> None:
    lines = render(song("| D . . A7 | G A Bm C#m7b5 | D/F# E7 |")).splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("|"))
    names, numerals = lines[row], lines[row + 1]
    for name, numeral in [("A7", "V7"), ("Bm", "vi"), ("C#m7b5", "viiø7"), ("D/F#", "I/3"), ("E7", "II7")]:
        assert numerals[names.index(name) :].split()[0] == numeral


def test_chords_stand_where_they_enter() -> None:
    (line,) = [line for line in render(song("| D . . A | D A | D . . . . . . A |")).splitlines() if line[0:1] == "|"]
    cells = [cell.removeprefix(" ") for cell in line.split("|")[1:-1]]
    shares = [Fraction(cell.index("A"), len(cells[0])) for cell in cells]
    assert [round(share * 8) for share in shares] == [6, 4, 7]


def test_few_bars_a_row_where_four_do_not_fit() -> None:
    wide = f"| {LONG} {LONG} | D | G | A |"
    assert max(line.count("|") for line in render(song(wide), 200).splitlines()) == 5
    assert max(line.count("|") for line in render(song(wide), 100).splitlines()) == 3
    assert max(line.count("|") for line in render(song(wide), 60).splitlines()) == 2


def test_a_bar_wider_than_the_page_goes_on_below() -> None:
    chart = render(song(f"| {LONG} {LONG} {LONG} {LONG} |"), 60)
    assert chart.count(LONG) == 4 and max(map(len, chart.splitlines())) <= 60
    assert [line.startswith("|") for line in chart.splitlines() if LONG in line] == [True, False]


names = st.sampled_from(["D", "A", "Bm7", "F#m7b5", "N.C.", "G13sus4b9/C", LONG])
written_bars = st.lists(names.map(Chord.parse), min_size=1, max_size=6).map(lambda chords: Bar.of(*chords))
words = st.text(max_size=90)


@settings(deadline=None)
@given(st.lists(written_bars, max_size=11), words, words, words, st.integers(60, 200))
def test_every_chart_fits_its_width_and_holds_every_chord(
    bars: list[Bar], title: str, label: str, genre: str, width: int
) -> None:
    chart = render(Song(title, Key("D"), (Section(label, tuple(bars)),), genre=genre), width)
    assert all(len(line) <= width and line == line.rstrip() for line in chart.split("\n"))
    plain = render(Song("t", Key("D"), (Section("", tuple(bars)),)), width).split("\n\n", 1)
    shown = [bar for i, bar in enumerate(bars) if i == 0 or bar != bars[i - 1]]
    found = plain[1].split() if bars else []
    for bar in shown:
        for chord, _ in bar.chords:
            assert Key("D").name(chord) in found and Key("D").numeral(chord) in found


def test_a_long_song_and_its_duration() -> None:
    assert "2000 bars · 66:40" in render(song("D A " * 1000))
    assert "1 bar · 0:02" in render(song("D"))
    assert render(Song("", Key("D"), ())) == "Untitled\nD major · 4/4 · ♩ = 120 · 0 bars · 0:00\n"


def test_a_width_that_holds_no_chart_is_an_error() -> None:
    with pytest.raises(ValueError, match="width"):
        render(song("D"), 19)
