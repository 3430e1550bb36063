"""Batches of songs, a pure function of the seed and the step: nothing to save, so a resumed run sees the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etude.corpus.songs import SongDocument
from etude.engines.matches import find_matches
from etude.tokens.chords import GENRES, SECTIONS, ChordTokenizer

from .recipes import ChordRecipe

Ints = NDArray[np.int64]
IGNORE = -1  # a target that costs nothing: padding, or a chord that cannot be said
_LONG = 24  # shorter songs are always shown from their start
_POOL = 16  # batches whose songs are sorted by length together, so that little is padded


@dataclass(frozen=True, slots=True)
class Batch:
    """Ids and the targets one token on, [b, t] each; continuations and match lengths [b, t, N_MATCH]."""

    ids: Ints
    targets: Ints
    found: Ints
    lengths: Ints


class SongBatches:
    """Every song once an epoch, in a new order and a new rendering each time."""

    def __init__(self, documents: Sequence[SongDocument], tokenizer: ChordTokenizer, recipe: ChordRecipe) -> None:
        self.tokenizer, self.recipe = tokenizer, recipe
        self._plain = [encode_plain(document, tokenizer) for document in documents]
        # A song with a chord that cannot be said is shown in the plain form alone, which leaves that chord out.
        self._full = [
            np.array(tokenizer.encode_song(d.song).ids, np.int64) if d.song and said.all() else None
            for d, (_, said) in zip(documents, self._plain, strict=True)
        ]
        self._epoch, self._batches = -1, [np.zeros(0, np.int64)]
        tag = tokenizer.tag_id
        self._genre_ids = [tag(genre) for genre in GENRES]
        self._key_ids = [tag(name) for name in tokenizer.tags if name.startswith("key+")]
        self._section_ids = [tag(section) for section in SECTIONS]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self._plain) // self.recipe.batch_size)

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._order(epoch)
        songs = self._batches[index]
        rng = np.random.default_rng((self.recipe.seed, 1, step))
        return collate([self._render(int(song), rng) for song in songs], self.tokenizer.song_id, self.recipe.block_size)

    def _order(self, epoch: int) -> list[Ints]:
        rng = np.random.default_rng((self.recipe.seed, 0, epoch))
        order, size = rng.permutation(len(self._plain)), self.recipe.batch_size
        batches: list[Ints] = []
        for start in range(0, len(order), size * _POOL):
            pool = order[start : start + size * _POOL]
            pool = pool[np.argsort([len(self._plain[song][0]) for song in pool], kind="stable")]
            batches.extend(pool[i : i + size] for i in range(0, len(pool), size))
        # The last batch may be small; shuffling keeps its place from being always the end.
        return [batches[i] for i in rng.permutation(len(batches))]

    def _render(self, song: int, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """One way to show a song: ids and targets of one length, at most block_size."""
        full, block = self._full[song], self.recipe.block_size
        if full is not None and rng.random() >= self.recipe.plain_share:
            dropped = [
                ids
                for ids in (self._genre_ids, self._key_ids, self._section_ids)
                if rng.random() < self.recipe.tag_dropout
            ]
            if dropped:
                full = full[~np.isin(full, np.concatenate(dropped))]
            start = int(rng.integers(max(1, len(full) - block)))
            return full[start : start + block], full[start + 1 : start + block + 1]
        ids, said = self._plain[song]
        start = 0
        if len(ids) > _LONG and rng.random() < self.recipe.crop_share:
            start = int(rng.integers(len(ids) - 4))
        ids, said = self._from(ids, said, start)
        return ids[:-1], np.where(said, ids, IGNORE)[1:]

    def _from(self, ids: Ints, said: NDArray[np.bool_], start: int) -> tuple[Ints, NDArray[np.bool_]]:
        """The plain form from change `start` on, with the anchor of the first root there."""
        changes = ids[1 + start : 1 + start + self.recipe.block_size]
        shapes, rootless = len(self.tokenizer.shapes), self.tokenizer.n_chords - 1
        sounding = changes[changes != rootless]
        shift = int(sounding[0]) // shapes if len(sounding) else 0
        moved = np.where(changes == rootless, rootless, (changes - shift * shapes) % (12 * shapes))
        said = said[1 + start : 1 + start + self.recipe.block_size]
        return np.concatenate((ids[:1], moved)), np.concatenate(([True], said))


def encode_plain(document: SongDocument, tokenizer: ChordTokenizer) -> tuple[Ints, NDArray[np.bool_]]:
    """Ids of the plain form, and which of them say exactly what the song says, [1 + changes] each."""
    ids = np.array(tokenizer.encode_changes(document.changes).ids, np.int64)
    return ids, np.array([True, *map(tokenizer.can_say, document.changes)])


def collate(pairs: Sequence[tuple[Ints, Ints]], padding: int, longest: int) -> Batch:
    """Pad pairs of ids and targets to one length, at most `longest`: a multiple of 16, so that the sizes of blocks of
    memory recur and freed ones fit again."""
    t = min(longest, -(-max(len(targets) for _, targets in pairs) // 16) * 16)
    ids = np.full((len(pairs), t), padding, np.int64)
    targets = np.full((len(pairs), t), IGNORE, np.int64)
    for row, (own_ids, own_targets) in enumerate(pairs):
        ids[row, : len(own_targets)] = own_ids[: len(own_targets)]
        targets[row, : len(own_targets)] = own_targets
    return Batch(ids, targets, *find_matches(ids))
