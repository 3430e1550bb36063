"""The process in which the `tokenizers` library learns merges: `bpe_training` starts it, feeds it and may stop it.

Apart, because the library cannot be interrupted, and because one processor can then read while others count. It is run
as a file by itself, so that it imports nothing but the library. Standard input holds texts, eight bytes with its length
before each; standard output is the model, in JSON; on standard error the library may tell, in JSON too, how far it is.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def main(vocab_size: str, min_count: str, pre_tokenizer: str, tells: str) -> None:
    """Read texts, learn merges, write the model."""
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
    json.dump(json.loads(tokenizer.to_str())["model"], sys.stdout)


def _texts() -> Iterator[str]:
    while head := sys.stdin.buffer.read(8):
        yield sys.stdin.buffer.read(int.from_bytes(head, "little")).decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
