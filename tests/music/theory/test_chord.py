"""Chord symbols: what people write, what it means, and what happens when it cannot be read."""

from __future__ import annotations

import gzip
import json
import re
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.theory import Chord, ChordError, pitch_class

DATA = Path(__file__).parents[3] / ".." / "shared" / "data" / "chords"

TRIADS = ("", "m", "dim", "aug", "5")
EXTENSIONS = ("", "6", "69", "7", "9", "11", "13", "maj7", "maj9", "maj11", "maj13")
SUSPENSIONS = ("", "sus2", "sus4")
MODIFIERS = (
    "b5", "#5", "b9", "#9", "#11", "b13", "add9", "add11", "add13", "addb9", "add#9", "add#11", "addb13", "add3",
    "no3", "no5", "alt", "maj7", "b6",
)  # fmt: skip
roots = st.builds("{}{}".format, st.sampled_from("CDEFGAB"), st.sampled_from(["", "#", "b"]))
# Arbitrary text, and text made of what chord symbols are made of.
texts = st.text(max_size=80) | st.text(alphabet="ABCDEFGHabcdefgmMjsuδΔøo°^-+#b♭♯0123456789()/, .alt", max_size=20)


@st.composite
def symbols(draw: st.DrawFn) -> str:
    modifiers = "".join(f"({each})" for each in draw(st.lists(st.sampled_from(MODIFIERS), max_size=3)))
    quality = draw(st.sampled_from(TRIADS)) + draw(st.sampled_from(EXTENSIONS)) + draw(st.sampled_from(SUSPENSIONS))
    bass = draw(st.just("") | roots.map("/{}".format))
    return draw(roots) + quality + modifiers + bass


def read(text: str) -> Chord | None:
    try:
        return Chord.parse(text)
    except ChordError:
        return None


chords = symbols().map(read).filter(lambda chord: chord is not None)


