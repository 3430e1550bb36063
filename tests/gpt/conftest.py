"""A small GPT-2 with a BPE vocabulary that was learnt from a text, for what is written for other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.tokens.bpe import BPETokenizer

TEXT = (
    "Over the hills and far away, the fiddler's playing; we'll dance till day. Don't stop: 1 2 3, 4 5 6!\n\n  Da capo."
)
MakeGPT2 = Callable[..., Path]


def learnt_tokenizer(size: int = 320) -> BPETokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return BPETokenizer.from_json(tokenizer.to_str())


@pytest.fixture
def make_gpt2(tmp_path: Path) -> MakeGPT2:
    """A model directory of random weights; the ids above the tokenizer's are a padded table's."""

    def make(name: str = "m", seed: int = 0, card: str = "", **settings: Any) -> Path:
        tokenizer = learnt_tokenizer()
        sizes = {"vocab_size": 352, "block_size": 256, "n_layer": 2, "n_head": 2, "n_embd": 64} | settings
        config = GPTConfig("gpt2", **sizes, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.end_id)
        rng = np.random.default_rng(seed)
        weights = {
            name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()
        }
        weights["wpe.weight"] *= 30  # so that greedy tokens vary
        save_model(tmp_path / name, config, weights, tokenizer, card)
        return tmp_path / name

    return make
