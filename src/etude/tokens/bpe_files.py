"""The files of a BPE vocabulary, read and checked: vocab.json with merges.txt, and Hugging Face's tokenizer.json.

Whatever is wrong with one is a single line that says what.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .bpe_by_hand import Ranks, alphabet
from .patterns import PATTERNS, PatternName, find_pattern, pre_tokenizer
from .tokenizer import TokenizerError

END = "<|endoftext|>"  # stands between GPT-2's documents
MAX_FILE_BYTES = 64 << 20
_BYTES = alphabet()
# Settings of a model in a tokenizer.json with which it gives other ids than GPT-2's way, or other ids each time.
_OTHER_BPE = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")


@dataclass(frozen=True, slots=True)
class BPETables:
    """What a tokenizer.json says, checked."""

    pieces: tuple[bytes, ...]  # by id
    ranks: Ranks
    added: frozenset[int]  # ids that are found in a text as they stand, not by merges
    missing: frozenset[int]  # bytes that no token says
    end_id: int | None
    pattern: PatternName

    @staticmethod
    def read(text: str) -> BPETables:
        """From the text of a tokenizer.json."""
        document = _json(text)
        model = document.get("model") if isinstance(document, dict) else None
        if not isinstance(document, dict) or not isinstance(model, dict):
            raise TokenizerError("not a tokenizer.json: it has no model")
        if model.get("type", "BPE") != "BPE":  # GPT-2's own file is older than this key
            raise TokenizerError(f"its model is {_quoted(model['type'])}, not BPE")
        for name in _OTHER_BPE:
            if model.get(name):
                raise TokenizerError(f"its model has {name} {_quoted(model[name])}, which GPT-2's kind of BPE has not")
        if document.get("normalizer") is not None:
            raise TokenizerError("it has a normalizer, which changes a text; GPT-2's kind of BPE has none")
        pattern = _pattern(document.get("pre_tokenizer"))
        decoder = document.get("decoder")
        if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
            raise TokenizerError("its decoder is not ByteLevel, so it is not GPT-2's kind of BPE")
        added = _added(document.get("added_tokens", []))
        ids = _vocabulary(model.get("vocab"))
        pieces = _pieces(ids, added)
        return BPETables(
            pieces=pieces,
            ranks=_ranks(_merge_items(model.get("merges")), ids, pieces),
            added=frozenset(added.values()),
            missing=frozenset(byte for symbol, byte in _BYTES.items() if symbol not in ids),
            end_id=added.get(END, ids.get(END)),
            pattern=pattern,
        )


def tokenizer_json(vocab: Path, merges: Path) -> str:
    """The two files that GPT-2 is published with, as one tokenizer.json."""
    with named(vocab):
        ids = _vocabulary(_json(read_text(vocab)))
        pieces = _pieces(ids, {})
    with named(merges):
        pairs = _merge_lines(read_text(merges))
        _ranks(pairs, ids, pieces)
    return document_of(ids, pairs)


def characters_json(characters: str, byte_fallback: bool = False) -> str:
    """A tokenizer.json in which each of these bytes, written as in Latin-1, is a token, and no pair is merged.

    Ids are in their order. The id after them is `<|endoftext|>`, which encoding puts before a text. With
    `byte_fallback` 256 more follow, a byte each; those of bytes that have a token already are in no text, and are named
    `<0x41>`.
    """
    symbols = {byte: symbol for symbol, byte in _BYTES.items()}
    ids = {symbols[ord(character)]: number for number, character in enumerate(characters)} | {END: len(characters)}
    for byte in range(256 if byte_fallback else 0):
        ids[f"<0x{byte:02X}>" if symbols[byte] in ids else symbols[byte]] = len(characters) + 1 + byte
    first, text = {"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    second = {"Sequence": {"id": "B", "type_id": 0}}
    document = json.loads(document_of(ids, [])) | {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, first, second],
            "special_tokens": {END: {"id": END, "ids": [ids[END]], "tokens": [END]}},
        }
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read_text(path: Path) -> str:
    """A file's text, up to a size that no vocabulary needs. Raises `TokenizerError`, which `named` tells the name."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise TokenizerError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        return content.decode("utf-8")
    except FileNotFoundError as error:
        raise TokenizerError("missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error


@contextmanager
def named(path: Path) -> Iterator[None]:
    """A fault is told with the file it is in."""
    try:
        yield
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error


def _pattern(settings: object) -> PatternName:
    """How a text is cut before any merge."""
    found = find_pattern(settings)
    if found is not None:
        return found
    if isinstance(settings, dict) and settings.get("type") == "ByteLevel":
        for name, value in (("add_prefix_space", False), ("use_regex", True)):
            if settings.get(name, value) is not value:
                raise TokenizerError(f"its pre_tokenizer does not have {name} {value}, as GPT-2's has")
    raise TokenizerError(
        f"its pre_tokenizer is not ByteLevel, so it is not GPT-2's kind of BPE, nor is it the pattern {PATTERNS[1]}"
    )


def _vocabulary(vocab: object) -> dict[str, int]:
    if not isinstance(vocab, dict) or not vocab:
        raise TokenizerError("its vocabulary is not a JSON object from tokens to ids")
    for token, number in vocab.items():
        _check_id(token, number)
    return vocab


def _added(items: object) -> dict[str, int]:
    """The tokens that stand outside the merges, such as `<|endoftext|>`."""
    if not isinstance(items, list):
        raise TokenizerError("its added_tokens are not a list")
    added: dict[str, int] = {}
    for item in items:
        if not isinstance(item, dict) or not isinstance(item.get("content"), str):
            raise TokenizerError(f"an added token has no content: {_quoted(item)}")
        for flag in ("lstrip", "rstrip", "single_word"):
            if item.get(flag):
                raise TokenizerError(
                    f"its added token {_quoted(item['content'])} has {flag}, which takes blanks out of a text or "
                    "leaves it unseen in a word; set it to false"
                )
        _check_id(item["content"], item.get("id"))
        added[item["content"]] = item["id"]
    return added


def _check_id(token: str, number: object) -> None:
    if not token:
        raise TokenizerError(f"token {_quoted(number)} is empty")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise TokenizerError(f"the id of {_quoted(token)} is {_quoted(number)}, not a whole number from 0")


def _pieces(ids: dict[str, int], added: dict[str, int]) -> tuple[bytes, ...]:
    """What each id says, in the order of ids: they must be 0, 1, 2, ..., each once."""
    tokens: dict[int, str] = {}
    for token, number in (*ids.items(), *added.items()):
        if tokens.setdefault(number, token) != token:
            raise TokenizerError(f"id {number} is both {_quoted(tokens[number])} and {_quoted(token)}")
        if ids.get(token, number) != number:
            raise TokenizerError(f"{_quoted(token)} has two ids, {ids[token]} and {number}")
    hole = next((number for number in range(len(tokens)) if number not in tokens), None)
    if hole is not None:
        raise TokenizerError(f"no token has id {hole}, but one has id {max(tokens)}; ids must have no holes")
    in_order = (tokens[number] for number in range(len(tokens)))
    return tuple(_content(token) if token in added else _said(token) for token in in_order)


def _said(token: str) -> bytes:
    """The bytes that a token of the vocabulary stands for."""
    try:
        return bytes([_BYTES[symbol] for symbol in token])
    except KeyError as error:
        raise TokenizerError(f"token {_quoted(token)} is not written in GPT-2's symbols for bytes") from error


def _content(token: str) -> bytes:
    """The bytes of an added token, which is written as it is."""
    try:
        return token.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(f"added token {_quoted(token)} holds half a surrogate pair") from error


def _merge_lines(text: str) -> list[tuple[str, str]]:
    """The pairs of a merges.txt: a line each, after a first line with the version."""
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        a, blank, b = line.removesuffix("\r").partition(" ")
        if not (a or blank) or (number == 1 and line.startswith("#version")):
            continue
        if not a or not b or " " in b:
            raise TokenizerError(f"line {number} is {_quoted(line)}, not two tokens with a blank between them")
        pairs.append((a, b))
    return pairs


def _merge_items(items: object) -> list[tuple[str, str]]:
    """The pairs of a tokenizer.json: `"a b"`, or `["a", "b"]` as it is written since 2024."""
    if not isinstance(items, list):
        raise TokenizerError("its merges are not a list")
    pairs = []
    for number, item in enumerate(items, 1):
        pair = item.split(" ") if isinstance(item, str) else item
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(token, str) for token in pair):
            raise TokenizerError(f"merge {number} is {_quoted(item)}, not a pair of tokens")
        pairs.append((pair[0], pair[1]))
    return pairs


