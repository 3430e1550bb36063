"""How well a model of text says a song's next chord, in the currency of `evaluation`: nats a chord, and right or wrong.

The text of a song is its changes with single blanks between them (`corpus.chord_text`). Tokens differ, so a chord is
taken whole: what its symbol costs once a blank has come, and that it then ends, by a blank, by a line or by the text;
which of these is not asked, as a model of chords is not asked either. So the probabilities of all symbols after a blank
sum to at most one (what no chord begins with, and symbols that nobody can read, have the rest):

    P(symbol) = P(first token) / P(a token that begins with a blank)  P(second token) ...  P(a token that ends it)

The first token is the blank itself where it is one, as in tokens of characters, or has it in front, as in GPT-2's. That
is exact for tokens that never cross a blank, and for others there is an error. A symbol can be said by other tokens
than those that its text is cut into; what it costs leaves these out, as any cost of a text does.

What comes next is decoded, not looked up: a beam of tokens, each symbol in it read as a chord, and the probabilities of
all spellings and tokenizations of a chord added up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.corpus.chord_text import write_song
from etude.corpus.songs import SongDocument
from etude.engines.branches import BranchEngine
from etude.errors import EtudeError
from etude.music.theory import Chord, ChordError
from etude.tokens.tokenizer import TextTokenizer

from .evaluation import Scores, first_occurrences, ratio, summarize, windows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BEAM = 8  # beginnings of symbols that are gone on with at each place
LONGEST = 16  # tokens of a symbol that is decoded, its blank counted
_SHORTEST = 3  # block: two tokens, and one of a symbol
_TOP = 5  # chords that the beam must find
_LOGITS = 1 << 24  # that are made at once
_PIECE = 128  # rows of logits that are made probabilities together


@dataclass(frozen=True, slots=True)
class ChordScores:
    """The scores of all changes but each song's first, and the characters of each, its blank among them [n]."""

    scores: Scores
    characters: Ints

    def summary(self) -> dict[str, Any]:
        """The document of `etude eval` for chords, with `nats_per_character` after `nats_per_chord`."""
        document = summarize(self.scores)
        songs = self.scores.song
        found = ratio(
            *(np.bincount(songs, weights=each)[np.unique(songs)] for each in (self.scores.nats, self.characters))
        )
        at = list(document).index("nats_per_chord") + 1
        items = list(document.items())
        return dict([*items[:at], ("nats_per_character", found), *items[at:]])


@dataclass(frozen=True, slots=True)
class Marks:
    """What each token of a vocabulary does after a symbol [V]: begins another, or ends it in whatever way."""

    pieces: list[bytes]
    begins: NDArray[np.bool_]
    ends: NDArray[np.bool_]

    @staticmethod
    def of(tokenizer: TextTokenizer, size: int, bos: int | None) -> Marks:
        """`size` is the model's vocabulary, which may be larger than the tokenizer's."""
        pieces = tokenizer.pieces(range(min(size, tokenizer.vocab_size)))
        pieces += [b"\xff"] * (size - len(pieces))
        ends = np.array([piece[:1].isspace() for piece in pieces])
        for token in (tokenizer.end_id, bos):
            if token is not None:
                ends[token] = True
        return Marks(pieces, np.array([piece[:1] == b" " for piece in pieces]), ends)


def score_songs(
    songs: Iterable[SongDocument], engine: BranchEngine, tokenizer: TextTokenizer, bos: int | None, block_size: int
) -> ChordScores:
    """Score every change but each song's first; a song is read in the windows of `evaluation.windows`.

    Raises `EtudeError` for tokens that cross a blank, or where no song has two chords.
    """
    marks = Marks.of(tokenizer, engine.config.vocab_size, bos)
    room = _room(marks, block_size)
    parts, sizes = list[Scores](), list[Ints]()
    for index, document in enumerate(songs):
        if len(document.changes) < 2:
            continue
        text = _Text.of(document, tokenizer, bos, marks)
        costs, ranks = _score(text, document.changes, engine, marks, block_size - room, room)
        parts.append(Scores(costs, ranks, first_occurrences(document.changes)[1:], np.full(len(ranks), index)))
        sizes.append(text.characters[1:])
    if not parts:
        raise EtudeError("no song has two chords, so there is nothing to score")
    scores = Scores(*(np.concatenate([getattr(part, name) for part in parts]) for name in Scores.__slots__))
    return ChordScores(scores, np.concatenate(sizes))


