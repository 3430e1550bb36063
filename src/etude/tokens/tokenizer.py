"""What all tokenizers share: how they are saved and read again. A model never travels without its tokenizer.

Characters and chords are saved in our own JSON, which has a `kind`; BPE in Hugging Face's, which has a `model`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar, Protocol

from etude.errors import EtudeError

if TYPE_CHECKING:
    from .bpe import BPETokenizer
    from .characters import CharTokenizer
    from .chords import ChordTokenizer


class TokenizerError(EtudeError):
    """What a tokenizer cannot say, or a damaged tokenizer file."""


class Tokenizer(Protocol):
    """Ids run from 0 to `vocab_size` - 1; `kind` names what reads it again."""

    kind: ClassVar[str]

    @property
    def vocab_size(self) -> int: ...

    def to_json(self) -> str: ...


def read_tokenizer(text: str) -> BPETokenizer | CharTokenizer | ChordTokenizer:
    """The tokenizer that `to_json` wrote, of whatever kind. Raises `TokenizerError`."""
    from .bpe import BPETokenizer  # here, because each kind raises the error above
    from .characters import CharTokenizer
    from .chords import ChordTokenizer

    kinds: dict[str, type[CharTokenizer] | type[ChordTokenizer]] = {
        each.kind: each for each in (CharTokenizer, ChordTokenizer)
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
    return kinds[kind].from_json(text)
