"""Character tokens: every distinct character of the training text is an id, in the order of their code points.

One more id, BOS, stands before each document and ends it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

from .bpe_files import characters_json
from .tokenizer import TokenizerError

_QUOTED = 40  # characters of a text that an error shows


@dataclass(frozen=True)
class CharTokenizer:
    """`characters` are sorted and distinct; the first has id 0. Raises `TokenizerError` where they are not."""

    characters: str
    kind: ClassVar[str] = "char"

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str) or any(a >= b for a, b in pairwise(self.characters)):
            raise TokenizerError("its characters must be a string, sorted and each once")
        if any("\ud800" <= character <= "\udfff" for character in self.characters):
            raise TokenizerError("its characters hold half a surrogate pair, which is no character")

    @staticmethod
    def train(documents: Iterable[str]) -> CharTokenizer:
        """Take every character that occurs."""
        return CharTokenizer("".join(sorted(set[str]().union(*documents))))

    @property
    def bos_id(self) -> int:
        """Begins a document and ends it."""
        return len(self.characters)

    @property
    def vocab_size(self) -> int:
        return len(self.characters) + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.characters)}

    def encode(self, text: str) -> list[int]:
        """An id a character. Raises `TokenizerError` for a character that was not in the training text."""
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            at = next(i for i, character in enumerate(text) if character not in self._ids)
        quoted = repr(text) if len(text) <= _QUOTED else repr(text[:_QUOTED]) + "..."
        raise TokenizerError(
            f"{text[at]!r} (character {at + 1} of {quoted}) was not in the text this tokenizer was trained on; "
            "leave it out, or train on text that has it"
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids say; BOS says nothing. Raises `TokenizerError` for an id that is none."""
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise TokenizerError(f"token {token} is not one of {self.vocab_size:,}")
        return "".join(self.characters[token] for token in ids if token != self.bos_id)

    def document(self, text: str) -> list[int]:
        """BOS, the characters, BOS."""
        return [self.bos_id, *self.encode(text), self.bos_id]

    def to_json(self) -> str:
        document = {"kind": self.kind, "version": 1, "characters": self.characters}
        return json.dumps(document, indent=0, ensure_ascii=False) + "\n"

    def to_bpe_json(self) -> str:
        """The same ids as a tokenizer.json of GPT-2's kind without merges, for tools that have no character tokens.

        BOS is `<|endoftext|>` there and stands before every text. Raises `TokenizerError` for characters beyond ASCII,
        which are several bytes, and so would be several tokens.
        """
        at = next((character for character in self.characters if not character.isascii()), None)
        if at is not None:
            raise TokenizerError(f"{at!r} is a token of its own, which only ASCII can be in byte-level BPE")
        return characters_json(self.characters)

    @staticmethod
    def from_json(text: str) -> CharTokenizer:
        try:
            document: dict[str, Any] = json.loads(text)
            if (document["kind"], document["version"]) != (CharTokenizer.kind, 1):
                raise TokenizerError("its kind or version is another")
            return CharTokenizer(document["characters"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise TokenizerError(f"not a character tokenizer: {error}") from error
