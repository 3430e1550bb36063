"""Character tokens: every distinct character of the training text is an id, in the order of their code points.

One more id, BOS, stands before each document and ends it. With a byte fallback the 256 bytes come after it, and a
character that was not in the training text is the bytes of its UTF-8, so that every text can be read. A model never
writes these: the text that its tokenizer was made of has none, so it does not know where they stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .bpe_files import characters_json
from .tokenizer import Ids, TokenizerError, check_ids, whole_characters

_QUOTED = 40  # characters of a text that an error shows
_BYTES = [bytes([byte]) for byte in range(256)]


@dataclass(frozen=True)
class CharTokenizer:
    """`characters` are sorted and distinct; the first has id 0. Raises `TokenizerError` where they are not."""

    characters: str
    byte_fallback: bool = False
    kind: ClassVar[str] = "char"
    bos_first: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.characters, str) or any(a >= b for a, b in pairwise(self.characters)):
            raise TokenizerError("its characters must be a string, sorted and each once")
        if any("\ud800" <= character <= "\udfff" for character in self.characters):
            raise TokenizerError("its characters hold half a surrogate pair, which is no character")
        if not isinstance(self.byte_fallback, bool):
            raise TokenizerError(f"its byte_fallback must be true or false, not {self.byte_fallback!r}")

    @staticmethod
    def train(documents: Iterable[str], byte_fallback: bool = False) -> CharTokenizer:
        """Take every character that occurs. Documents may be many gigabytes: they are looked at one by one."""
        seen = np.zeros(0x110000, bool)
        for text in documents:
            seen[_code_points(text)] = True
        return CharTokenizer("".join(map(chr, np.flatnonzero(seen).tolist())), byte_fallback)

    @property
    def bos_id(self) -> int:
        """Begins a document and ends it."""
        return len(self.characters)

    @property
    def end_id(self) -> int:
        return self.bos_id

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    @property
    def n_writable(self) -> int:
        """All but the bytes."""
        return self.bos_id + 1

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: i for i, character in enumerate(self.characters)}

    @cached_property
    def _pieces(self) -> list[bytes]:
        """What each id says; BOS says nothing."""
        return [*(character.encode() for character in self.characters), b"", *(_BYTES if self.byte_fallback else ())]

    @cached_property
    def _table(self) -> NDArray[np.int32]:
        """The id of each code point, -1 where there is none; the last entry stands for all beyond."""
        codes = _code_points(self.characters)
        table = np.full(int(codes.max(initial=0)) + 2, -1, np.int32)
        table[codes] = np.arange(len(codes))
        return table

    def encode(self, text: str) -> list[int]:
        """An id a character, or one a byte of a character that was not in the training text.

        Raises `TokenizerError` for such a character where there is no byte fallback, and for half a surrogate pair.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            return [int(token) for token in self._encode(text)]

    def encode_arrays(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, by a table of code points."""
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> NDArray[np.int32]:
        codes = _code_points(text)
        ids = self._table.take(codes, mode="clip")  # [n]
        unknown = np.flatnonzero(ids < 0)
        if not len(unknown):
            return ids
        if not self.byte_fallback:
            at = int(unknown[0])
            quoted = repr(text) if len(text) <= _QUOTED else repr(text[:_QUOTED]) + "..."
            raise TokenizerError(
                f"{text[at]!r} (character {at + 1} of {quoted}) was not in the text this tokenizer was trained on; "
                "leave it out, or train on text that has it"
            )
        whole_characters(text)  # half a surrogate pair has no bytes, and is told with its place
        others, counts = codes[unknown], np.ones(len(ids), np.int64)
        for first in (0x80, 0x800, 0x10000):  # from which on UTF-8 takes a byte more
            counts[unknown] += others >= first
        ids = np.repeat(ids, counts)
        said = np.frombuffer(others.tobytes().decode("utf-32-le").encode(), np.uint8)
        ids[ids < 0] = self.bos_id + 1 + said.astype(np.int32)
        return ids

    def cut(self, text: str, start: int) -> int:
        """Anywhere."""
        return min(start, len(text))

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """What each id says; BOS says nothing. Raises `TokenizerError` for an id that is none."""
        check_ids(ids, self.vocab_size)
        return [self._pieces[token] for token in ids]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Exactly what ids say."""
        return b"".join(self.pieces(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids say; bytes that are no UTF-8 are shown as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def document(self, text: str) -> list[int]:
        """BOS, the characters, BOS."""
        return [self.bos_id, *self.encode(text), self.bos_id]

    def merges_of(self, token: int) -> list[list[bytes]]:
        """Nothing is merged."""
        return []

    def to_json(self) -> str:
        document: dict[str, Any] = {"kind": self.kind, "version": 1, "characters": self.characters}
        if self.byte_fallback:
            document["byte_fallback"] = True
        return json.dumps(document, indent=0, ensure_ascii=False) + "\n"

    def to_bpe_json(self) -> str:
        """The same ids as a tokenizer.json of GPT-2's kind without merges, for tools that have no character tokens.

        BOS is `<|endoftext|>` there and stands before every text. Raises `TokenizerError` for characters beyond ASCII,
        which are several bytes, and so would be several tokens.
        """
        at = next((character for character in self.characters if not character.isascii()), None)
        if at is not None:
            raise TokenizerError(f"{at!r} is a token of its own, which only ASCII can be in byte-level BPE")
        return characters_json(self.characters, self.byte_fallback)

    @staticmethod
    def from_json(text: str) -> CharTokenizer:
        try:
            document: dict[str, Any] = json.loads(text)
            if (document["kind"], document["version"]) != (CharTokenizer.kind, 1):
                raise TokenizerError("its kind or version is another")
            return CharTokenizer(document["characters"], document.get("byte_fallback", False))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise TokenizerError(f"not a character tokenizer: {error}") from error


def _code_points(text: str) -> NDArray[np.uint32]:
    """[n]."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
