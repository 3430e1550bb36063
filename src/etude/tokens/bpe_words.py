"""The words of a text counted, and written as the `tokenizers` library is to learn from them.

A word ends where a blank follows what is none, so each by itself is cut into pieces as in its text; it is cut once,
however often it occurs. Several processes count at once, each a run of this file, which `bpe_training` feeds.
"""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

from .bpe_by_hand import alphabet, split
from .patterns import BY_HAND, PATTERNS, PatternName

BETWEEN = b"\xff"  # texts that are counted together; no byte of UTF-8
_LONGEST = 1024  # symbols of a piece: each merge takes time with the length of all pieces that it occurs in
_LINE = 1 << 16  # symbols
_REMEMBERED = 1 << 25  # characters
_WORD = re.compile(r"\s*\S+(?:[^\S \n]\s*\S*)*|\s+")
_SYMBOLS = {byte: symbol for symbol, byte in alphabet().items()}
_LENGTH = struct.Struct("<Q")


class Words(dict[str, str]):
    """The pieces of each word, in symbols for bytes, with a blank behind each."""

    def __init__(self, pattern: PatternName) -> None:
        self._pattern, self._remembered = BY_HAND[pattern], 0

    def lines(self, texts: bytes) -> bytes:
        """All words of some texts, `BETWEEN` them, on lines; the same words stand together, which is counted faster."""
        counts = Counter[str]()
        for text in texts.split(BETWEEN):
            counts.update(_WORD.findall(text.decode()))
        return "".join(self._lines(counts)).encode()

    def _lines(self, counts: Counter[str]) -> Iterator[str]:
        size = 0
        for word, count in counts.items():
            pieces = self[word]
            at_once = 1 + _LINE // len(pieces)
            for start in range(0, count, at_once):
                said = pieces * min(at_once, count - start)
                yield said
                size += len(said)
                if size > _LINE:
                    yield "\n"
                    size = 0
        yield "\n"

    def __missing__(self, word: str) -> str:
        # ASCII is its own outline, so the pattern itself will do.
        pieces = self._pattern.findall(word) if word.isascii() else split(word, self._pattern)
        symbols = [piece.encode().decode("latin-1").translate(_SYMBOLS) for piece in pieces]  # a character a byte
        if len(word) > _LONGEST // 4:
            symbols = [each[at : at + _LONGEST] for each in symbols for at in range(0, len(each), _LONGEST)]
        said = " ".join(symbols) + " "
        self._remembered += len(word) + len(said)
        if self._remembered > _REMEMBERED:
            self.clear()
            self._remembered = len(word) + len(said)
        self[word] = said
        return said


def send(file: BinaryIO, message: bytes) -> None:
    """Write a message to another process."""
    file.write(_LENGTH.pack(len(message)))
    file.write(message)
    file.flush()


def receive(file: BinaryIO) -> bytes | None:
    """The next message of another process; None where there is none, or not all of it."""
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    message = file.read(length)
    return message if len(message) == length else None


def _main(pattern: str) -> None:
    words = Words(PATTERNS[PATTERNS.index(pattern)])
    while (texts := receive(sys.stdin.buffer)) is not None:
        send(sys.stdout.buffer, words.lines(texts))


if __name__ == "__main__":
    _main(sys.argv[1])
