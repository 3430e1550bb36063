"""How songs are shown: whole or cut, with tags or without, and what of them costs nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from etude.corpus.songs import SongDocument
from etude.tokens.chords import GENRES, SECTIONS, ChordTokenizer
from etude.training.batches import IGNORE, Ints, SongBatches
from etude.training.recipes import ChordRecipe

WHOLE = ChordRecipe(block_size=64, batch_size=1, plain_share=0.0, crop_share=0.0, tag_dropout=0.0)
PLAIN = replace(WHOLE, plain_share=1.0)


def shown(song: SongDocument, tokenizer: ChordTokenizer, recipe: ChordRecipe, step: int = 0) -> tuple[Ints, Ints]:
    """The ids and targets of a song that is alone in its batch, without padding."""
    batch = SongBatches([song], tokenizer, recipe).batch(step)
    length = int((batch.ids[0] != tokenizer.song_id).nonzero()[0][-1]) + 1
    return batch.ids[0, :length], batch.targets[0, :length]


def test_a_chord_that_cannot_be_said_costs_nothing_and_keeps_a_song_plain(songs: list[SongDocument]) -> None:
    tokenizer = ChordTokenizer((("", 0), ("m", 0), ("m7", 0)))
    said = [tokenizer.can_say(chord) for chord in songs[1].changes]
    assert said == [True, True, False, False, True, True, False]  # Dm7b5, G7b9 and Cm7/Bb
    plain = np.array(tokenizer.encode_changes(songs[1].changes).ids)
    for recipe in (WHOLE, PLAIN):
        ids, targets = shown(songs[1], tokenizer, recipe)
        assert ids.tolist() == plain[: len(ids)].tolist()
        assert targets.tolist() == np.where(said, plain[1:], IGNORE)[: len(ids)].tolist()


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_a_full_song_has_all_its_tags_or_lost_them(
    songs: list[SongDocument], tokenizer: ChordTokenizer, dropout: float
) -> None:
    assert songs[0].song is not None
    full = tokenizer.encode_song(songs[0].song).ids
    keys = [tag for tag in tokenizer.tags if tag.startswith("key+")]
    lost = {tokenizer.tag_id(tag) for tag in (*GENRES, *keys, *SECTIONS)} if dropout else set()
    assert len(lost.intersection(full)) == (4 if dropout else 0)  # pop, D major, verse and chorus
    kept = [token for token in full if token not in lost]
    ids, targets = shown(songs[0], tokenizer, replace(WHOLE, tag_dropout=dropout))
    assert (ids.tolist(), targets.tolist()) == (kept[:-1], kept[1:])


def test_a_long_plain_song_begins_anywhere_or_at_its_start(
    songs: list[SongDocument], tokenizer: ChordTokenizer
) -> None:
    changes = songs[2].changes * 4
    long = replace(songs[2], changes=changes)
    whole = tokenizer.encode_changes(changes).ids
    for step in range(5):
        assert shown(long, tokenizer, PLAIN, step)[1].tolist() == list(whole[1:])
    starts = set()
    for step in range(20):
        targets = shown(long, tokenizer, replace(PLAIN, crop_share=1.0), step)[1].tolist()
        starts.add(len(changes) - len(targets))
        assert targets == list(tokenizer.encode_changes(changes[-len(targets) :]).ids[1:])
    assert len(starts) > 10
