"""What all tokenizers share: how they are saved and read again. A model never travels without its tokenizer.

Ours are saved in our own JSON, which has a `kind`; BPE in Hugging Face's, which has a `model`. Those of text can all be
asked the same (`TextTokenizer`); what their ids say is bytes, so a character may be several tokens (`StreamDecoder`).
"""

from __future__ import annotations

import json
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError

if TYPE_CHECKING:
    from .chords import ChordTokenizer

TOKENIZER = "tokenizer.json"
Ids = NDArray[np.integer[Any]]


class TokenizerError(EtudeError):
    """What a tokenizer cannot say, or a damaged tokenizer file."""


class Tokenizer(Protocol):
    """Ids run from 0 to `vocab_size` - 1; `kind` names what reads it again."""

    kind: ClassVar[str]

    @property
    def vocab_size(self) -> int: ...

    def to_json(self) -> str: ...


class TextTokenizer(Tokenizer, Protocol):
    """A tokenizer of text."""

    @property
    def bos_id(self) -> int | None:
        """Begins a document, where there is such a token."""

    @property
    def end_id(self) -> int | None:
        """Ends a document, where there is such a token."""

    @property
    def n_writable(self) -> int:
        """The first so many ids are those that a model may write; it may read the others."""

    @property
    def bos_first(self) -> bool:
        """Whether BOS stands before every prompt; if not, before an empty one alone, as for GPT-2."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text. Raises `TokenizerError` for what cannot be said."""

    def encode_arrays(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` of each text, fast."""

    def cut(self, text: str, start: int) -> int:
        """The first place from `start` on where a text may be cut in two whose ids are, together, those of the whole;
        its end where there is none."""

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """What each id says. A piece need not be whole characters. Raises `TokenizerError` for an id that is none."""

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Exactly what ids say."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text that ids say; bytes that are no UTF-8 are shown as U+FFFD."""

    def merges_of(self, token: int) -> list[list[bytes]]:
        """How a token comes about from single bytes, every state of it; empty where nothing is merged."""

    def to_bpe_json(self) -> str:
        """The same ids as a tokenizer.json of GPT-2's kind. Raises `TokenizerError` where there is none."""


class StreamDecoder:
    """Text from ids as they come: a character is given out when its last byte is there.

    What `feed` and, at the end, `finish` give is together what `decode` gives.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer, self._decoder = tokenizer, getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The characters that this id completes; often one or more, sometimes none."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """What is left of a character that never became whole: U+FFFD, or nothing. The decoder begins anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def read_tokenizer(text: str) -> TextTokenizer | ChordTokenizer:
    """The tokenizer that `to_json` wrote, of whatever kind. Raises `TokenizerError`."""
    from .bpe import BPETokenizer  # here, because each kind raises the error above
    from .bytes import ByteTokenizer
    from .characters import CharTokenizer
    from .chords import ChordTokenizer

    kinds: dict[str, Callable[[str], TextTokenizer | ChordTokenizer]] = {
        each.kind: each.from_json for each in (CharTokenizer, ByteTokenizer, ChordTokenizer)
    }
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not a tokenizer: {error}") from error
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind is None and isinstance(document, dict) and "model" in document:  # Hugging Face's tokenizer.json
        return BPETokenizer.from_json(text)
    if not isinstance(kind, str) or kind not in kinds:
        raise TokenizerError(
            f"not a tokenizer of a known kind: {kind!r}; known: {', '.join(kinds)}; or Hugging Face's BPE"
        )
    return kinds[kind](text)


def find_tokenizer(path: Path) -> TextTokenizer | ChordTokenizer:
    """From a tokenizer.json of any kind, a folder with one, or one with GPT-2's vocab.json and merges.txt.

    Raises `TokenizerError` that names the file and the fault.
    """
    from .bpe import BPETokenizer
    from .bpe_files import named, read_text

    if path.is_dir() and not (path / TOKENIZER).exists():
        return BPETokenizer.from_path(path)
    file = path / TOKENIZER if path.is_dir() else path
    with named(file):
        return read_tokenizer(read_text(file))


def in_parts(pieces: Iterable[str], cut: Callable[[str, int], int], size: int, most: int) -> Iterator[str]:
    """A document that comes in pieces, in parts of at least `size` characters, but for the last; `cut` says where.

    A text without a place to cut for more than `most` characters is cut all the same, so that memory is bounded.
    """
    rest = ""
    for piece in pieces:
        text, start = rest + piece, 0
        while (end := cut(text, start + size)) < len(text) or len(text) - start > most:
            yield text[start:end]
            start = end
        rest = text[start:]
    if rest:
        yield rest


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raises `TokenizerError` for an id that is none."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise TokenizerError(f"token {token} is not one of {vocab_size:,}")


def whole_characters(text: str) -> bytes:
    """A text as UTF-8. Raises `TokenizerError` for half a surrogate pair, with its place."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(f"character {error.start + 1} is half a surrogate pair, which is no character") from error