def data_symbols() -> set[str]:
    if not DATA.is_dir():
        pytest.skip(f"the chord collection is not here: {DATA}")
    found: set[str] = set()
    for path in sorted(DATA.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                song = json.loads(line)
                found.update(song["chords"], *(bar.split() for bar in song.get("bars", ())))
    return found


def test_every_symbol_of_the_collection_is_read_and_keeps_its_quality() -> None:
    symbols = data_symbols()
    assert len(symbols) == 1645
    for symbol in symbols - {"N.C."}:
        parts = re.fullmatch(r"([A-G](?:##?|bb?)?)(.*?)(?:/([A-G](?:##?|bb?)?))?", symbol)
        assert parts is not None, symbol
        root, quality, bass = parts.groups()
        assert Chord.parse(symbol) == Chord(pitch_class(root), quality, pitch_class(bass or root)), symbol


SYNONYMS = """
Cm: Cmin C- Cmi CMIN Cminor
C: Cmaj CM Cmajor CMAJ
Cm7: C-7 Cmin7 Cmi7 CMI7 Cminor7 C\N{MINUS SIGN}7 Cm⁷
Cmaj7: CM7 C△7 C△ CΔ7 CΔ C∆7 C^7 C^ Cma7 CMA7 CMaj7 Cj7 C7M C7maj C(maj7) Cmaj⁷ Cmajor7
C7: Cdom7
Cm7b5: Cø Cø7 CØ7 Ch Ch7 C-7b5 Cm7-5 Cm7(b5) Cmin7♭5 Cm7/b5
Cdim: C° Co Cm(b5) Cm-5 Cº
Cdim7: C°7 Co7 Cº7 Cm6b5
Caug: C+ C(#5) C(+5)
CmMaj7: CmM7 Cm(maj7) C-Δ7 C-^7 C-^ CmΔ Cm/maj7 Cminmaj7 CminMaj7 Cm(M7) Cmmaj7 Cm-maj7 Cm7M
C7#5: C+7 Caug7 C7+ C7+5 C7(#5) C7aug C7♯5
C7b5: C7-5 C7(b5) C7♭5
C7b9: C7-9 C7(b9) C7♭9 C7/b9
C7#9: C7+9 C7(♯9) C7b10
C7#11: C7+11 C7(#11) C7#4
C7b13: C7-13 C7b6 C7(♭13)
C7b9#11: C7(b9,#11) C7(b9#11) C7b9(#11) C7(b9, #11) C7#11b9 C7(b9/#11)
C7#5#9: C+7#9 C7(#5#9) C7#9#5 C7+#9 C7♯9♯5
C7alt: Calt C7(alt)
C69: C6/9 C6(9) C6add9 CM6/9 C⁶₉
Cm69: C-69 Cm6/9
C9: C7(9) C7/9 C7add9
C13: C7(13) C7/13 C9(13) C7(9,13)
C11: C9(11) C9add11
Cmaj9: C^9 CM9 C△9 C7M(9)
Cmaj7#11: CM7(#11) C^7#11 CΔ#11 Cmaj7+11 Cmaj7#4
Cmaj7#5: C+M7 C+maj7 Caug(maj7) CM7+5 C^7#5
Csus4: Csus C(sus4)
C7sus4: C7sus C7(sus4)
C9sus4: C9sus C7sus4(9) C11sus C7sus2/4
C13sus4: C13sus C7sus13
C7sus4b9: C7b9sus C7(b9)sus4 C7susb9
Csus4add9: Csus2/4 Csus2sus4 Csus24
Cadd9: C(add9) Cadd2 C(9) C/9 C(add2)
Cadd11: Cadd4 C(add11)
Cmadd9: Cm(add9) Cmadd2 Cm(9) C-add9
C5: Cno3 C(no3) Comit3
C#m7/B: Dbm7/Cb C♯-7/B C#min7/C♭
D: C##
"""


@pytest.mark.parametrize(
    ("canonical", "spelling"),
    [
        (canonical, spelling)
        for line in SYNONYMS.strip().splitlines()
        for canonical, spellings in [line.split(": ")]
        for spelling in re.split(r" (?![^(]*\))", spellings)
    ],
)
def test_spellings_of_one_chord_are_equal(canonical: str, spelling: str) -> None:
    assert Chord.parse(spelling) == Chord.parse(canonical)


def test_double_sharp_and_double_flat_signs_move_the_root_by_two() -> None:
    assert Chord.parse("C𝄪m") == Chord.parse("Dm")
    assert Chord.parse("B𝄫7/A𝄫") == Chord.parse("A7/G")
    assert pitch_class("F♯") == 6 and pitch_class("E𝄫") == 2


PITCHES = {
    "C": {0, 4, 7}, "Am": {9, 0, 4}, "F#dim": {6, 9, 0}, "Eaug": {4, 8, 0}, "D5": {2, 9}, "Gsus4": {7, 0, 2},
    "Asus2": {9, 11, 4}, "G7": {7, 11, 2, 5}, "Dm7": {2, 5, 9, 0}, "Fmaj7": {5, 9, 0, 4}, "Bm7b5": {11, 2, 5, 9},
    "Bdim7": {11, 2, 5, 8}, "AmMaj7": {9, 0, 4, 8}, "C6": {0, 4, 7, 9}, "Cm6": {0, 3, 7, 9}, "C69": {0, 4, 7, 9, 2},
    "D9": {2, 6, 9, 0, 4}, "Am9": {9, 0, 4, 7, 11}, "Cmaj9": {0, 4, 7, 11, 2}, "Dm11": {2, 5, 9, 0, 4, 7},
    "G13": {7, 11, 2, 5, 9, 4}, "C7b9": {0, 4, 7, 10, 1}, "E7#9": {4, 8, 11, 2, 7}, "F7#11": {5, 9, 0, 3, 11},
    "G7b13": {7, 11, 2, 5, 3}, "C7b5": {0, 4, 6, 10}, "C7#5": {0, 4, 8, 10}, "A7alt": {9, 1, 7, 10, 0, 3, 5},
    "G7sus4": {7, 0, 2, 5}, "G9sus4": {7, 0, 2, 5, 9}, "G7sus4b9": {7, 0, 2, 5, 8}, "Cadd9": {0, 4, 7, 2},
    "Cmadd9": {0, 3, 7, 2}, "Cadd11": {0, 4, 5, 7}, "C5add11": {0, 5, 7}, "D/F#": {2, 6, 9}, "C/Bb": {0, 4, 7, 10},
    "F/G": {5, 9, 0, 7}, "Cmb6": {0, 3, 7, 8}, "Cmaj7#11": {0, 4, 7, 11, 6}, "C7b9b13": {0, 4, 7, 10, 1, 8},
    "C13#11": {0, 4, 7, 10, 2, 6, 9}, "C7susadd3": {0, 4, 5, 7, 10}, "C(b5)": {0, 4, 6}, "N.C.": set(),
}  # fmt: skip


@pytest.mark.parametrize("symbol", PITCHES)
def test_pitch_classes(symbol: str) -> None:
    assert Chord.parse(symbol).pitch_classes == PITCHES[symbol]


@pytest.mark.parametrize("symbol", ["N.C.", "NC", "n.c.", "N.C"])
def test_no_chord(symbol: str) -> None:
    chord = Chord.parse(symbol)
    assert chord.is_no_chord and str(chord) == "N.C." and chord.transpose(3) == chord and chord.intervals == ()


@settings(deadline=None)
@given(chords)
def test_a_chord_is_read_back_from_its_own_name_in_every_key(chord: Chord) -> None:
    for semitones in range(12):
        moved = chord.transpose(semitones)
        assert Chord.parse(str(moved)) == moved


@pytest.mark.slow
def test_every_quality_of_two_modifiers_has_a_name_that_reads_back() -> None:
    found = {
        chord.quality
        for head in (triad + extension for triad in TRIADS for extension in EXTENSIONS)
        for suspension in SUSPENSIONS
        for modifiers in combinations(("", "", *MODIFIERS), 2)
        if (chord := read(f"C{head}{suspension}{''.join(f'({each})' for each in modifiers if each)}")) is not None
    }
    assert len(found) > 1000
    for quality in found:
        assert Chord.parse("C" + quality).quality == quality


@settings(deadline=None)
@given(symbols(), st.integers(0, 11))
def test_a_sound_does_not_depend_on_how_it_is_spelled(symbol: str, semitones: int) -> None:
    chord = read(symbol)
    if chord is not None:
        expected = {(pitch + semitones) % 12 for pitch in chord.pitch_classes}
        assert Chord.parse(str(chord)).transpose(semitones).pitch_classes == expected


@settings(deadline=None)
@given(chords, st.integers(-50, 50), st.integers(-50, 50))
def test_transposition_is_a_group_action(chord: Chord, m: int, n: int) -> None:
    assert chord.transpose(m).transpose(n) == chord.transpose(m + n)
    assert chord.transpose(12) == chord.transpose(0) == chord


def test_a_chord_tone_in_the_bass_is_spelled_from_the_root() -> None:
    written = ("E/G#", "D7/F#", "A/C#", "Abm/Cb", "C/E", "Cm/Eb", "Cm7/Bb", "Bm7b5/F")
    assert [str(Chord.parse(symbol)) for symbol in written] == list(written)


@pytest.mark.parametrize(
    ("symbol", "position", "nearest"),
    [
        ("Hm", 0, "Bm"),
        ("am", 0, "Am"),
        ("bb7", 0, "Bb7"),
        ("", 0, None),
        ("C:min7", 1, "Cm7"),
        ("Cmaj7?", 5, "Cmaj7"),
        ("C2", 1, "Cadd9"),
        ("C4", 1, "Csus4"),
        ("F#2", 2, "F#sus2"),
        ("Cm7sus4", 3, "C7sus4"),
        ("D/f#", 1, "D/F#"),
        ("C7(b9", 2, "C7b9"),
        ("C7b9)", 4, "C7b9"),
        ("C++", 2, None),
        ("C7b9b9", 4, "C7b9"),
        ("Cm#9", 2, "Cm"),
        ("C7alt#9", 5, "C7alt"),
        ("Csus9", 4, "C9sus4"),
        ("Cm-9", 2, "Cm9"),
        ("C7maj7", 5, "Cmaj7"),
        ("Cm79", 3, "Cm7"),
        ("C/E/G", 1, "C"),
        ("C+11", 2, "C11"),
        ("C13/b9x", 6, None),
        ("  C%", 3, "C"),
        ("N", 0, None),
        ("C on E", 2, None),
        ("x" * 65, 64, None),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place_and_readings(
    symbol: str, position: int, nearest: str | None
) -> None:
    with pytest.raises(ChordError) as caught:
        Chord.parse(symbol)
    assert caught.value.position == position
    assert nearest is None or nearest in caught.value.suggestions
    assert f"character {position + 1}:" in str(caught.value) and "\n" not in str(caught.value)


@settings(deadline=None)
@given(texts)
def test_any_text_is_read_or_refused_with_a_place_inside_it(text: str) -> None:
    try:
        chord = Chord.parse(text)
    except ChordError as error:
        assert 0 <= error.position <= len(text)
        for suggestion in error.suggestions:
            Chord.parse(suggestion)
    else:
        assert Chord.parse(str(chord)) == chord


def test_dialects_are_not_guessed() -> None:
    with pytest.raises(ValueError, match="dialect"):
        Chord.parse("C", dialect="klingon")


@pytest.mark.parametrize("name", ["H", "c", "", "C#b", "Cbbb", "C4"])
def test_what_is_no_note_name_is_an_error(name: str) -> None:
    with pytest.raises(ChordError):
        pitch_class(name)
