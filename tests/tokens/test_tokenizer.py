"""A tokenizer is read again by its kind."""

from __future__ import annotations

import pytest

from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import Tokenizer, TokenizerError, read_tokenizer


def test_each_kind_is_read_again() -> None:
    tokenizers: list[Tokenizer] = [CharTokenizer("ab"), ChordTokenizer((("", 0), ("m", 0)))]
    for tokenizer in tokenizers:
        again = read_tokenizer(tokenizer.to_json())
        assert again == tokenizer
        assert again.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("text", ['{"kind": "bpe"}', '{"kind": ["char"]}', "{}", "[]"])
def test_an_unknown_kind_is_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(TokenizerError, match="known: char, chord"):
        read_tokenizer(text)
