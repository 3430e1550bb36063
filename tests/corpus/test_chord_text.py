"""Songs written as text: what stands there is the song, in every manner and in every key."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from etude.corpus.chord_text import (
    _FAMILIES,
    Writing,
    draw_writing,
    fingering,
    write_song,
    write_songs,
)
from etude.corpus.songs import SongDocument
from etude.music.theory import Chord

GUITAR = (4, 9, 2, 7, 11, 4)  # pitch classes of the open strings, the lowest first


def changes(text: str) -> tuple[Chord, ...]:
    return tuple(chord for chord, _ in groupby(map(Chord.parse, text.split(" "))))


def test_the_plain_text_is_the_changes(songs: list[SongDocument]) -> None:
    texts = list(write_songs(songs))
    assert [text.text for text in texts] == [
        "D A Bm G D A7 D",
        "Cm7 Fm7 Dm7b5 G7b9 Cm7 N.C. Cm7/Bb",
        "E A E B7 A E A E",
    ]
    assert [(text.title, text.genres, text.group) for text in texts] == [
        ("a", "pop", "1"),
        ("b", "jazz", "2"),
        ("c", "", "3"),
    ]


def test_every_key_once_and_its_own_first(songs: list[SongDocument]) -> None:
    texts = [text.text for text in write_songs(songs, keys="all")]
    assert len(texts) == 36 and texts[:3] == [text.text for text in write_songs(songs)]
    for i, text in enumerate(texts):
        assert changes(text) == tuple(chord.transpose(i // 3) for chord in songs[i % 3].changes)
    # Spelled in the key: flats in F and Bb, sharps in E.
    assert texts[9] == "F C Dm Bb F C7 F"
    assert texts[3] == "Eb Bb Cm Ab Eb Bb7 Eb"
    assert texts[6] == "E B C#m A E B7 E"


def test_each_name_of_a_quality_is_read_as_that_quality() -> None:
    for family in _FAMILIES:
        assert len({len(names) for names in family.values()}) == 1
        for quality, names in family.items():
            assert names[0] == quality
            for name in names:
                for root in ("C", "F#", "Bb"):
                    assert Chord.parse(root + name) == Chord.parse(root + quality), root + name
                    assert Chord.parse(f"{root}{name}/E") == Chord.parse(f"{root}{quality}/E"), name


@pytest.mark.parametrize(
    ("writing", "text"),
    [
        (Writing(section="{}:"), "Verse: D A Bm G Chorus: D A7 D"),
        (Writing(section="[{}]", case="upper"), "[VERSE] D A Bm G [CHORUS] D A7 D"),
        (Writing(bar="| "), "| D | A | Bm | G | D A7 | D |"),
        (Writing(bar="|"), "|D |A |Bm |G |D A7 |D |"),
        (Writing(between=" - "), "D - A - Bm - G - D - A7 - D"),
        (Writing(minor="-"), "D A B- G D A7 D"),
        (Writing(fingerings=True), "D x57775 A x02220 Bm x24432 G 355433 D A7 D"),
    ],
)
def test_manners(songs: list[SongDocument], writing: Writing, text: str) -> None:
    assert write_song(songs[0], writing=writing) == text


def test_what_is_played_again_is_written_once(songs: list[SongDocument]) -> None:
    song = songs[2].song
    assert song is None  # without bars each change is one
    assert write_song(songs[2], writing=Writing(repeat="({}x)")) == "E A E B7 A E A E"
    loops = replace(songs[2], changes=tuple(map(Chord.parse, ["C", "G", "C", "G", "C", "G", "F", "C", "F", "C", "Am"])))
    assert write_song(loops, writing=Writing(repeat="({}x)")) == "C G (3x) F C (2x) Am"
    assert write_song(loops, writing=Writing(repeat="x{}", bar="| ")) == "| C | G | x3 | F | C | x2 | Am |"
    # After what is written out, nobody could tell how far a repeat goes back.
    later = replace(songs[2], changes=tuple(map(Chord.parse, ["Am", "C", "G", "C", "G", "C"])))
    assert write_song(later, writing=Writing(repeat="x{}")) == "Am C G C G C"


@pytest.mark.parametrize("root", range(12))
@pytest.mark.parametrize("quality", ["", "m"])
def test_a_fingering_sounds_as_its_chord(root: int, quality: str) -> None:
    chord = Chord(root, quality, root)
    frets = fingering(chord)
    assert frets is not None and len(frets) == 6
    held = [(string + int(fret)) % 12 for string, fret in zip(GUITAR, frets, strict=True) if fret != "x"]
    assert set(held) == chord.pitch_classes and held[0] == root
    assert fingering(Chord(root, "m7", root)) is None and fingering(Chord(root, "", (root + 4) % 12)) is None


def test_a_text_depends_on_song_and_seed_alone(songs: list[SongDocument]) -> None:
    together = list(write_songs(songs, "people", "all", seed=7))
    alone = [list(write_songs([song], "people", "all", seed=7)) for song in songs]
    assert together == [texts[semitones] for semitones in range(12) for texts in alone]
    assert together != list(write_songs(songs, "people", "all", seed=8))


def test_people_write_in_many_manners() -> None:
    drawn = [draw_writing(np.random.default_rng(seed)) for seed in range(300)]
    for name in Writing.__slots__:
        assert len({getattr(writing, name) for writing in drawn}) > 1, name
