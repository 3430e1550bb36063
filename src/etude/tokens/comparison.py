"""Tokenizers beside each other on the same text or songs: how many tokens they need, and what they make of a chord.

A song is, for a tokenizer of text, its changes with a blank between them, and for one of chords its own encoding. In
text every word that reads as a chord is one. A token that begins or ends a text is counted for nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.music.theory import Chord, ChordError, Key

from .chords import ChordTokenizer
from .tokenizer import Ids, TextTokenizer, TokenizerError

AnyTokenizer = TextTokenizer | ChordTokenizer
Ints = NDArray[np.int64]
Row = dict[str, Any]

_WORD = re.compile(r"[^\s|]+")
_AROUND = "()[]{}<>.,:;!?\"'*_"  # what stands around a chord in a sentence
_LONGEST_CHORD = 32  # characters
_LINE = 64  # characters of a line that is shown cut


@dataclass(frozen=True, slots=True)
class Passage:
    """A song, or some text, with its chords: `spans` [n, 2] are where each symbol begins and ends in `text`."""

    text: str
    chords: tuple[Chord, ...]
    spans: Ints
    is_song: bool = False
    begins: bool = True
    """Whether a song or document begins here; a long text comes as several passages."""


def song_passage(changes: Sequence[Chord], key: Key) -> Passage:
    """A song's changes, spelled in its key, with single blanks between them."""
    symbols = [key.name(chord) for chord in changes]
    lengths = np.array([len(symbol) for symbol in symbols], np.int64)  # [n]
    ends = np.cumsum(lengths + 1) - 1
    return Passage(" ".join(symbols), tuple(changes), np.stack([ends - lengths, ends], axis=1), is_song=True)


def text_passage(text: str, begins: bool = True) -> Passage:
    """Some text; the words in it that `Chord.parse` reads are its chords."""
    words = (match for match in _WORD.finditer(text) if match.end() - match.start() <= 2 * _LONGEST_CHORD)
    found = [(match.start(), _chord(match[0])) for match in words]
    chords = [(start + at, start + end, chord) for start, each in found if each for at, end, chord in (each,)]
    spans = np.array([(start, end) for start, end, _ in chords], np.int64).reshape(-1, 2)
    return Passage(text, tuple(chord for _, _, chord in chords), spans, begins=begins)


@lru_cache(1 << 16)
def _chord(word: str) -> tuple[int, int, Chord] | None:
    """The chord that a word is, and where in it the symbol begins and ends."""
    start = len(word) - len(word.lstrip(_AROUND))
    for at, symbol in ((0, word), (start, word[start:]), (start, word.strip(_AROUND))):
        if symbol[:1] in "ABCDEFGN" and 0 < len(symbol) <= _LONGEST_CHORD:
            try:
                return at, at + len(symbol), Chord.parse(symbol)
            except ChordError:
                continue
    return None


class _Tally:
    """What one tokenizer needed so far."""

    def __init__(self, name: str, tokenizer: AnyTokenizer) -> None:
        self.name, self.tokenizer = name, tokenizer
        self.tokens = self.chord_tokens = self.whole = self.exact = 0
        self.used = np.zeros(tokenizer.vocab_size, bool)
        if not isinstance(tokenizer, ChordTokenizer):
            pieces = tokenizer.pieces(range(tokenizer.vocab_size))
            self.lengths = np.array([len(piece) for piece in pieces], np.int64)  # [vocab_size], in bytes

    def add(self, passage: Passage) -> None:
        if isinstance(self.tokenizer, ChordTokenizer):
            ids = np.array(self.tokenizer.encode_changes(passage.chords).ids[1:], np.int64)  # without <song>
            counts = np.ones(len(ids), np.int64)
            self.whole += len(ids)
            self.exact += sum(map(self.tokenizer.can_say, passage.chords))
        else:
            try:
                ids = np.asarray(self.tokenizer.encode_arrays([passage.text])[0], np.int64)
            except TokenizerError as error:
                raise TokenizerError(f"{self.name}: {error}") from error
            counts = self._counts(ids, passage)
            self.exact += len(counts)
        self.tokens += len(ids)
        self.chord_tokens += int(counts.sum())
        self.used[ids] = True

    def _counts(self, ids: Ids, passage: Passage) -> Ints:
        """Of each chord the tokens that say some of it or of the blank before it. [n]"""
        ends = np.cumsum(self.lengths[ids])  # [tokens], in bytes
        starts, stops = _in_bytes(passage.text, passage.spans).T
        blanks = np.array([start > 0 and passage.text[start - 1] == " " for start in passage.spans[:, 0]], np.int64)
        first, last = np.searchsorted(ends, starts, "right"), np.searchsorted(ends, stops, "left")
        with_blank = np.searchsorted(ends, starts - blanks, "right")
        begin = ends[first] - self.lengths[ids[first]]  # where the first token of a symbol begins
        self.whole += int(((first == last) & (begin >= starts - blanks) & (ends[last] == stops)).sum())
        return np.asarray(last - with_blank + 1)

    def row(self, count: _Counts) -> Row:
        songs = count.only_songs
        readable = songs or not isinstance(self.tokenizer, ChordTokenizer)  # else it has read no word but chords

        def share(value: int, of: int) -> float | None:
            return value / of if of else None

        return {
            "tokenizer": self.name,
            "kind": self.tokenizer.kind,
            "vocab_size": self.tokenizer.vocab_size,
            "tokens": self.tokens,
            "tokens_per_character": share(self.tokens, count.characters) if readable else None,
            "tokens_per_word": share(self.tokens, count.words) if readable else None,
            "tokens_per_chord": share(self.chord_tokens, count.chords),
            "tokens_per_song": share(self.tokens, count.documents),
            "vocabulary_used": int(self.used.sum()),
            "one_token_chords": share(self.whole, count.chords),
            "exact_chords": share(self.exact, count.chords),
        }


