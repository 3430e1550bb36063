"""The `tensor` engine's face: a PyTorch model that is started and stepped like the other engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812

from etude.gpt.config import GPTConfig

from . import tensor_gpt2, tensor_lesson
from .tensor_gpt2 import GPT2
from .tensor_lesson import Lesson
from .tensor_micro import MicroGPT
from .tensor_modern import TextGPT


class TensorEngine:
    """It keeps no cache: every step computes the whole context again. Computes in the precision of its weights."""

    def __init__(self, config: GPTConfig, weights: Mapping[str, NDArray[Any]]) -> None:
        self.config, self.ids = config, list[int]()
        dtype = torch.float64 if next(iter(weights.values())).dtype == "float64" else torch.float32
        self._model = MicroGPT(config, dtype) if config.architecture == "micro" else make_model(config, dtype=dtype)
        self._model.adopt(weights)
        self._model.eval()

    def start(self, prompt: Sequence[int]) -> NDArray[Any]:
        last: NDArray[Any] = self.start_all(prompt)[-1]
        return last

    @torch.no_grad()
    def start_all(self, prompt: Sequence[int]) -> NDArray[Any]:
        ids = list(prompt[-self.config.block_size :])
        if not ids or not all(0 <= token < self.config.vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self.config.vocab_size - 1}, and one at least")
        self.ids = ids
        logits: NDArray[Any] = self._model(torch.tensor([self.ids]))[0].numpy()
        return logits

    @torch.no_grad()
    def nats(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What every token of rows of ids [b, t + 1] but the first costs: [b, t]. Nothing is read or remembered."""
        tokens = torch.from_numpy(rows.astype(np.int64))
        logits = self._model(tokens[:, :-1])  # [b, t, V]
        found = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        nats: NDArray[Any] = found.view(len(tokens), -1).numpy()
        return nats

    def step(self, token: int) -> NDArray[Any]:
        kept = self.ids if len(self.ids) < self.config.block_size else self.ids[-(self.config.block_size // 2) :]
        return self.start([*kept, token])


def make_model(
    config: GPTConfig, dropout: float = 0.0, dtype: torch.dtype = torch.float32, compute: torch.dtype = torch.float32
) -> GPT2 | Lesson | TextGPT:
    """A module to train, with random weights until it `adopt`s others; `dropout` is for while it trains.

    `compute` is what `modern` multiplies in while it trains.
    """
    if config.architecture == "modern":
        return TextGPT(config, dropout, compute)
    if config.architecture == "lesson":
        return Lesson(config, dtype)
    return GPT2(config, dropout, dtype)


def initial_weights(config: GPTConfig, seed: int) -> dict[str, NDArray[Any]]:
    """What a new model of text begins with; a seed gives the same."""
    if config.architecture == "modern":
        torch.manual_seed(seed)
        return TextGPT(config).export()
    if config.architecture == "lesson":
        return dict(tensor_lesson.initial_weights(config, seed))
    return dict(tensor_gpt2.initial_weights(config, seed))
