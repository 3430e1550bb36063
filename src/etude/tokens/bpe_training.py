"""Learning BPE's merges from text: the pair that is most frequent becomes a token, again and again.

The merges are those that the `tokenizers` library learns from the same text. Most of its time goes into cutting a text
into pieces and writing these in symbols for bytes; here each word is cut once and remembered, so it is faster.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import IO, Any

from . import bpe_library
from .bpe import BPETokenizer, blank_edge
from .bpe_by_hand import alphabet, split
from .bpe_files import END, document_of
from .patterns import BY_HAND, PatternName
from .tokenizer import TokenizerError, in_parts, whole_characters

MIN_VOCAB_SIZE = 257  # the bytes and <|endoftext|>
MAX_VOCAB_SIZE = 1 << 20
MIN_COUNT = 2  # a pair that occurs once teaches nothing
_PART = 1 << 16  # characters that the library is given together
_MAX_PART = 1 << 20
_LONGEST = 1024  # symbols of a piece: each merge takes time with the length of all pieces that it occurs in
_REMEMBERED = 1 << 25  # characters
# Up to where a blank follows what is none, so each by itself is cut as in its text.
_WORD = re.compile(r"\s*\S+(?:[^\S \n]\s*\S*)*|\s+")
_SYMBOLS = {byte: symbol for symbol, byte in alphabet().items()}
_KILLED = (-9, 137)

Progress = Callable[[str, int, int], None]
"""Is told what the library does, and how much of how much of it is done."""


def train_bpe(
    documents: Iterable[Iterable[str]],
    vocab_size: int,
    pattern: PatternName = "gpt2",
    min_count: int = MIN_COUNT,
    progress: Progress = lambda doing, done, total: None,
) -> BPETokenizer:
    """A vocabulary of the 256 bytes, merges and `<|endoftext|>`, in this order of ids, as GPT-2's.

    Each document comes in pieces, which may be cut anywhere, and is read once; memory grows with the number of
    distinct words alone. Merges end early where no pair of tokens occurs `min_count` times. A piece of more than 1,024
    bytes is counted as several. The same text gives the same bytes. Raises `TokenizerError`.
    """
    check_vocab_size(vocab_size)
    words, any_text = _Words(pattern), False
    with _library(vocab_size - 1, min_count, progress) as library:
        assert library.stdin is not None and library.stdout is not None
        for document in documents:
            for text in in_parts(document, blank_edge, _PART, _MAX_PART):
                any_text = True
                library.stdin.write(words.line(text))
        if not any_text:
            raise TokenizerError("no text to learn from")
        library.stdin.close()
        written = library.stdout.read()
        if library.wait():
            raise BrokenPipeError
    model: dict[str, Any] = json.loads(written)
    ids: dict[str, int] = model["vocab"]
    pairs = [(a, b) for a, b in (each.split(" ") if isinstance(each, str) else each for each in model["merges"])]
    return BPETokenizer(document_of(ids | {END: len(ids)}, pairs, pattern))


def check_vocab_size(vocab_size: int) -> None:
    """Raises `TokenizerError` for one that no vocabulary here has."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise TokenizerError(
            f"a vocabulary has {MIN_VOCAB_SIZE} (the bytes and {END}) to {MAX_VOCAB_SIZE:,} tokens, not {vocab_size:,}"
        )


class _Words(dict[str, str]):
    """Words as the library is to count them: their pieces in symbols for bytes, a blank between two."""

    def __init__(self, pattern: PatternName) -> None:
        self._pattern, self._remembered = BY_HAND[pattern], 0

    def line(self, text: str) -> bytes:
        """A text's words, on a line."""
        whole_characters(text)  # half a surrogate pair is told with its place
        return (" ".join(map(self.__getitem__, _WORD.findall(text))) + "\n").encode()

    def __missing__(self, word: str) -> str:
        pieces = (
            piece.encode().decode("latin-1").translate(_SYMBOLS)  # a character a byte
            for piece in split(word, self._pattern)
        )
        said = " ".join(piece[start : start + _LONGEST] for piece in pieces for start in range(0, len(piece), _LONGEST))
        self._remembered += len(word) + len(said)
        if self._remembered > _REMEMBERED:
            self.clear()
            self._remembered = len(word) + len(said)
        self[word] = said
        return said


@contextmanager
def _library(vocab_size: int, min_count: int, progress: Progress) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the library; it ends with the block, however that ends."""
    # -P: a file of its folder, or of the current one, must not be taken for a module of Python's.
    command = [sys.executable, "-P", str(Path(bpe_library.__file__)), str(vocab_size), str(min_count)]
    pipe, told = subprocess.PIPE, list[str]()
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=1 << 16)
    assert process.stderr is not None
    listener = Thread(target=_listen, args=(process.stderr, progress, told), daemon=True)
    listener.start()
    try:
        yield process
    except BrokenPipeError:
        status = process.wait()
        listener.join()
        why = "it was killed, most likely for want of memory" if status in _KILLED else (told or ["without a word"])[-1]
        raise TokenizerError(f"the process that learns merges ended early: {why}") from None
    finally:
        process.kill()
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        listener.join()
        process.stderr.close()
        process.stdout.close()  # type: ignore[union-attr]


def _listen(lines: IO[bytes], progress: Progress, told: list[str]) -> None:
    """Pass on how far the library is; what it says otherwise is kept."""
    for line in lines:
        try:
            found = json.loads(line)
            progress(str(found["stage"]), int(found["current"]), int(found["total"]))
        except (ValueError, KeyError, TypeError):
            told.append(line.decode("utf-8", "replace").strip())
