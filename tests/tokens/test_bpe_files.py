"""A damaged vocabulary is one line that names the file and the fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_by_hand import alphabet
from etude.tokens.bpe_files import MAX_FILE_BYTES, tokenizer_json
from etude.tokens.tokenizer import TokenizerError, read_tokenizer

TOKENS = [*alphabet(), "Ġt", "Ġth", "<|endoftext|>"]
VOCAB = {token: i for i, token in enumerate(TOKENS)}
MERGES = "#version: 0.2\nĠ t\nĠt h\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vocab.json").write_text(json.dumps(VOCAB), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(MERGES, encoding="utf-8")
    return tmp_path


@pytest.fixture
def document(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(tokenizer_json(folder / "vocab.json", folder / "merges.txt"))
    return made


def fault(path: Path) -> str:
    """What is said of it, on one line."""
    with pytest.raises(TokenizerError) as caught:
        BPETokenizer.from_path(path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < len(str(path)) + 200
    return message


def test_the_version_line_is_the_first_line_only(folder: Path) -> None:
    vocab = VOCAB | {"#!": 259, "#version": 260, "version": 261}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("# !\n", encoding="utf-8")
    assert BPETokenizer.from_path(folder).encode("#!") == [259]
    (folder / "merges.txt").write_text("#version: 0.2\n# !\n", encoding="utf-8")
    assert BPETokenizer.from_path(folder).encode("#!") == [259]
    (folder / "merges.txt").write_text("# !\n#version: 0.2\n", encoding="utf-8")
    assert "#version:" in fault(folder)


@pytest.mark.parametrize(
    ("vocab", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a JSON object from tokens to ids"),
        ("{}", "not a JSON object from tokens to ids"),
        (json.dumps(VOCAB | {"Ġth": 256}), "id 256 is both 'Ġt' and 'Ġth'"),
        (json.dumps(VOCAB | {"<|endoftext|>": 300}), "no token has id 258, but one has id 300"),
        (json.dumps(VOCAB | {"Ġt": 10**20}), "no token has id 256"),
        (json.dumps(VOCAB | {"Ġt": "256"}), "the id of 'Ġt' is '256', not a whole number"),
        (json.dumps(VOCAB | {"Ġt": True}), "the id of 'Ġt' is True, not a whole number"),
        (json.dumps(VOCAB | {"Ġt": -1}), "the id of 'Ġt' is -1, not a whole number"),
        (json.dumps(VOCAB | {"": 259}), "token 259 is empty"),
        (json.dumps(VOCAB | {"▁the": 259}), "token '▁the' is not written in GPT-2's symbols for bytes"),
        (json.dumps(VOCAB | {"x y" * 1000: 259}), "x y...' is not written in GPT-2's symbols for bytes"),
        (json.dumps(VOCAB | {"\n": 259}), r"token '\n' is not written"),
    ],
)
def test_a_vocabulary_that_cannot_be(folder: Path, vocab: str, said: str) -> None:
    (folder / "vocab.json").write_text(vocab, encoding="utf-8")
    message = fault(folder)
    assert message.startswith(f"{folder / 'vocab.json'}: ")
    assert said in message or ("x y" in said and "..." in message)


@pytest.mark.parametrize(
    ("merges", "said"),
    [
        (MERGES + "t h\n", "merge 3 joins 't' and 'h', but 'th' is not in the vocabulary"),
        (MERGES + "th e\n", "merge 3 joins 'th' and 'e', but 'th' is not in the vocabulary"),
        (MERGES + "t\n", "line 4 is 't', not two tokens"),
        (MERGES + "t h e\n", "line 4 is 't h e', not two tokens"),
        (MERGES + " t\n", "line 4 is ' t', not two tokens"),
        (MERGES + MERGES, "line 4 is '#version: 0.2'"),
    ],
)
def test_merges_that_cannot_be(folder: Path, merges: str, said: str) -> None:
    (folder / "merges.txt").write_text(merges, encoding="utf-8")
    message = fault(folder)
    assert message.startswith(f"{folder / 'merges.txt'}: ")
    assert said in message or "#version" in said


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer.json"])
def test_a_file_that_cannot_be_read(folder: Path, document: dict[str, Any], name: str) -> None:
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    if name != "tokenizer.json":
        (folder / "tokenizer.json").unlink()
    path = folder / name
    path.write_bytes(b"\xff\xfe{}")
    assert fault(folder).startswith(f"{path}: cannot be read ('utf-8' codec can't decode")
    with path.open("wb") as file:
        os.truncate(file.fileno(), MAX_FILE_BYTES + 1)
    assert fault(folder) == f"{path}: larger than 64 MiB"
    path.unlink()
    path.mkdir()
    assert fault(folder) == f"{path}: cannot be read (Is a directory)"


def test_what_is_not_there_is_named(folder: Path) -> None:
    (folder / "merges.txt").unlink()
    assert fault(folder) == f"{folder / 'merges.txt'}: missing"
    (folder / "vocab.json").unlink()
    assert fault(folder) == f"{folder / 'tokenizer.json'}: missing"
    assert fault(folder / "none") == f"{folder / 'none'}: missing"


def put(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set one thing of a document."""

    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("model", value=[]), "it has no model"),
        (put("model", "type", value="Unigram"), "its model is 'Unigram', not BPE"),
        (put("model", "dropout", value=0.1), "its model has dropout 0.1"),
        (put("model", "end_of_word_suffix", value="</w>"), "its model has end_of_word_suffix '</w>'"),
        (put("model", "ignore_merges", value=True), "its model has ignore_merges True"),
        (put("model", "vocab", value=[["a", 0.0]]), "not a JSON object from tokens to ids"),
        (put("model", "merges", value=None), "its merges are not a list"),
        (put("model", "merges", value=["Ġ t", "Ġth"]), "merge 2 is 'Ġth', not a pair of tokens"),
        (put("model", "merges", value=[["Ġ", "t"], ["Ġ", 3]]), "merge 2 is ['Ġ', 3], not a pair of tokens"),
        (put("model", "merges", value=[["t", "h"]]), "merge 1 joins 't' and 'h', but 'th' is not in the vocabulary"),
        (put("normalizer", value={"type": "NFC"}), "it has a normalizer"),
        (put("pre_tokenizer", value=None), "its pre_tokenizer is not ByteLevel"),
        (put("pre_tokenizer", "type", value="Whitespace"), "its pre_tokenizer is not ByteLevel"),
        (
            put("pre_tokenizer", "add_prefix_space", value=True),
            "its pre_tokenizer does not have add_prefix_space False",
        ),
        (put("pre_tokenizer", "use_regex", value=False), "its pre_tokenizer does not have use_regex True"),
        (put("decoder", value={"type": "WordPiece", "prefix": "##", "cleanup": True}), "its decoder is not ByteLevel"),
        (put("added_tokens", value=None), "its added_tokens are not a list"),
        (put("added_tokens", value=[{"id": 258}]), "an added token has no content"),
        (put("added_tokens", value=[{"id": 259, "content": "<|endoftext|>"}]), "has two ids, 258 and 259"),
        (put("added_tokens", value=[{"id": 258, "content": "<end>"}]), "id 258 is both '<|endoftext|>' and '<end>'"),
        (put("added_tokens", value=[{"id": 260, "content": "<end>"}]), "no token has id 259"),
        (put("added_tokens", value=[{"id": 259, "content": "<x>", "rstrip": True}]), "'<x>' has rstrip"),
        (put("added_tokens", value=[{"id": 259, "content": "\ud800"}]), "holds half a surrogate pair"),
        (put("post_processor", value={"type": "Bert"}), "the tokenizers library cannot read it"),
    ],
)
def test_a_tokenizer_json_of_another_kind_or_damaged(
    folder: Path, document: dict[str, Any], change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert BPETokenizer.from_path(path).vocab_size == 259
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    message = fault(path)
    assert message.startswith(f"{path}: ")
    assert said in message
    with pytest.raises(TokenizerError):
        read_tokenizer(json.dumps(document))


def test_older_files_are_read(document: dict[str, Any]) -> None:
    """GPT-2's own tokenizer.json has no type in its model, and later ones write a merge as a pair."""
    plain = read_tokenizer(json.dumps(document))
    assert isinstance(plain, BPETokenizer)
    del document["model"]["type"]
    del document["pre_tokenizer"]["use_regex"]
    document["model"]["merges"] = [merge.split(" ") for merge in document["model"]["merges"]]
    older = read_tokenizer(json.dumps(document))
    assert isinstance(older, BPETokenizer)
    assert older.encode("that the <|endoftext|>", True) == plain.encode("that the <|endoftext|>", True)


VALUES: list[Any] = [None, True, 0, -1, 3, 1 << 40, 1.5, "", "a", "ByteLevel", "Sequence", [], {}, [[]]]
values: st.SearchStrategy[Any] = st.sampled_from(VALUES).map(deepcopy) | st.text()


@settings(deadline=None)
@given(st.data())
def test_whatever_is_damaged_is_an_error_or_reads_text_rightly(data: st.DataObject) -> None:
    damaged = deepcopy(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = damaged
        while True:
            keys = sorted(set(place) - {"vocab"}) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and data.draw(st.booleans()):
                place = place[key]
                continue
            place[key] = data.draw(values)
            break
    with suppress(TokenizerError):
        tokenizer = BPETokenizer.from_json(json.dumps(damaged))
        text = " that <|endoftext|> é"
        assert tokenizer.decode(tokenizer.encode(text)) == text
        tokenizer.encode(text, allow_special=True)


def whole() -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": byte_level,
        "added_tokens": [{"id": 258, "content": "<|endoftext|>", **flags, "special": True}],
        "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": VOCAB, "merges": ["Ġ t", "Ġt h"]},
    }  # fmt: skip


WHOLE = whole()
