"""The process in which the `tokenizers` library learns merges: `bpe_training` starts it, feeds it and may stop it.

Apart, because the library cannot be interrupted, and because one processor can then read while another counts. It is
run as a file by itself, so that it imports nothing but the library. A line of standard input holds words, a blank
between them, in the symbols that stand for bytes. Standard output is one JSON document; on standard error the library
tells, in JSON too, how far it is.
"""

import json
import sys
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers


def main(vocab_size: int, min_count: int) -> None:
    """Read words, learn merges, write the model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    settings: dict[str, Any] = {
        "vocab_size": vocab_size,
        "min_frequency": min_count,
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
    }
    try:
        trainer = trainers.BpeTrainer(**settings, progress_format="json")
    except TypeError:  # an older library only draws bars
        trainer = trainers.BpeTrainer(**settings, show_progress=False)
    with open(0, encoding="utf-8", newline="\n") as lines:
        tokenizer.train_from_iterator(map(str.rstrip, lines), trainer)
    json.dump(json.loads(tokenizer.to_str())["model"], sys.stdout)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
