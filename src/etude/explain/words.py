"""What the ids of each tokenizer say: as text, as bytes, and the merges that made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from etude.music.theory import Key
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import TextTokenizer

_SIGNS = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


@dataclass(frozen=True, slots=True)
class Word:
    """What an id says. `text` has bytes that are no whole characters as `\\xe2`; `bytes` are exact, None for a chord.

    `merges` is every state of the token from single bytes on, a merge apart; empty where nothing is merged.
    """

    text: str
    bytes: bytes | None = None
    merges: tuple[tuple[str, ...], ...] = ()


Words = Callable[[int], Word]


def text_words(tokenizer: TextTokenizer) -> Words:
    """What the ids of a model of text say; ids beyond the tokenizer, in a padded table, say nothing."""

    @cache
    def word(token: int) -> Word:
        if token >= tokenizer.vocab_size:
            return Word(f"<no token {token}>")
        (piece,) = tokenizer.pieces([token])
        if not piece:
            return Word("<BOS>", b"")
        states = tuple(tuple(map(_text, state)) for state in tokenizer.merges_of(token))
        return Word(_text(piece), piece, states)

    return word


def chord_words(tokenizer: ChordTokenizer, key: Key, anchor: int) -> Words:
    """What the ids of a model of chords say: chords counted from `anchor`, spelled as in the key, and tags."""

    @cache
    def word(token: int) -> Word:
        if token >= tokenizer.n_chords:
            return Word(f"<{tokenizer.tags[token - tokenizer.n_chords]}>")
        return Word(key.name(tokenizer.chord(token, anchor)))

    return word


def visible(text: str) -> str:
    """The text with a sign for each blank, and an escape for each character that cannot be seen."""
    return "".join(
        _SIGNS.get(character) or (character if character.isprintable() else character.encode("unicode_escape").decode())
        for character in text
    )


def _text(piece: bytes) -> str:
    return piece.decode("utf-8", "backslashreplace")
