"""What a step of training on text changes: a model and its optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from etude.engines.tensor_engine import make_model
from etude.engines.tensor_modern import TextGPT
from etude.gpt.config import GPTConfig

from .device import CPU, Device, compiling, product_type
from .distributed import Objective, fill, gradients_of, reshard, share, whole
from .optimizers import Muon, Rows, adamw
from .ranks import ALONE, Ranks
from .recipes import TextRecipe

Ids = NDArray[np.integer[Any]]


class Learner:
    """A model with the recipe's optimisers. All of its state is in `tensors`, so that a checkpoint can hold it.

    In several processes each has a learner, and all do the same at the same time.
    """

    def __init__(self, config: GPTConfig, recipe: TextRecipe, ranks: Ranks = ALONE, device: Device = CPU) -> None:
        self.ranks, self.device = ranks, device
        compute = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self.model = make_model(config, recipe.dropout, compute=compute)
        if not recipe.shard or ranks.size == 1:  # what does not fit a device is moved there shard by shard
            self.model.to(device.name)
        self.objective = share(Objective(self.model, device.fused), ranks, recipe.shard)
        self.mean_nats: Callable[..., Tensor] = self.objective
        if device.compile or recipe.compile == "yes":
            torch.compiler.reset()  # what this process compiled before would change how the step rounds
            self.mean_nats = torch.compile(self.objective, dynamic=False)
        self.settled = ranks.size < 3 or recipe.shard
        parameters = list(self.model.parameters())
        self.muon: Muon | None = None
        self.rows: Rows | None = None
        if isinstance(self.model, TextGPT):
            matrices = self.model.matrices()
            self.muon = Muon(matrices, recipe.matrix_weight_decay, product_type(device.name))
            self.rows = Rows(self.model.ngrams)
            muon_ids = {id(matrix) for matrix in matrices}
            parameters = [parameter for parameter in parameters if id(parameter) not in muon_ids]
        decayed, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim == 1]
        self.adam = adamw([(decayed, recipe.weight_decay), (others, 0.0)], (recipe.beta1, recipe.beta2))

    def step(self, rows: Ids, recipe: TextRecipe, step: int) -> Tensor:
        """One optimiser step on rows of tokens [b, t + 1], of all processes; the loss before it, in nats a token.

        The loss stays on the device: who asks for its number waits for the step.
        """
        self.objective.train()
        parts = _parts(self._tokens(self.ranks.own(rows)), recipe.micro_batch_size)
        if not self.settled:
            self._settle(parts[0], recipe)
        loss, known = self._backward(parts, recipe)
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
        if self.rows is not None:
            seen, gradient = (self.ranks.gathered(torch.cat(each)) for each in zip(*known, strict=True))
            self.rows.step(seen, gradient / self.ranks.size, recipe.ngram_learning_rate * share)
        return loss

    def _backward(self, parts: Sequence[Tensor], recipe: TextRecipe) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Sum the gradients of micro-batches [b, t + 1] of one size to those of the whole batch.

        Its mean loss; and of each micro-batch, for `modern`, the rows of n-grams seen [b t, lengths] with the gradient
        [b t, d] of what is known by them.
        """
        total, found = torch.zeros((), device=self.device.name), list[tuple[Tensor, Tensor]]()
        for number, part in enumerate(parts, start=1):
            ids, targets, known = part[:, :-1], part[:, 1:], None
            if isinstance(self.model, TextGPT):
                seen = self.model.rows(ids)  # [b, t, lengths]
                if recipe.ngram_dropout:
                    seen *= torch.rand(seen.shape, device=seen.device) >= recipe.ngram_dropout
                known = self.model.known(seen).requires_grad_()  # [b, t, d]
            with gradients_of(self.objective, number == len(parts)), compiling():
                with self.device.autocast():
                    loss = self.mean_nats(ids, targets, known) / len(parts)
                loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            if known is not None and known.grad is not None:
                found.append((seen.flatten(0, 1), known.grad.flatten(0, 1)))
            total += loss.detach()
        return self.ranks.mean(total), found

    def _settle(self, part: Tensor, recipe: TextRecipe) -> None:
        """Let DDP choose its buckets by a backward pass that changes nothing.

        It does so after its first. The order in which more than two processes' gradients are summed depends on it, and
        a resumed run must round like one that was never stopped.
        """
        with torch.random.fork_rng([self.device.name] if self.device.on_gpu else []):
            self._backward([part], recipe)
        self.objective.zero_grad()
        self.settled = True

    @torch.no_grad()
    def score(self, rows: Ids, at_once: int = 0) -> NDArray[Any]:
        """What every token of rows [b, t + 1] but the first costs, in nats: [b, t]; all, or so many rows at once."""
        self.objective.eval()
        share = -(-len(rows) // self.ranks.size)
        # Every process scores as many rows, the last ones again where they do not go round.
        own = self.ranks.own(rows[np.minimum(np.arange(share * self.ranks.size), len(rows) - 1)])
        with self.device.autocast():
            found = [self.objective(part[:, :-1], part[:, 1:]) for part in _parts(self._tokens(own), at_once)]
        reshard(self.objective)
        nats: NDArray[Any] = self.ranks.gathered(torch.cat(found))[: len(rows)].float().cpu().numpy()
        return nats

    def _tokens(self, rows: Ids) -> Tensor:
        tokens = torch.from_numpy(rows.astype(np.int64))
        # From pinned memory a copy goes on beside what the GPU computes.
        return tokens.pin_memory().to(self.device.name, non_blocking=True) if self.device.on_gpu else tokens

    def adopt(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a model directory."""
        for name, tensor in self.model.stored().items():
            fill(tensor, torch.tensor(weights[name]))

    def weights(self) -> dict[str, NDArray[Any]]:
        """The weights as a model directory has them; on a processor the arrays are the model's own memory."""
        return {name: whole(tensor) for name, tensor in self.model.stored().items()}

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


def _parts(tokens: Tensor, size: int) -> Sequence[Tensor]:
    """Rows [b, t + 1] in micro-batches of `size`; 0 for all at once."""
    parts: Sequence[Tensor] = tokens.split(size or len(tokens))  # type: ignore[no-untyped-call]
    return parts


def repeated(recipe: TextRecipe, tokens: int) -> float:
    """The share of a run's tokens that it has seen before, if it goes round a text of so many: none in one round."""
    return max(0.0, 1 - tokens / (recipe.steps * recipe.batch_size * recipe.block_size))


def schedule(recipe: TextRecipe, step: int) -> float:
    """A step's share of the recipe's rates, counted from 0: it rises linearly, then falls along half a cosine."""
    warmup = int(recipe.warmup if recipe.warmup >= 1 else recipe.warmup * recipe.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, recipe.steps - warmup)
    final = recipe.final_learning_rate / recipe.learning_rate if recipe.learning_rate else 0.0
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
