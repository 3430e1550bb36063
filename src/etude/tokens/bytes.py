"""Byte tokens: an id is a byte of a text's UTF-8, so every text can be said. One more, 256, is BOS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .bpe_files import characters_json
from .tokenizer import Ids, TokenizerError, check_ids, whole_characters

_BYTES = [bytes([byte]) for byte in range(256)]


@dataclass(frozen=True)
class ByteTokenizer:
    """There is but one: all are equal."""

    kind: ClassVar[str] = "byte"
    vocab_size: ClassVar[int] = 257
    n_writable: ClassVar[int] = 257
    bos_id: ClassVar[int] = 256  # begins a document and ends it
    end_id: ClassVar[int] = 256
    bos_first: ClassVar[bool] = True

    def encode(self, text: str) -> list[int]:
        """An id a byte. Raises `TokenizerError` for half a surrogate pair."""
        return list(whole_characters(text))

    def encode_arrays(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, as arrays of bytes."""
        return [np.frombuffer(whole_characters(text), np.uint8) for text in texts]

    def cut(self, text: str, start: int) -> int:
        """Anywhere."""
        return min(start, len(text))

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """What each id says; BOS says nothing."""
        check_ids(ids, self.vocab_size)
        return [b"" if token == self.bos_id else _BYTES[token] for token in ids]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        return b"".join(self.pieces(ids))

    def decode(self, ids: Sequence[int]) -> str:
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def merges_of(self, token: int) -> list[list[bytes]]:
        """Nothing is merged."""
        return []

    def to_json(self) -> str:
        return json.dumps({"kind": self.kind, "version": 1}, indent=0) + "\n"

    def to_bpe_json(self) -> str:
        """The same ids as a tokenizer.json of GPT-2's kind, in which BOS is `<|endoftext|>`, before every text."""
        return characters_json(b"".join(_BYTES).decode("latin-1"))

    @staticmethod
    def from_json(text: str) -> ByteTokenizer:
        try:
            document = json.loads(text)
            if (document["kind"], document["version"]) != (ByteTokenizer.kind, 1):
                raise TokenizerError("its kind or version is another")
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise TokenizerError(f"not a byte tokenizer: {error}") from error
        return ByteTokenizer()
