"""Chord tokens: transposition taken out exactly, and music that comes back from ids."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.corpus.songs import read_songs
from etude.music.chart import parse_progression
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song, merge_changes
from etude.tokens.chords import (
    GENRES,
    METERS,
    SECTIONS,
    ChordTokenizer,
    Encoded,
    section_tag,
)
from etude.tokens.tokenizer import TokenizerError

QUALITIES = ("", "m", "7", "maj7", "m7", "m7b5", "dim7", "sus4", "6", "9")
TOKENIZER = ChordTokenizer(tuple((quality, bass) for quality in QUALITIES for bass in (0, 4, 7, 10)))

sounding = st.builds(
    lambda root, quality, bass: Chord(root, quality, (root + bass) % 12),
    st.integers(0, 11),
    st.sampled_from(QUALITIES),
    st.sampled_from((0, 4, 7, 10)),
)
chords = st.one_of(sounding, st.just(Chord(None, "", None)))
bars = st.lists(chords, min_size=1, max_size=6).map(lambda each: Bar.of(*each))
sections = st.builds(Section, st.sampled_from(SECTIONS), st.lists(bars, min_size=1, max_size=6).map(tuple))
songs = st.builds(
    Song,
    st.just(""),
    st.builds(Key.of, st.integers(0, 11), st.sampled_from(("major", "minor"))),
    st.lists(sections, min_size=1, max_size=4).map(tuple),
    st.sampled_from([Meter.parse(meter) for meter in METERS[:-1]]),
    genre=st.sampled_from(GENRES[:-1]),
)


@given(st.lists(chords, min_size=1, max_size=40), st.integers(0, 11))
def test_plain_ids_are_the_same_in_every_key(changes: list[Chord], semitones: int) -> None:
    moved = [chord.transpose(semitones) for chord in changes]
    assert TOKENIZER.encode_changes(moved).ids == TOKENIZER.encode_changes(changes).ids


@given(songs, st.integers(0, 11))
@settings(max_examples=50)
def test_full_ids_are_the_same_in_every_key(song: Song, semitones: int) -> None:
    assert TOKENIZER.encode_song(song.transpose(semitones)).ids == TOKENIZER.encode_song(song).ids


@given(songs)
@settings(max_examples=100)
def test_a_song_comes_back_from_its_ids(song: Song) -> None:
    back = TOKENIZER.decode(TOKENIZER.encode_song(song))
    assert [(s.label, merge_changes(s.bars)) for s in back.sections] == [
        (s.label, merge_changes(s.bars)) for s in song.sections
    ]
    assert (back.meter, back.genre) == (song.meter, song.genre)
    assert (back.key.pitch_class, back.key.mode) == (song.key.pitch_class, song.key.mode)


def test_typed_text_comes_back_as_music() -> None:
    typed = parse_progression("[Verse] | D A/E | Bm . . G | % | N.C. | [Chorus] | Em7 | A7 |")
    song = Song("", Key("D"), typed.sections)
    assert TOKENIZER.decode(TOKENIZER.encode_song(song)).changes() == song.changes()


@given(st.lists(st.integers(-1, TOKENIZER.vocab_size), max_size=30), st.integers(0, 11))
def test_any_ids_decode_or_say_why_not(ids: list[int], anchor: int) -> None:
    with suppress(TokenizerError):
        TOKENIZER.decode(Encoded(tuple(ids), anchor))


def test_lengths_hold_until_another_is_given() -> None:
    song = Song("", Key("C"), (Section("", parse_progression("| C | F | G | C F | C F |").bars),))
    names = [TOKENIZER.tags[i - TOKENIZER.n_chords] for i in TOKENIZER.encode_song(song).ids if i >= TOKENIZER.n_chords]
    assert [name for name in names if name.endswith("bar")] == ["1/2 bar"]


@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 3), st.data())
def test_every_length_over_a_bar_line_can_be_said(n: int, m: int, whole: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    length = Fraction(a, n) + Fraction(b, m) + whole
    if length > 0:
        ids = TOKENIZER.length_tokens(length, Fraction(-1))
        assert sum(TOKENIZER.length_ids[token] for token in ids) == length


def test_what_cannot_be_said_is_read_as_the_nearest_and_known_as_such() -> None:
    rare = Chord.parse("C13#11")
    assert not TOKENIZER.can_say(rare)
    assert TOKENIZER.chord_id(rare, 0) == -1
    assert TOKENIZER.nearest(rare) == Chord.parse("C9")
    assert TOKENIZER.nearest(Chord.parse("Cm7/F")) == Chord.parse("Cm7")


def test_features_tell_every_chord_apart_and_share_columns() -> None:
    table = TOKENIZER.features()
    assert table.shape == (TOKENIZER.vocab_size, 4)
    n = TOKENIZER.n_chords - 1
    assert len(np.unique(table[:n], axis=0)) == n
    assert not set(table[:, 0]) & set(table[:, 1])
    d, dm = (TOKENIZER.chord_id(Chord.parse(name), 0) for name in ("D", "Dm"))
    assert table[d, 0] == table[dm, 0]
    assert table[d, 1] != table[dm, 1]


@pytest.mark.parametrize(
    ("label", "tag"),
    [("Verse 2", "verse"), ("pre chorus", "pre-chorus"), ("A2", "A"), ("fadeout", "outro"), ("N1", "section"),
     ("Guitar solo", "section"), ("Refrain", "chorus"), ("coda", "outro"), ("Bridge", "bridge")],
)  # fmt: skip
def test_section_labels_become_tags(label: str, tag: str) -> None:
    assert section_tag(label) == tag


def test_json_round_trip_and_damage() -> None:
    text = TOKENIZER.to_json()
    assert ChordTokenizer.from_json(text) == TOKENIZER
    for damaged in (
        "", "{}", "[1]", "[" * 100_000, text[:-20], text.replace("m7b5", "m7b6b"), text.replace('"song"', '"sung"'),
        text.replace('"chord"', '"bpe"'), text.replace('"version": 1', '"version": 2'), text.replace('"/0"', '"6/0"'),
        ChordTokenizer((("m", 0),)).to_json(),
    ):  # fmt: skip
        with pytest.raises(TokenizerError):
            ChordTokenizer.from_json(damaged)


def test_every_song_of_the_collection_can_be_said(shared_chords: Path) -> None:
    documents = read_songs(shared_chords / "valid.jsonl.gz")
    tokenizer = ChordTokenizer.train((d.changes for d in documents), min_count=1)
    for document in documents:
        assert all(map(tokenizer.can_say, document.changes))
        if document.song is not None:
            back = tokenizer.decode(tokenizer.encode_song(document.song))
            assert back.changes() == document.song.changes()
