"""Byte tokens: any text comes back, and other tools read them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from etude.tokens.bpe import BPETokenizer
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.tokenizer import TokenizerError, read_tokenizer

TOKENIZER = ByteTokenizer()
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_any_text_is_its_bytes_and_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert ids == list(text.encode()) == TOKENIZER.encode_arrays(["é", text])[1].tolist()
    assert TOKENIZER.decode([TOKENIZER.bos_id, *ids, TOKENIZER.end_id]) == text
    assert TOKENIZER.cut(text, 3) == min(3, len(text))


def test_it_is_read_again_and_no_other() -> None:
    assert read_tokenizer(TOKENIZER.to_json()) == TOKENIZER
    for damaged in ("", "{}", "[]", '{"kind": "byte"}', json.dumps({"kind": "byte", "version": 2})):
        with pytest.raises(TokenizerError):
            ByteTokenizer.from_json(damaged)


def test_what_is_no_text_and_no_token_is_refused() -> None:
    with pytest.raises(TokenizerError, match="character 2 is half a surrogate pair"):
        TOKENIZER.encode("a\ud800")
    with pytest.raises(TokenizerError, match="character 2 is half a surrogate pair"):
        TOKENIZER.encode_arrays(["a", "a\ud800"])
    with pytest.raises(TokenizerError, match="token 257 is not one of 257"):
        TOKENIZER.decode([257])
    assert TOKENIZER.decode([0xC3, 0xA9, 0xC3]) == "é\ufffd"


@given(texts)
def test_the_same_ids_as_byte_level_bpe(text: str) -> None:
    library, bpe = Tokenizer.from_str(TOKENIZER.to_bpe_json()), BPETokenizer.from_json(TOKENIZER.to_bpe_json())
    assert library.encode(text).ids == [TOKENIZER.bos_id, *TOKENIZER.encode(text)]
    assert bpe.encode(text) == TOKENIZER.encode(text)
    assert (bpe.vocab_size, bpe.end_id) == (257, 256)
