"""Character tokens: any text comes back, and what is no tokenizer is one clear error."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from etude.tokens.bpe import BPETokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import StreamDecoder, TokenizerError, read_tokenizer

TOKENIZER = CharTokenizer.train(["emma", "olivia"])
FALLBACK = CharTokenizer.train(["emma", "olivia é"], byte_fallback=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_back(documents: list[str]) -> None:
    tokenizer = CharTokenizer.train(documents)
    assert list(tokenizer.characters) == sorted(set("".join(documents)))
    for text in documents:
        ids = tokenizer.document(text)
        assert (ids[0], ids[-1]) == (tokenizer.bos_id,) * 2
        assert ids[1:-1] == tokenizer.encode(text) == [tokenizer.characters.index(c) for c in text]
        assert tokenizer.decode(ids) == text
    assert [ids.tolist() for ids in tokenizer.encode_arrays(documents)] == list(map(tokenizer.encode, documents))
    assert read_tokenizer(tokenizer.to_json()) == tokenizer


def test_ids_are_in_the_order_of_the_characters_and_bos_is_the_last() -> None:
    assert TOKENIZER.characters == "aeilmov"
    assert (TOKENIZER.encode("eva"), TOKENIZER.bos_id, TOKENIZER.vocab_size) == ([1, 6, 0], 7, 8)


def test_an_unknown_character_is_named_with_its_place() -> None:
    with pytest.raises(TokenizerError, match="'x'") as caught:
        TOKENIZER.encode("maxim")
    assert "character 3 of 'maxim'" in str(caught.value)
    assert "train on text that has it" in str(caught.value)
    with pytest.raises(TokenizerError) as long:
        TOKENIZER.encode("a" * 100_000 + "\n")
    assert r"'\n' (character 100,001" in str(long.value) or r"'\n' (character 100001" in str(long.value)
    assert len(str(long.value)) < 300


@given(texts | st.text(st.sampled_from("aeé€\U0001f600\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff")))
def test_with_a_byte_fallback_every_text_can_be_said(text: str) -> None:
    """By the definition, character by character."""
    ids = FALLBACK.encode(text)
    known, first = FALLBACK.characters, FALLBACK.bos_id + 1
    wanted = [[known.index(c)] if c in known else [first + byte for byte in c.encode()] for c in text]
    assert ids == [token for each in wanted for token in each] == FALLBACK.encode_arrays(["", text])[1].tolist()
    assert FALLBACK.decode([FALLBACK.bos_id, *ids]) == text
    stream = StreamDecoder(FALLBACK)
    pieces = [stream.feed(token) for token in ids]
    assert "".join(pieces) == text  # whole characters alone, so nothing is left
    assert stream.finish() == ""
    assert FALLBACK.decode_bytes(ids) == text.encode()


def test_a_byte_fallback_is_saved_and_changes_nothing_where_there_is_none() -> None:
    assert (FALLBACK.vocab_size, TOKENIZER.vocab_size) == (len(" aeilmové") + 1 + 256, 8)
    assert read_tokenizer(FALLBACK.to_json()) == FALLBACK
    assert CharTokenizer.from_json(TOKENIZER.to_json()) == TOKENIZER
    assert "byte_fallback" not in TOKENIZER.to_json()  # as it was always written
    with pytest.raises(TokenizerError, match="byte_fallback must be true or false, not 1"):
        CharTokenizer.from_json(FALLBACK.to_json().replace("true", "1"))
    with pytest.raises(TokenizerError, match="character 2 is half a surrogate pair"):
        FALLBACK.encode("x\ud800")
    assert FALLBACK.decode([FALLBACK.bos_id + 1 + 0xE2, 1]) == "\ufffda"  # a character that a model did not finish


@pytest.mark.parametrize("ids", [[-1], [0, 8], [1 << 40]])
def test_ids_that_are_none_are_refused(ids: list[int]) -> None:
    with pytest.raises(TokenizerError, match=f"token {ids[-1]} is not one of 8"):
        TOKENIZER.decode(ids)


@pytest.mark.parametrize("characters", ["ba", "aab", "\ud800", ["a", "b"], None, 3])
def test_characters_that_cannot_be_are_refused(characters: object) -> None:
    text = json.dumps({"kind": "char", "version": 1, "characters": characters})
    with pytest.raises(TokenizerError):
        CharTokenizer.from_json(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.text() | json_values.map(json.dumps) | st.dictionaries(
    st.sampled_from(["kind", "version", "characters", "shapes"]), json_values | st.sampled_from(["char", "chord", 1])
).map(json.dumps))  # fmt: skip
def test_junk_is_never_anything_but_a_tokenizer_error(text: str) -> None:
    for read in (CharTokenizer.from_json, read_tokenizer):
        with suppress(TokenizerError):
            read(text)


def test_another_kind_or_version_is_refused() -> None:
    text = TOKENIZER.to_json()
    for damaged in ("", "{}", "[" * 100_000, text[:-3], text.replace(": 1", ": 2"), text.replace('"char"', '"chord"')):
        with pytest.raises(TokenizerError):
            CharTokenizer.from_json(damaged)


@given(texts)
@settings(deadline=None, max_examples=30)
def test_with_a_byte_fallback_the_same_ids_as_byte_level_bpe(text: str) -> None:
    characters = CharTokenizer.train(["emma\n"], byte_fallback=True)
    library = Tokenizer.from_str(characters.to_bpe_json())
    assert library.encode(text).ids == [characters.bos_id, *characters.encode(text)]
    bpe = BPETokenizer.from_json(characters.to_bpe_json())
    assert bpe.encode(text) == characters.encode(text)
    assert (bpe.vocab_size, bpe.end_id) == (characters.vocab_size, characters.bos_id)


@given(st.text(st.characters(max_codepoint=127)))
@settings(deadline=None, max_examples=30)
def test_the_same_ids_as_byte_level_bpe(text: str) -> None:
    """As the tokenizers library reads it: BOS goes before a text, and nothing is merged or split away."""
    characters = CharTokenizer.train([text, "emma"])
    library = Tokenizer.from_str(characters.to_bpe_json())
    assert library.encode(text).ids == characters.document(text)[:-1]
    assert library.decode(characters.encode(text)) == text
    bpe = BPETokenizer.from_json(characters.to_bpe_json())
    assert bpe.encode(text) == characters.encode(text)
    assert (bpe.vocab_size, bpe.end_id) == (characters.vocab_size, characters.bos_id)


def test_characters_of_several_bytes_are_no_bpe() -> None:
    with pytest.raises(TokenizerError, match="'é' is a token of its own, which only ASCII can be in byte-level BPE"):
        CharTokenizer("ané").to_bpe_json()
