"""GPT-2's byte-level BPE by hand: the tokenizer to read. `bpe.py` gives the same ids faster.

`split` cuts a text into pieces (words, numbers, marks, gaps) that no token crosses. `merges` starts from a piece's
single bytes and joins the two neighbours whose merge was learnt first, again and again, until no pair is a learnt one.
`encode` looks up what is left. Bytes, not characters: 256 tokens to start from, and any text can be said.

Sources: Sennrich et al. 2016, arXiv:1508.07909 (byte-pair encoding of words); Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners", 2.2 (of bytes); openai/gpt-2, src/encoder.py (the pattern and the files' alphabet).
"""

import json
import re
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import count, pairwise

Ranks = dict[tuple[bytes, bytes], int]
# A contraction; a word, a number or a run of marks, each with one blank before it; a gap that leaves its last blank to
# what follows. GPT-2 says \p{L} for A-Za-z and \p{N} for \d, which `re` lacks, so it reads the text's outline.
GPT2 = re.compile(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?\d+| ?[^\sA-Za-z\d]+|\s+(?!\S)|\s+", re.ASCII)
# The letters and numbers that Unicode 15 to 16 added: `tokenizers` knows them, Python only from 3.14 on.
_LETTERS = """01C89-01C8A 0A7CB-0A7CD 0A7DA-0A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 1123F-11240
        11380-11389 1138B-1138B 1138E-1138E 11390-113B5 113B7-113B7 113D1-113D1 113D3-113D3 11BC0-11BE0 11F02-11F02
        11F04-11F10 11F12-11F33 1342F-1342F 13441-13446 13460-143FA 16100-1611D 16D40-16D6C 18CFF-18CFF 1B132-1B132
        1B155-1B155 1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0-1E5F0 2B739-2B739 2EBF0-2EE5D 31350-323AF"""
_NUMBERS = """10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16D70-16D79 1CCF0-1CCF9 1D2C0-1D2D3
        1E4F0-1E4F9 1E5F1-1E5FA"""
_ADDED = {
    chr(code): outline
    for outline, ranges in (("a", _LETTERS), ("1", _NUMBERS))
    for r in ranges.split()
    for code in range(int(r[:5], 16), int(r[6:], 16) + 1)
} | dict.fromkeys("♯♭°△", "#")  # marks as well, which the pattern of chord text tells from others


@cache
def _outline(character: str) -> str:
    """An ASCII character of the same class: letter, number, space or mark. ASCII is its own outline."""
    if character in _ADDED or character.isascii():
        return _ADDED.get(character, character)
    return "a" if character.isalpha() else "1" if character.isnumeric() else "\t" if character.isspace() else "!"


def split(text: str, pattern: re.Pattern[str] = GPT2) -> list[str]:
    """The pieces, in order; together they are the text. Exact for all of Unicode 16, as `tokenizers` has it."""
    return [text[match.start() : match.end()] for match in pattern.finditer("".join(map(_outline, text)))]


def merges(piece: bytes, ranks: Ranks) -> Iterator[list[bytes]]:
    """Every state of a piece from single bytes to tokens. A merge of lower rank goes first, then one further left."""
    parts = [bytes([byte]) for byte in piece]
    while True:
        yield parts
        _, i = min(((ranks[pair], i) for i, pair in enumerate(pairwise(parts)) if pair in ranks), default=(0, -1))
        if i < 0:
            return
        parts = [*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]]


def encode(text: str, ids: dict[bytes, int], ranks: Ranks, pattern: re.Pattern[str] = GPT2) -> list[int]:
    """The tokens of a text. Time grows with the square of a piece's length: for reading, not for books."""
    last_states = (deque(merges(piece.encode(), ranks), maxlen=1).pop() for piece in split(text, pattern))
    return [ids[part] for state in last_states for part in state]


def alphabet() -> dict[str, int]:
    """The visible character that stands for each byte in a vocabulary's files: Latin-1's own, or one from 256 on."""
    visible, others = {*range(33, 127), *range(161, 173), *range(174, 256)}, count(256)
    return {chr(byte if byte in visible else next(others)): byte for byte in range(256)}


def read(vocab_json: str, merges_txt: str) -> tuple[dict[bytes, int], Ranks]:
    """`ids` and `ranks` as `encode` takes them, from the text of the two files that GPT-2 is published with."""
    byte = alphabet()
    ids = {bytes(byte[c] for c in token): i for token, i in json.loads(vocab_json).items()}
    lines = merges_txt.removeprefix("#version: 0.2\n").split("\n")
    pairs = [tuple(bytes(byte[c] for c in part) for part in line.split(" ")) for line in lines if line]
    return ids, {(a, b): rank for rank, (a, b) in enumerate(pairs)}
