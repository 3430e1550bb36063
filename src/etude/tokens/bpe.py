"""GPT-2's tokens, and such of other texts: byte-level BPE, run by Hugging Face's `tokenizers`, in its tokenizer.json.

To see how it works read `bpe_by_hand.py`, which gives the same ids: here are only files, checks and speed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .bpe_by_hand import merges
from .bpe_files import BPETables, named, one_line, read_text, tokenizer_json
from .patterns import PatternName
from .tokenizer import TOKENIZER, Ids, TokenizerError, check_ids, whole_characters

if TYPE_CHECKING:  # a model of chords needs no such library
    from tokenizers import Encoding, Tokenizer

VOCAB, MERGES = "vocab.json", "merges.txt"
_EDGE = re.compile(r"[^\s\x1c-\x1f][ \n]")  # a blank for all who count blanks, behind what is none for any


@dataclass(frozen=True)
class BPETokenizer:
    """`text` is a tokenizer.json of GPT-2's kind. Raises `TokenizerError` for any other."""

    text: str = field(repr=False)
    kind: ClassVar[str] = "bpe"
    bos_first: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _ = self._tables, self._plain  # both read all of it, so a fault is known now

    @staticmethod
    def from_json(text: str) -> BPETokenizer:
        """From the text of a tokenizer.json."""
        return BPETokenizer(text)

    @staticmethod
    def from_files(vocab: Path, merges: Path) -> BPETokenizer:
        """From the two files that GPT-2 is published with. Raises `TokenizerError` that names file and fault."""
        return BPETokenizer(tokenizer_json(vocab, merges))

    @staticmethod
    def from_path(path: Path) -> BPETokenizer:
        """From a tokenizer.json, or a folder that holds one, or one that holds vocab.json and merges.txt.

        Raises `TokenizerError` that names the file and the fault.
        """
        if path.is_dir():
            if not (path / TOKENIZER).exists() and (path / VOCAB).exists():
                return BPETokenizer.from_files(path / VOCAB, path / MERGES)
            path /= TOKENIZER
        with named(path):
            return BPETokenizer(read_text(path))

    @property
    def vocab_size(self) -> int:
        return len(self._tables.pieces)

    @property
    def pattern(self) -> PatternName:
        """How a text is cut into the pieces that no token crosses."""
        return self._tables.pattern

    @property
    def n_writable(self) -> int:
        """All."""
        return self.vocab_size

    @property
    def end_id(self) -> int | None:
        """`<|endoftext|>`, 50256 for GPT-2; None where the vocabulary has none."""
        return self._tables.end_id

    @property
    def bos_id(self) -> int | None:
        """GPT-2 begins a document with what ended the one before."""
        return self.end_id

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The ids of a text. `<|endoftext|>` in it is thirteen characters like others, unless `allow_special`.

        Raises `TokenizerError` for what cannot be said: half a surrogate pair, or a byte that a small vocabulary lacks.
        """
        return self._encoding(text, allow_special).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text, on all cores."""
        try:
            found = self._plain.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:
            return [self.encode(text) for text in texts]  # says which text cannot be said
        return [self._checked(text, encoding.ids) for text, encoding in zip(texts, found, strict=True)]

    def encode_arrays(self, texts: Sequence[str]) -> list[Ids]:
        """`encode_batch` as arrays."""
        return [np.array(ids, np.uint32) for ids in self.encode_batch(texts)]

    def cut(self, text: str, start: int) -> int:
        """`blank_edge`; the end where a token of somebody's own could stand across such a place."""
        return len(text) if self._tables.added - {self.end_id} else blank_edge(text, start)

    def steps(self, text: str, allow_special: bool = False) -> list[list[list[bytes]]]:
        """How the ids come about: for each piece of the text every state from single bytes to tokens, a merge apart."""
        encoding, found = self._encoding(text, allow_special), []
        words = zip(encoding.word_ids, encoding.ids, strict=True)
        for _, word in groupby(words, key=lambda pair: pair[0]):
            ids = [token for _, token in word]
            parts = self.pieces(ids)
            whole = ids[0] in self._tables.added  # taken from the text before any merge
            found.append([parts] if whole else list(merges(b"".join(parts), self._tables.ranks)))
        return found

    def merges_of(self, token: int) -> list[list[bytes]]:
        """How one token comes about, as in `steps`. A special token is whole from the start. Raises `TokenizerError`.

        No merge crosses the edges of a token that stands in the end, so its merges are the same in every text.
        """
        (piece,) = self.pieces([token])
        return [[piece]] if token in self._tables.added else list(merges(piece, self._tables.ranks))

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """What each id says. A piece need not be whole characters. Raises `TokenizerError` for an id that is none."""
        check_ids(ids, self.vocab_size)
        return [self._tables.pieces[token] for token in ids]

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Exactly what ids say."""
        return b"".join(self.pieces(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids say; bytes that are no UTF-8 are shown as U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def to_json(self) -> str:
        """The tokenizer.json itself, which `transformers` and `tokenizers` read."""
        return self.text

    def to_bpe_json(self) -> str:
        """The same: it is one."""
        return self.text

    @cached_property
    def _tables(self) -> BPETables:
        return BPETables.read(self.text)

    @cached_property
    def _plain(self) -> Tokenizer:
        """The library's tokenizer, to which special tokens are text."""
        tokenizer = self._library()
        tokenizer.encode_special_tokens = True
        return tokenizer

    @cached_property
    def _special(self) -> Tokenizer:
        """The same that finds them. Two objects, because the setting would be shared between threads."""
        return self._library()

    def _library(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(self.text)
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(f"the tokenizers library cannot read it: {one_line(error)}") from error
        tokenizer.no_truncation()  # a file may ask for either, and both would change a text in silence
        tokenizer.no_padding()
        return tokenizer

    def _encoding(self, text: str, allow_special: bool) -> Encoding:
        tokenizer = self._special if allow_special else self._plain
        try:
            encoding = tokenizer.encode(text, add_special_tokens=False)
        except TypeError:
            whole_characters(text)
            raise
        self._checked(text, encoding.ids)
        return encoding

    def _checked(self, text: str, ids: list[int]) -> list[int]:
        """The library drops a byte that has no token, in silence; here that is an error."""
        missing = self._tables.missing
        if missing and self.decode_bytes(ids) != text.encode():
            for at, character in enumerate(text):
                if missing.intersection(character.encode()):
                    raise TokenizerError(f"no token of this vocabulary says {character!r} (character {at + 1})")
        return ids


def blank_edge(text: str, start: int) -> int:
    """The first place from `start` on where a blank follows what is none; the end where there is none.

    No pattern joins what is no blank with a blank behind it, so a text may be cut between the two.
    """
    found = _EDGE.search(text, max(0, start - 1))
    return found.start() + 1 if found else len(text)
