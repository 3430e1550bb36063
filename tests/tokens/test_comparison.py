"""What is counted, held to counts by hand; and that a picture has all rows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.theory import Chord, Key
from etude.tokens.bpe_training import train_bpe
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.comparison import Passage, compare, comparison_svg, cut, song_passage, text_passage
from etude.tokens.patterns import PATTERNS
from etude.tokens.tokenizer import TextTokenizer, TokenizerError

SONG = "Intro: Am F♯m7(b5) [Bb/D], (C) N.C.|A♭|--- x2 Hello E7: Gsus4 é Bm"
BPE = {pattern: train_bpe([[f"{SONG} Em Am Bm Bb Bb/D\n" * 3]], 330, pattern) for pattern in PATTERNS}
CHORDS = ChordTokenizer((("", 0), ("m", 0), ("7", 0)))
D = Key.parse("D")


def chords(text: str) -> list[str]:
    passage = text_passage(text)
    return [text[start:end] for start, end in passage.spans.tolist()]


def test_the_chords_of_a_text_are_the_words_that_read_as_chords() -> None:
    assert chords(SONG) == ["Am", "F♯m7(b5)", "Bb/D", "C", "N.C.", "A♭", "E7", "Gsus4", "Bm"]
    assert chords("Bad Edge a am I x02210 (4x) Verse H \u00e9 ()") == []
    assert text_passage("C:\nG7").chords == (Chord.parse("C"), Chord.parse("G7"))
    assert chords("A" * 10_000 + " " + "Cm" * 50) == []


def by_hand(tokenizer: TextTokenizer, passage: Passage) -> tuple[int, int, int]:
    """All tokens, those of chords, and the chords in one token, character by character."""
    pieces = tokenizer.pieces(tokenizer.encode(passage.text))
    places, at = list[tuple[int, int]](), 0
    for piece in pieces:
        places.append((at, at + len(piece)))
        at += len(piece)
    of_chords, whole = 0, 0
    for start, end in passage.spans.tolist():
        blank = passage.text[start - 1 : start] == " " and start > 0
        low, high = len(passage.text[:start].encode()), len(passage.text[:end].encode())
        of_chords += sum(a < high and b > low - blank for a, b in places)
        touching = [(a, b) for a, b in places if a < high and b > low]
        whole += len(touching) == 1 and touching[0][0] >= low - blank and touching[0][1] == high
    return len(pieces), of_chords, whole


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*SONG.split(" "), "\n", " ", "|", "日本", "Bb"]), min_size=1, max_size=20).map(" ".join),
    st.sampled_from([*BPE.values(), ByteTokenizer(), CharTokenizer.train([SONG], byte_fallback=True)]),
)
def test_tokens_of_chords_are_counted_as_by_hand(text: str, tokenizer: TextTokenizer) -> None:
    passage = text_passage(text)
    if not text.split():
        return
    (row,) = compare({"t": tokenizer}, [passage])["rows"]
    tokens, of_chords, whole = by_hand(tokenizer, passage)
    n = len(passage.chords)
    assert row["tokens"] == tokens
    assert row["tokens_per_chord"] == (of_chords / n if n else None)
    assert row["one_token_chords"] == (whole / n if n else None)
    assert row["vocabulary_used"] == len(set(tokenizer.encode(text)))


def test_a_token_that_begins_before_a_chord_and_its_blank_is_not_the_chords() -> None:
    """No chord that `text_passage` finds has such a token; a passage says itself where its chords are."""
    tokenizer = train_bpe([["xC Cx C\n" * 3]], 300)
    passage = Passage("xC C", (Chord.parse("C"),) * 2, np.array([(1, 2), (3, 4)]))
    assert cut(tokenizer, passage) == ["xC", " C"]
    assert compare({"t": tokenizer}, [passage])["rows"][0]["one_token_chords"] == 1 / 2


def test_songs_are_changes_for_text_and_chords_for_chords() -> None:
    songs = [song_passage([Chord.parse(c) for c in song.split()], D) for song in ("D A Bm F#m", "G C#7 Gmaj7 D/F#")]
    assert [song.text for song in songs] == ["D A Bm F#m", "G C#7 Gmaj7 D/F#"]
    assert [songs[1].text[a:b] for a, b in songs[1].spans.tolist()] == ["G", "C#7", "Gmaj7", "D/F#"]
    found = compare({"byte": ByteTokenizer(), "chords": CHORDS}, songs, lines=1)
    byte, structured = found["rows"]
    assert (found["songs"], found["documents"], found["chords"], found["characters"]) == (True, 2, 8, 26)
    assert (byte["tokens"], byte["tokens_per_song"], byte["tokens_per_chord"]) == (26, 13, 26 / 8)
    assert (byte["one_token_chords"], byte["exact_chords"]) == (3 / 8, 1)
    assert (structured["tokens"], structured["tokens_per_chord"], structured["tokens_per_character"]) == (8, 1, 8 / 26)
    assert (structured["one_token_chords"], structured["exact_chords"]) == (1, 6 / 8)  # Gmaj7 and D/F# become others
    assert [line["text"] for line in found["lines"]] == ["D A Bm F#m"]
    assert found["lines"][0]["cuts"]["chords"] == ["D", "A", "Bm", "F#m"]


def test_of_text_a_tokenizer_of_chords_reads_the_chords_alone() -> None:
    row = compare({"chords": CHORDS}, [text_passage(SONG), text_passage("Am", begins=False)])["rows"][0]
    assert (row["tokens"], row["tokens_per_word"], row["tokens_per_character"]) == (10, None, None)
    assert (row["tokens_per_chord"], row["tokens_per_song"]) == (1, 10)


def test_a_text_without_chords_has_no_figures_of_them() -> None:
    row = compare({"byte": ByteTokenizer()}, [text_passage("ab cd")])["rows"][0]
    assert (row["tokens_per_chord"], row["one_token_chords"], row["exact_chords"]) == (None, None, None)
    assert (row["tokens_per_word"], row["tokens_per_character"]) == (2.5, 1)


def test_lines_are_the_first_ones_and_short() -> None:
    found = compare({"byte": ByteTokenizer()}, [text_passage("\n \nC G\n" + "Am " * 100 + "\n" + "x" * 200 + "\nD")], 3)
    texts = [line["text"] for line in found["lines"]]
    assert texts[0] == "C G" and texts[1] == ("Am " * 21).strip() and texts[2] == "x" * 64


def test_pieces_that_are_no_characters_are_escaped() -> None:
    assert cut(ByteTokenizer(), text_passage("é")) == ["\\xc3", "\\xa9"]


def test_faults_name_the_tokenizer() -> None:
    with pytest.raises(TokenizerError, match=r"^plain: 'x' \(character 3"):
        compare({"plain": CharTokenizer(" ab")}, [text_passage("a x")])
    with pytest.raises(TokenizerError, match="no words"):
        compare({"byte": ByteTokenizer()}, [text_passage(" \n")])


def test_the_picture_has_a_bar_for_each_figure(tmp_path: Path) -> None:
    rows = compare({"a<b&c": ByteTokenizer(), "chords": CHORDS}, [text_passage(SONG)])["rows"]
    text = comparison_svg(rows, "On <songs>")
    assert comparison_svg(rows, "On <songs>") == text
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("a<b&c") == words.count("chords") == 4
    assert f"{rows[0]['tokens_per_chord']:.3f}" in words and words.count("none") == 2
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 1 + 4 * 2
