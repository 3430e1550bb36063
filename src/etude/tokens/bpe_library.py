"""The process in which the `tokenizers` library learns merges: `bpe_training` starts it, feeds it and may stop it.

Apart, because the library cannot be interrupted, and because one processor can then read while others count. It is run
as a file by itself, so that it imports nothing but the library. Standard input holds texts, eight bytes with its length
before each, and ends with a length of 0; standard output is its tokenizer.json; on standard error the library may tell,
in JSON too, how far it is.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterator
from queue import Queue
from threading import Thread
from typing import Any, BinaryIO

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

_AHEAD = 512  # texts, most of them of 16,000 characters


def main(vocab_size: str, min_count: str, pre_tokenizer: str, tells: str) -> None:
    """Read texts, learn merges, write them."""
    document = json.loads(Tokenizer(models.BPE()).to_str()) | {"pre_tokenizer": json.loads(pre_tokenizer)}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    settings: dict[str, Any] = {
        "vocab_size": int(vocab_size),
        "min_frequency": int(min_count),
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
    }
    try:  # a line a merge takes time to write and to read, so it tells nothing where nobody listens
        told = {"progress_format": "json"} if tells == "yes" else {"show_progress": False}
        trainer = trainers.BpeTrainer(**settings, **told)
    except TypeError:  # an older library only draws bars
        trainer = trainers.BpeTrainer(**settings, show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    sys.stdout.buffer.write(tokenizer.to_str().encode())


def _texts() -> Iterator[str]:
    """The texts, some of them read ahead: the library takes 256 at once, and would count nothing until they came."""
    ahead = Queue[str | None](_AHEAD)
    Thread(target=_read, args=(ahead,), daemon=True).start()
    yield from iter(ahead.get, None)


def _read(ahead: Queue[str | None]) -> None:
    """Without an end there is nobody left to learn for: then, and after a fault, the process ends at once."""
    try:
        with open(0, "rb", closefd=False) as texts:  # not sys.stdin, whose lock Python wants when it ends
            while size := int.from_bytes(_exactly(texts, 8), "little"):
                ahead.put(_exactly(texts, size).decode())
        ahead.put(None)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _exactly(texts: BinaryIO, size: int) -> bytes:
    content = texts.read(size)
    if len(content) < size:
        raise EOFError("the texts ended early")
    return content


if __name__ == "__main__":
    main(*sys.argv[1:])