def next_chords(
    text: str, engine: BranchEngine, tokenizer: TextTokenizer, bos: int | None, wanted: int = _TOP
) -> dict[Chord, float]:
    """The likeliest chords after a text of chords with single blanks between them, and their probabilities; `wanted` of
    them where the model says so many. A long text is read from where it fits into a block. Raises `EtudeError`."""
    marks, block_size = Marks.of(tokenizer, engine.config.vocab_size, bos), engine.config.block_size
    room = _room(marks, block_size)
    ids = [*([] if bos is None else [bos]), *tokenizer.encode(text)][room - block_size :]
    row = _log_softmax(engine.start_all(ids)[-1:])  # [1, V]
    opening = np.where(marks.begins, row - _log_sum(row[:, marks.begins])[:, None], -np.inf)
    return _decode(engine, np.array([len(ids)]), opening, marks, room, wanted)[0]


def _room(marks: Marks, block_size: int) -> int:
    """The most tokens of a symbol that is decoded. Raises `EtudeError`."""
    room = min(LONGEST, max(1, block_size // 4))
    if not marks.begins.any():
        raise EtudeError(
            "this model says no chords: none of its tokens is or begins with the blank that stands before each; "
            "take one that was trained on text of chords"
        )
    if block_size - room < 2:
        raise EtudeError(f"chords cannot be decoded in a block of {block_size} tokens; {_SHORTEST} are the fewest")
    return room


@dataclass(frozen=True, slots=True)
class _Text:
    """A song's ids [t]; of each chord the first id and one past the last, and how many characters it has, [n] each."""

    ids: Ints
    first: Ints
    past: Ints
    characters: Ints

    @staticmethod
    def of(document: SongDocument, tokenizer: TextTokenizer, bos: int | None, marks: Marks) -> _Text:
        text = write_song(document)
        said = tokenizer.encode(text)
        pieces = [marks.pieces[token] for token in said]
        if b"".join(pieces) != text.encode() or any(b" " in piece[1:] for piece in pieces):
            raise EtudeError(
                f"{document.name}: its tokens cross the blanks between chords, so none can be scored alone"
            )
        head = [] if bos is None else [bos]
        first = np.array([at for at, piece in enumerate(pieces) if not at or piece[:1] == b" "]) + len(head)
        ids = np.array([*head, *said])
        characters = np.array([len(symbol) + 1 for symbol in text.split(" ")])
        return _Text(ids, first, np.append(first[1:], len(ids)), characters)


def _score(
    text: _Text, changes: Sequence[Chord], engine: BranchEngine, marks: Marks, length: int, room: int
) -> tuple[Floats, Ints]:
    """Of all changes but the first: nats, and how many chords were likelier, [n - 1] each."""
    count = len(text.ids)
    right, ended, begun = np.zeros(count), np.zeros(count), np.zeros(count)  # log P of what comes after each id
    found: list[dict[Chord, float]] = []
    for start, scored, end in windows(count, length):
        logits = engine.start_all(text.ids[start:end].tolist())[scored - start :]
        # The places in this window after which a chord begins, and what may begin there.
        places = text.past[:-1][(text.past[:-1] > scored) & (text.past[:-1] <= end)] - 1
        opening = np.full((len(places), len(marks.begins)), -np.inf)
        for at in range(0, len(logits), _PIECE):
            rows = _log_softmax(logits[at : at + _PIECE])
            here = np.arange(scored + at, scored + at + len(rows))
            following = np.append(text.ids, 0)[here + 1]  # what follows the last id is not asked
            right[here] = rows[np.arange(len(rows)), following]
            ended[here], begun[here] = _log_sum(rows[:, marks.ends]), _log_sum(rows[:, marks.begins])
            inside = np.flatnonzero((places >= here[0]) & (places <= here[-1]))
            chances = rows[places[inside] - here[0]] - begun[places[inside], None]
            opening[inside] = np.where(marks.begins, chances, -np.inf)
        together = max(1, _LOGITS // (BEAM * len(marks.begins)))
        for at in range(0, len(places), together):
            some = slice(at, at + together)
            found += _decode(engine, places[some] - start + 1, opening[some], marks, room)
    through = np.concatenate([[0], np.cumsum(right)])  # of ids 1 to j
    first, past = text.first[1:], text.past[1:]
    costs = begun[first - 1] - (through[past - 1] - through[first - 1]) - ended[past - 1]
    ranks = []
    for chord, cost, candidates in zip(changes[1:], costs, found, strict=True):
        own = max(candidates.get(chord, 0.0), math.exp(-cost))
        ranks.append(sum(p > own for other, p in candidates.items() if other != chord))
    return costs, np.array(ranks)


def _decode(
    engine: BranchEngine, after: Ints, opening: Floats, marks: Marks, room: int, wanted: int = _TOP
) -> list[dict[Chord, float]]:
    """The likeliest chords at each place [n], with their probabilities, from log P of the first tokens [n, V]."""
    found: list[dict[Chord, float]] = [defaultdict(float) for _ in after]
    owner, tokens, logs = _best(np.arange(len(after)), np.empty((len(after), 0), np.int64), opening, found, wanted)
    for _ in range(room):
        if not len(owner):
            break
        rows = _log_softmax(engine.branch(after[owner], tokens))
        finished = logs + _log_sum(rows[:, marks.ends])
        for place, row, log in zip(owner.tolist(), tokens.tolist(), finished.tolist(), strict=True):
            chord = _read(b"".join(marks.pieces[token] for token in row))
            if chord is not None:
                found[place][chord] += math.exp(log)
        rows[:, marks.ends] = -np.inf
        owner, tokens, logs = _best(owner, tokens, rows + logs[:, None], found, wanted)
    return found


def _best(
    owner: Ints, tokens: Ints, logs: Floats, found: Sequence[dict[Chord, float]], wanted: int
) -> tuple[Ints, Ints, Floats]:
    """Of all rows [R, s] and the tokens that may follow each [R, V], the likeliest of every place, `BEAM` of them or as
    many as are wanted; without those that are less likely than so many chords that were found there."""
    beam = max(BEAM, wanted)
    most = min(beam, logs.shape[1])
    likely = np.argpartition(-logs, most - 1, axis=1)[:, :most]  # [R, most]
    values = np.take_along_axis(logs, likely, axis=1).ravel()
    enough = [sorted(each.values())[-wanted] if len(each) >= wanted else 0.0 for each in found]
    least = np.array([math.log(p) if p > 0 else -math.inf for p in enough])
    places = np.repeat(owner, most)
    order = np.lexsort((-values, places))
    order = order[(values[order] > -np.inf) & (values[order] >= least[places[order]])]
    places = places[order]
    rank = np.arange(len(order)) - np.searchsorted(places, places)  # within its place
    order = order[rank < beam]
    grown = np.concatenate([tokens[order // most], likely.ravel()[order][:, None]], axis=1)
    return np.repeat(owner, most)[order], grown, values[order]


@lru_cache(maxsize=1 << 16)
def _read(symbol: bytes) -> Chord | None:
    """The chord that a symbol after its blank says; None for what is none."""
    try:
        return Chord.parse(symbol[1:].decode())
    except (ChordError, UnicodeDecodeError):
        return None


def _log_softmax(logits: NDArray[Any]) -> Floats:
    rows = np.asarray(logits, np.float64)
    return rows - _log_sum(rows)[:, None]


def _log_sum(logs: Floats) -> Floats:
    """The logarithm of the sum of e to these, along the last axis; minus infinity where there are none."""
    if not logs.shape[1]:
        return np.full(len(logs), -np.inf)
    most: Floats = logs.max(axis=1, keepdims=True)
    total: Floats = most[:, 0] + np.log(np.exp(logs - most).sum(axis=1))
    return total
