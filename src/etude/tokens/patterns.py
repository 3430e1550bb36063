"""How a text is cut into pieces before any merge: no token crosses their edges. GPT-2's way, and one for chord text.

GPT-2 keeps letters, numbers and marks apart, so `F#m` is three tokens at least and `G7` two. In chord text a symbol
stands whole (`F#m7`, `Bb`, `C7(9)`, `G13-9`), and a bass or a second number after a slash is a piece of its own, since
any may follow any symbol (`Bm` `/C`, `G7` `/13`). Marks, such as bar lines, brackets and tablature, are as in GPT-2.

In both a blank belongs to what follows it, so a text may always be cut where a blank follows what is none.
"""

from __future__ import annotations

import re
from typing import Any, Literal, get_args

from . import bpe_by_hand

PatternName = Literal["gpt2", "chords"]
PATTERNS: tuple[PatternName, ...] = get_args(PatternName)

_SIGNS = "♯♭°△"
# As the `tokenizers` library and `transformers` read it. No chord; a symbol, a word or a number; marks; a gap.
_CHORDS = (
    r" ?N\.C\."
    rf"| ?(?:/[#♯♭]?)?[\p{{L}}\p{{N}}](?:[\p{{L}}\p{{N}}#+^{_SIGNS}]|-(?=\p{{N}}))*(?:\([^\s()]+\))?"
    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
# The same of a text's outline, where every letter is one of ASCII's, every number too, and such a sign is a #.
_CHORDS_BY_HAND = re.compile(
    _CHORDS.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", r"\d").replace(_SIGNS, "").replace("♯♭", ""), re.ASCII
)
BY_HAND: dict[PatternName, re.Pattern[str]] = {"gpt2": bpe_by_hand.GPT2, "chords": _CHORDS_BY_HAND}
"""As `bpe_by_hand.split` takes them."""

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def pre_tokenizer(pattern: PatternName) -> dict[str, Any]:
    """What a tokenizer.json says of it."""
    if pattern == "gpt2":
        return dict(_BYTE_LEVEL)
    cut = {"type": "Split", "pattern": {"Regex": _CHORDS}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [cut, _BYTE_LEVEL | {"use_regex": False}]}


def find_pattern(settings: object) -> PatternName | None:
    """The pattern that a tokenizer.json's pre_tokenizer is; None where it is another."""
    return "chords" if settings == pre_tokenizer("chords") else "gpt2" if _is_gpt2(settings) else None


def _is_gpt2(settings: object) -> bool:
    return (
        isinstance(settings, dict)
        and settings.get("type") == "ByteLevel"
        and settings.get("add_prefix_space", False) is False
        and settings.get("use_regex", True) is True
    )