@dataclass(slots=True)
class _Counts:
    characters: int = 0
    words: int = 0
    chords: int = 0
    documents: int = 0
    only_songs: bool = True

    def add(self, passage: Passage) -> None:
        self.characters += len(passage.text)
        self.words += len(passage.text.split())
        self.chords += len(passage.chords)
        self.documents += passage.begins
        self.only_songs &= passage.is_song


def compare(tokenizers: Mapping[str, AnyTokenizer], passages: Iterable[Passage], lines: int = 3) -> dict[str, Any]:
    """What each tokenizer, by its name, needs for all the passages, which are read once; a `lines` of them cut by each:

        {"characters", "words", "chords", "documents", "songs": whether they are,
         "rows": [{"tokenizer", "kind", "vocab_size", "tokens", "tokens_per_character", "tokens_per_word",
                   "tokens_per_chord", "tokens_per_song": or document, "vocabulary_used", "one_token_chords",
                   "exact_chords"}],
         "lines": [{"text", "cuts": {name: [pieces]}}]}

    A chord's tokens are those that say some of it or of the blank before it. `one_token_chords` is the share of chords
    whose symbol is one token, with or without that blank, and `exact_chords` of those that come back as they were: what
    a tokenizer of chords cannot say becomes the nearest chord. What there is nothing of, or a tokenizer cannot read, is
    None. Raises `TokenizerError` for text that a tokenizer cannot say, or where there is none.
    """
    tallies, count, shown = [_Tally(*each) for each in tokenizers.items()], _Counts(), list[Passage]()
    for passage in passages:
        count.add(passage)
        if len(shown) < lines:
            shown += _lines(passage, lines - len(shown))
        for tally in tallies:
            tally.add(passage)
    if not count.words:
        raise TokenizerError("no words to compare on")
    return {
        "characters": count.characters,
        "words": count.words,
        "chords": count.chords,
        "documents": count.documents,
        "songs": count.only_songs,
        "rows": [tally.row(count) for tally in tallies],
        "lines": [
            {"text": each.text, "cuts": {name: cut(tokenizer, each) for name, tokenizer in tokenizers.items()}}
            for each in shown
        ],
    }


def cut(tokenizer: AnyTokenizer, passage: Passage) -> list[str]:
    """What each token of a passage says; bytes that are no whole characters as `\\xe2`."""
    if isinstance(tokenizer, ChordTokenizer):
        encoded = tokenizer.encode_changes(passage.chords)
        key = Key.detect(passage.chords)
        return [key.name(tokenizer.chord(token, encoded.anchor)) for token in encoded.ids[1:]]
    pieces = tokenizer.pieces(tokenizer.encode(passage.text))
    return [piece.decode("utf-8", "backslashreplace") for piece in pieces]


def _lines(passage: Passage, most: int) -> list[Passage]:
    """The first lines of a passage that are not blank, so short that they fit beside each other."""
    found = list[Passage]()
    for line in passage.text.split("\n") if len(passage.text) < 1 << 20 else passage.text[: 1 << 20].split("\n"):
        if len(found) == most:
            break
        short = line.strip()
        if len(short) > _LINE:
            short = short[: _LINE + 1].rpartition(" ")[0] or short[:_LINE]
        if short:
            found.append(text_passage(short))
    return found


def _in_bytes(text: str, spans: Ints) -> Ints:
    """Places in a text as places in its UTF-8. [n, 2]"""
    if text.isascii():
        return spans
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")  # [characters]
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    return np.asarray(np.concatenate([[0], np.cumsum(sizes)])[spans])


_PANELS = (
    ("tokens_per_chord", "tokens a chord"),
    ("tokens_per_word", "tokens a word"),
    ("tokens_per_character", "tokens a character"),
    ("one_token_chords", "share of chords that are one token"),
)
_WIDTH, _LABEL, _BAR, _GAP = 760, 190, 18, 34


def comparison_svg(rows: Sequence[Row], title: str) -> str:
    """The rows of `compare` as bars, a panel a measure, a whole SVG document. Equal rows give equal bytes."""
    parts, y = list[str](), 46
    for field, words in _PANELS:
        values = [row[field] for row in rows]
        largest = max((value for value in values if value is not None), default=0.0)
        if not largest:
            continue
        parts.append(f'<text x="{_LABEL}" y="{y + 12}" font-weight="bold">{words}</text>')
        y += _GAP - 12
        for row, value in zip(rows, values, strict=True):
            name = row["tokenizer"] if len(row["tokenizer"]) <= 26 else row["tokenizer"][:25] + "…"
            parts.append(f'<text x="{_LABEL - 8}" y="{y + 11}" text-anchor="end">{escape(name)}</text>')
            length = 0.0 if value is None else (_WIDTH - _LABEL - 70) * value / largest
            parts.append(f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_BAR - 5}" fill="#4878a8"/>')
            said = "none" if value is None else f"{value:.3f}"
            parts.append(f'<text x="{_LABEL + length + 6:.1f}" y="{y + 11}">{said}</text>')
            y += _BAR
        y += 12
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{_WIDTH}" height="{y}" fill="#fff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
    )
    return "\n".join(chain(head, parts, ("</svg>", "")))