def _ranks(pairs: list[tuple[str, str]], ids: dict[str, int], pieces: Sequence[bytes]) -> Ranks:
    """The order in which the pairs were learnt. What they join and what they make must be in the vocabulary."""
    for number, (a, b) in enumerate(pairs, 1):
        for token in (a, b, a + b):
            if token not in ids:
                raise TokenizerError(
                    f"merge {number} joins {_quoted(a)} and {_quoted(b)}, but {_quoted(token)} is not in the vocabulary"
                )
    return {(pieces[ids[a]], pieces[ids[b]]): rank for rank, (a, b) in enumerate(pairs)}


def document_of(ids: dict[str, int], pairs: Sequence[tuple[str, str]], pattern: PatternName = "gpt2") -> str:
    """A tokenizer.json with the settings that Hugging Face's own file for GPT-2 has, but for the pattern."""
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[END], "content": END, **plain, "special": True}] if END in ids else [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(pattern),
        "post_processor": {**byte_level, "trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": dict(sorted(ids.items(), key=lambda item: item[1])),
            "merges": [f"{a} {b}" for a, b in pairs],
        },
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _json(text: str) -> object:
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"not JSON ({one_line(error)})") from error
    return document


def _quoted(value: object) -> str:
    """As Python writes it, on one line and not too long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(error: Exception) -> str:
    """What an error says, likewise."""
    return _quoted(str(error))[1:-1]
