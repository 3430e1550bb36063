"""What a step of training on text changes: a model and its optimiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.engines.tensor_engine import make_model
from etude.gpt.config import GPTConfig

from .optimizers import adamw
from .recipes import TextRecipe

Ids = NDArray[np.integer[Any]]


class Learner:
    """A model with the recipe's optimiser. All of its state is in `tensors`, so that a checkpoint can hold it."""

    def __init__(self, config: GPTConfig, recipe: TextRecipe) -> None:
        self.model = make_model(config, recipe.dropout)
        parameters = list(self.model.parameters())
        matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim == 1]
        self.adam = adamw([(matrices, recipe.weight_decay), (others, 0.0)], (recipe.beta1, recipe.beta2))

    def step(self, rows: Ids, recipe: TextRecipe, step: int) -> float:
        """One optimiser step on rows of tokens [b, t + 1]; returns the loss before it, in nats a token."""
        self.model.train()
        loss = self._nats(rows).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(recipe, step)
        self.adam.step()
        self.adam.zero_grad()
        return loss.item()

    @torch.no_grad()
    def score(self, rows: Ids) -> NDArray[Any]:
        """What every token of rows [b, t + 1] but the first costs, in nats: [b, t]."""
        self.model.eval()
        nats: NDArray[Any] = self._nats(rows).numpy()
        return nats

    def _nats(self, rows: Ids) -> Tensor:
        tokens = torch.from_numpy(rows.astype(np.int64))
        return self.model.nats(tokens[:, :-1], tokens[:, 1:])

    def adopt(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a model directory."""
        self.model.adopt(weights)

    def weights(self) -> dict[str, NDArray[Any]]:
        """The weights as a model directory has them; the arrays are the model's own memory."""
        return self.model.export()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter
            tensors |= {f"adam.{key}.{name}": tensor for key, tensor in self.adam.state[parameter].items()}
        return tensors


def learning_rate(recipe: TextRecipe, step: int) -> float:
    """The rate of a step, counted from 0: it rises linearly, then falls along half a cosine."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / (recipe.warmup + 1)
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    above = (recipe.learning_rate - recipe.final_learning_rate) * (1 + math.cos(math.pi * done)) / 2
    return recipe.final_learning_rate + above
