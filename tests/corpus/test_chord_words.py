"""Words of chord text: each is what it is, whatever stands around it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.corpus import chord_words
from etude.corpus.chord_text import draw_writing, write_song
from etude.corpus.chord_words import KINDS, count_words, read_chords, read_words
from etude.corpus.songs import SongDocument, read_songs
from etude.music.theory import Chord

LINE = (
    "Intro: Adim G7/13 Em Bb (4x) G#dim Bm/C F#m Ab|---------------------------------| (Bridge) C G Em7 Asus4 "
    "x02210 |G |D| [Am] (F G) G, Gm - Dm x2 Verse 2: solo D4 Bm5-/7 E|--3---5-| hide this tab % :|| 320003 2X: C:"
)


def kinds(text: str) -> list[tuple[str, str]]:
    return [(word.kind, word.text) for word in read_words(text)]


def test_a_line_as_people_write_it() -> None:
    found = kinds(LINE)
    assert " ".join(text for _, text in found).replace(" |-", "|-", 1) == LINE  # nothing is lost
    by_kind: dict[str, list[str]] = {kind: [text for k, text in found if k == kind] for kind in KINDS}
    assert by_kind["section"] == ["Intro:", "(Bridge)", "Verse 2:", "solo"]
    assert by_kind["repeat"] == ["(4x)", "x2", "2X:"]
    assert by_kind["fingering"] == ["x02210", "320003"]
    assert by_kind["tablature"] == ["|---------------------------------|", "E|--3---5-|"]
    assert by_kind["unread"] == ["D4", "Bm5-/7"]
    assert by_kind["bar"] == ["-", "%", ":||"]
    assert by_kind["other"] == ["hide", "this", "tab"]
    expected = "Adim G13 Em Bb G#dim Bm/C F#m Ab C G Em7 Asus4 G D Am F G G Gm Dm C"
    assert [chord for word in read_words(LINE) for chord in word.chords] == list(map(Chord.parse, expected.split()))


@pytest.mark.parametrize(
    ("word", "chords"),
    [
        ("Gm7(9)", "Gm9"),
        ("(Gm7(9))", "Gm9"),
        ("(Gm7(9)", "Gm9"),
        ("Gm7(9))", "Gm9"),
        ("G*", "G"),
        ("|G|D|", "G D"),
        ("G-D-Em", "G D Em"),
        ("C-7", "Cm7"),
        ("A,E,", "A E"),
        ("N.C.", "N.C."),
        ("C/E)", "C/E"),
        ("hello", ""),
        ("G-hello", ""),
        ("Hm", ""),
        ("|", ""),
        ("C" * 1000, ""),
    ],
)
def test_chords_and_the_marks_around_them(word: str, chords: str) -> None:
    assert read_chords(word) == tuple(map(Chord.parse, chords.split()))


@pytest.mark.parametrize(
    "section", ["Intro", "INTRO:", "[Verse 1]", "(chorus)", "Pré-Refrão:", "Pre-Chorus 2:", "Part A 2:"]
)
def test_section_names(section: str) -> None:
    assert kinds(f"C {section} G") == [("chord", "C"), ("section", section), ("chord", "G")]


@given(st.text(max_size=60))
@settings(max_examples=60)
def test_no_text_is_too_strange(text: str) -> None:
    words = list(read_words(text))
    assert {word.kind for word in words} <= set(KINDS)
    assert "".join("".join(word.text.split()) for word in words) == "".join(text.split())


@given(st.lists(st.sampled_from([*"|()[]-x2:#b/AGm7 ", "Intro", "--", "E|"]), max_size=40).map("".join))
@settings(max_examples=100)
def test_nothing_is_lost_or_read_twice(text: str) -> None:
    words = list(read_words(text))
    assert "".join("".join(word.text.split()) for word in words) == "".join(text.split())
    assert all(bool(word.chords) == (word.kind == "chord") for word in words)


@given(st.integers(0, 2**32))
@settings(max_examples=60)
def test_chords_come_back_from_every_manner(seed: int) -> None:
    """What is written out is read again, chord for chord, and everything else is known for what it is."""
    symbols = "C Am7 F#m7b5 Bb9 Emaj7 E7sus4 Dadd9 G13 C/E Bdim7 N.C. Eb7#9 Caug Fsus4"
    bars = list(map(Chord.parse, symbols.split()))
    song = SongDocument("a", "a", "", "", tuple(bars), None)
    writing = draw_writing(np.random.default_rng(seed))
    text = write_song(song, seed % 12, writing, seed)
    found = [chord for chord, _ in groupby(chord for word in read_words(text) for chord in word.chords)]
    assert found == [chord.transpose(seed % 12) for chord in bars]
    counted = Counter(word.kind for word in read_words(text))
    assert counted["other"] == counted["unread"] == 0
    assert counted["tablature"] == writing.tablature


def played(text: str) -> list[Chord]:
    """The changes of a text, what is repeated played as often as is said: back to a section's name or a repeat."""
    done, open_ = list[Chord](), list[Chord]()
    for word in read_words(text):
        if word.kind == "repeat":
            done, open_ = done + open_ * int("".join(filter(str.isdigit, word.text))), []
        elif word.kind == "section":
            done, open_ = done + open_, []
        open_ += word.chords
    return [chord for chord, _ in groupby(done + open_)]


def test_songs_come_back_from_how_people_write_them(shared_chords: Path) -> None:
    for number, song in enumerate(read_songs(shared_chords / "test.jsonl.gz")[::4]):
        text = write_song(song, 0, draw_writing(np.random.default_rng(number)))
        assert played(text) == list(song.changes), song.name


def test_counts_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    document = count_words(["C G C", "Intro: C (2x)"]).document(most=1)
    assert (document["texts"], document["words"]) == (2, 6)
    assert document["kinds"]["chord"] == {"words": 4, "share": 4 / 6, "examples": [{"text": "C", "words": 3}]}
    assert sum(kind["share"] for kind in document["kinds"].values()) == pytest.approx(1)
    assert count_words([]).document()["kinds"]["chord"]["share"] is None
    monkeypatch.setattr(chord_words, "_MAX_DISTINCT", 2)
    many = count_words(["one two three four one"])
    assert many.words["other"] == 5 and dict(many.examples["other"]) == {"one": 2, "two": 1}
