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
from etude.engines.tensor_modern import TextGPT
from etude.gpt.config import GPTConfig

from .optimizers import Muon, Rows, adamw
from .recipes import TextRecipe

Ids = NDArray[np.integer[Any]]


class Learner:
    """A model with the recipe's optimisers. All of its state is in `tensors`, so that a checkpoint can hold it."""

    def __init__(self, config: GPTConfig, recipe: TextRecipe) -> None:
        compute = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self.model = make_model(config, recipe.dropout, compute=compute)
        parameters = list(self.model.parameters())
        self.muon: Muon | None = None
        self.rows: Rows | None = None
        if isinstance(self.model, TextGPT):
            matrices = self.model.matrices()
            self.muon, self.rows = Muon(matrices, 0.0), Rows(self.model.ngrams)
            muon_ids = {id(matrix) for matrix in matrices}
            parameters = [parameter for parameter in parameters if id(parameter) not in muon_ids]
        decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim == 1]
        self.adam = adamw([(decayed, recipe.weight_decay), (others, 0.0)], (recipe.beta1, recipe.beta2))

    def step(self, rows: Ids, recipe: TextRecipe, step: int) -> float:
        """One optimiser step on rows of tokens [b, t + 1]; returns the loss before it, in nats a token."""
        self.model.train()
        tokens = torch.from_numpy(rows.astype(np.int64))
        ids, targets, known = tokens[:, :-1], tokens[:, 1:], None
        if isinstance(self.model, TextGPT):
            seen = self.model.rows(ids)  # [b, t, lengths]
            if recipe.ngram_dropout:
                seen *= torch.rand(seen.shape) >= recipe.ngram_dropout
            known = self.model.known(seen).requires_grad_()  # [b, t, d]
            loss = self.model.nats(ids, targets, known).mean()
        else:
            loss = self.model.nats(ids, targets).mean()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        share = schedule(recipe, step)
        for group in self.adam.param_groups:
            group["lr"] = recipe.learning_rate * share
        self.adam.step()
        self.adam.zero_grad()
        if self.muon is not None:
            self.muon.step(recipe.matrix_learning_rate * share)
            self.muon.zero_grad()
        if self.rows is not None and known is not None and known.grad is not None:
            self.rows.step(seen.flatten(0, 1), known.grad.flatten(0, 1), recipe.ngram_learning_rate * share)
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
            tensors |= {f"adam.{key}.{name}": tensor for key, tensor in self.adam.state.get(parameter, {}).items()}
        if self.muon is not None:
            tensors |= {f"muon.{index}": buffer for index, buffer in enumerate(self.muon.buffers)}
        if self.rows is not None:
            tensors |= {"model.ngrams": self.rows.table, "rows.mean_squares": self.rows.mean_squares}
            tensors["rows.steps"] = self.rows.steps
        return tensors


def schedule(recipe: TextRecipe, step: int) -> float:
    """A step's share of the recipe's rates, counted from 0: it rises linearly, then falls along half a cosine."""
    if step < recipe.warmup:
        return (step + 1) / (recipe.warmup + 1)
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    final = recipe.final_learning_rate / recipe.learning_rate if recipe.learning_rate else 0.0
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
