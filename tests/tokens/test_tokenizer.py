"""A tokenizer is read again by its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import Tokenizer, TokenizerError, find_tokenizer, read_tokenizer


def test_each_kind_is_read_again() -> None:
    tokenizers: list[Tokenizer] = [
        CharTokenizer("ab"),
        CharTokenizer("ab", True),
        ByteTokenizer(),
        ChordTokenizer((("", 0), ("m", 0))),
    ]
    for tokenizer in tokenizers:
        again = read_tokenizer(tokenizer.to_json())
        assert again == tokenizer
        assert again.vocab_size == tokenizer.vocab_size


@pytest.mark.parametrize("text", ['{"kind": "bpe"}', '{"kind": ["char"]}', "{}", "[]"])
def test_an_unknown_kind_is_refused_with_those_that_are_known(text: str) -> None:
    with pytest.raises(TokenizerError, match="known: char, byte, chord"):
        read_tokenizer(text)


def test_a_tokenizer_is_found_in_a_file_or_a_folder(tmp_path: Path, shared_gpt2: Path) -> None:
    file = tmp_path / "tokenizer.json"
    for tokenizer in (CharTokenizer("ab"), ByteTokenizer()):
        file.write_text(tokenizer.to_json())
        assert find_tokenizer(file) == find_tokenizer(tmp_path) == tokenizer
    assert find_tokenizer(shared_gpt2).vocab_size == 50257
    file.write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: not a tokenizer of a known kind"):
        find_tokenizer(tmp_path)
    with pytest.raises(TokenizerError, match="none: missing"):
        find_tokenizer(tmp_path / "none")
