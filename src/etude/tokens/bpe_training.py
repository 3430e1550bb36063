"""Learning BPE's merges from text: the pair that is most frequent becomes a token, again and again.

The merges are those that the `tokenizers` library learns from the same text. Most of its time goes into cutting a text
into pieces and writing these in symbols for bytes. Here each word is cut but once (`bpe_words`), by several processes,
and a last one is the library that learns from the words (`bpe_library`); each of them can be stopped at any time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import IO, Any, BinaryIO, cast

from . import bpe_library, bpe_words
from .bpe import BPETokenizer, blank_edge
from .bpe_files import END, document_of
from .bpe_words import BETWEEN, Words, receive, send
from .patterns import PatternName
from .tokenizer import TokenizerError, in_parts, whole_characters

MIN_VOCAB_SIZE = 257  # the bytes and <|endoftext|>
MAX_VOCAB_SIZE = 1 << 20
MIN_COUNT = 2  # a pair that occurs once teaches nothing
_PART, _MAX_PART = 1 << 16, 1 << 20  # characters
_BLOCK = 1 << 22  # characters that are counted together
_MOST_COUNTERS = 8
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
    bytes is counted as several. The same text gives the same bytes. `progress` is called in another thread. Raises
    `TokenizerError`.
    """
    check_vocab_size(vocab_size)
    with (
        _library(vocab_size - 1, min_count, progress) as library,
        closing(_counted(_blocks(documents), pattern)) as counted,
    ):
        to_library, from_library = _pipes(library)
        any_text = False
        for lines in counted:
            any_text = True
            to_library.write(lines)
        if not any_text:
            raise TokenizerError("no text to learn from")
        to_library.close()
        written = from_library.read()
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


def _blocks(documents: Iterable[Iterable[str]]) -> Iterator[bytes]:
    """The documents in blocks, of which each may be counted by itself."""
    block, size = list[bytes](), 0
    for document in documents:
        for part in in_parts(document, blank_edge, _PART, _MAX_PART):
            block.append(whole_characters(part))
            size += len(part)
            if size >= _BLOCK:
                yield BETWEEN.join(block)
                block, size = [], 0
    if block:
        yield BETWEEN.join(block)


def _counted(blocks: Iterator[bytes], pattern: PatternName) -> Generator[bytes, None, None]:
    """The words of each block as lines for the library, in order. One block alone is counted here."""
    first, second = next(blocks, None), next(blocks, None)
    if first is None:
        return
    if second is None:
        yield Words(pattern).lines(first)
        return
    most = min(_MOST_COUNTERS, _cores())
    counters, turn = list[subprocess.Popen[bytes]](), 0
    try:
        for block in chain((first, second), blocks):
            if len(counters) < most:
                counters.append(_start("-m", bpe_words.__name__, pattern, stderr=subprocess.DEVNULL))
            else:  # they work at once, and each has its turn
                yield _answer(counters[turn % most])
            send(_pipes(counters[turn % most])[0], block)
            turn += 1
        for number in range(turn - len(counters), turn):
            yield _answer(counters[number % most])
    except BrokenPipeError:
        raise TokenizerError("a process that counts words ended early, most likely for want of memory") from None
    finally:
        for counter in counters:
            _end(counter)


def _cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _answer(counter: subprocess.Popen[bytes]) -> bytes:
    lines = receive(_pipes(counter)[1])
    if lines is None:
        raise BrokenPipeError
    return lines


def _start(*arguments: str, stderr: int) -> subprocess.Popen[bytes]:
    """A process of Python that is written to and read from."""
    # -P: a file of the current folder must not be taken for a module of Python's.
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-P", *arguments], stdin=pipe, stdout=pipe, stderr=stderr)


def _pipes(process: subprocess.Popen[bytes]) -> tuple[BinaryIO, BinaryIO]:
    """What it reads and what it writes."""
    assert process.stdin is not None and process.stdout is not None
    return cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever it is doing."""
    process.kill()
    process.wait()
    for pipe in _pipes(process):
        with suppress(OSError):  # what was not sent yet
            pipe.close()


@contextmanager
def _library(vocab_size: int, min_count: int, progress: Progress) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the library; it ends with the block, however that ends."""
    settings = (str(vocab_size), str(min_count))
    process, told = _start(str(Path(bpe_library.__file__)), *settings, stderr=subprocess.PIPE), list[str]()
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
        _end(process)
        listener.join()
        process.stderr.close()


def _listen(lines: IO[bytes], progress: Progress, told: list[str]) -> None:
    """Pass on how far the library is; what it says otherwise is kept."""
    for line in lines:
        try:
            found = json.loads(line)
            progress(str(found["stage"]), int(found["current"]), int(found["total"]))
        except (ValueError, KeyError, TypeError):
            told.append(line.decode("utf-8", "replace").strip())
