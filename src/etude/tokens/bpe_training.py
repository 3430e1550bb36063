"""Learning BPE's merges from text: the pair that is most frequent becomes a token, again and again.

The `tokenizers` library learns them, in a process of its own (`bpe_library`) that can be stopped at any time. It cuts
and counts on all processors; here texts are read for it meanwhile, and given to it in large parts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import IO, Any

from . import bpe_library
from .bpe import BPETokenizer, blank_edge
from .bpe_files import END, document_of
from .patterns import PatternName, pre_tokenizer
from .tokenizer import TokenizerError, in_parts, whole_characters

MIN_VOCAB_SIZE = 257  # the bytes and <|endoftext|>
MAX_VOCAB_SIZE = 1 << 20
MIN_COUNT = 2  # a pair that occurs once teaches nothing
PART, MAX_PART = 1 << 14, 1 << 17
"""Characters that the library is given together; what it notes of larger parts leaves the processor's cache."""

_BUFFER = 1 << 20
_KILLED = (-9, 137)

Progress = Callable[[str, int, int], None]
"""Is told what the library does, and how much of how much of it is done."""


def train_bpe(
    documents: Iterable[Iterable[str]],
    vocab_size: int,
    pattern: PatternName = "gpt2",
    min_count: int = MIN_COUNT,
    progress: Progress | None = None,
) -> BPETokenizer:
    """A vocabulary of the 256 bytes, merges and `<|endoftext|>`, in this order of ids, as GPT-2's.

    Each document comes in pieces, which may be cut anywhere, and is read once; memory grows with the number of
    distinct words alone. Merges end early where no pair of tokens occurs `min_count` times. The same text gives the
    same bytes. `progress` is called in another thread. Raises `TokenizerError`.
    """
    check_vocab_size(vocab_size)
    any_text = False
    with _library(vocab_size - 1, pattern, min_count, progress) as library:
        assert library.stdin is not None and library.stdout is not None
        for document in documents:
            for part in in_parts(document, blank_edge, PART, MAX_PART):
                text, any_text = whole_characters(part), True
                library.stdin.write(len(text).to_bytes(8, "little"))
                library.stdin.write(text)
        if not any_text:
            raise TokenizerError("no text to learn from")
        library.stdin.write(bytes(8))
        library.stdin.close()
        written = library.stdout.read()
        if library.wait():
            raise BrokenPipeError
    model: dict[str, Any] = json.loads(written)["model"]
    ids: dict[str, int] = model["vocab"]
    pairs = [(a, b) for a, b in (each.split(" ") if isinstance(each, str) else each for each in model["merges"])]
    return BPETokenizer(document_of(ids | {END: len(ids)}, pairs, pattern))


def check_vocab_size(vocab_size: int) -> None:
    """Raises `TokenizerError` for one that no vocabulary here has."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise TokenizerError(
            f"a vocabulary has {MIN_VOCAB_SIZE} (the bytes and {END}) to {MAX_VOCAB_SIZE:,} tokens, not {vocab_size:,}"
        )


@contextmanager
def _library(
    vocab_size: int, pattern: PatternName, min_count: int, progress: Progress | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of the library; it ends with the block, however that ends."""
    # -P: a file of its folder, or of the current one, must not be taken for a module of Python's.
    settings = (str(vocab_size), str(min_count), json.dumps(pre_tokenizer(pattern)), "yes" if progress else "no")
    command, pipe, told = [sys.executable, "-P", bpe_library.__file__, *settings], subprocess.PIPE, list[str]()
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=_BUFFER)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
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
        process.wait()
        listener.join()
        with suppress(OSError):  # what was not sent yet
            process.stdin.close()
        process.stdout.close()
        process.stderr.close()


def _listen(lines: IO[bytes], progress: Progress | None, told: list[str]) -> None:
    """Pass on how far the library is; what it says otherwise is kept."""
    for line in lines:
        try:
            found = json.loads(line)
            if progress is not None:
                progress(str(found["stage"]), int(found["current"]), int(found["total"]))
        except (ValueError, KeyError, TypeError):
            told.append(line.decode("utf-8", "replace").strip())
