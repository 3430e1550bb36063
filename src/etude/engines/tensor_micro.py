"""The `tensor` engine's `micro`: the smallest GPT in PyTorch, run and trained. Needs the `train` extra.

Shapes as in `array`: b documents of t tokens, d is n_embd, h heads of k numbers, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from etude.gpt.config import GPTConfig

from .array import MICRO_EPSILON

_IGNORE = -1  # a target that costs nothing: padding


def rms_norm(x: Tensor) -> Tensor:
    """As in `array`."""
    return F.rms_norm(x, (x.shape[-1],), eps=MICRO_EPSILON)


class Attention(nn.Module):
    """Causal attention of several heads, [b, t, d] -> [b, t, d]."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        d = config.n_embd
        self.n_head, self.head_size = config.n_head, config.head_size
        self.c_attn = nn.Parameter(torch.zeros(3 * d, d, dtype=dtype))
        self.c_proj = nn.Parameter(torch.zeros(d, d, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = (x @ self.c_attn.T).view(b, t, 3, self.n_head, self.head_size)  # [b, t, 3, h, k]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [b, h, t, k] each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # [b, h, t, k]
        return y.transpose(1, 2).reshape(b, t, d) @ self.c_proj.T  # [b, t, d]


class MLP(nn.Module):
    """Two matrices with a ReLU between, [b, t, d] -> [b, t, d]."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        d = config.n_embd
        self.c_fc = nn.Parameter(torch.zeros(4 * d, d, dtype=dtype))
        self.c_proj = nn.Parameter(torch.zeros(d, 4 * d, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.c_fc.T) @ self.c_proj.T  # [b, t, d] -> [b, t, 4d] -> [b, t, d]


class Layer(nn.Module):
    """Attention, then an MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.attn, self.mlp = Attention(config, dtype), MLP(config, dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(rms_norm(x))  # [b, t, d]
        out: Tensor = x + self.mlp(rms_norm(x))  # [b, t, d]
        return out


class MicroGPT(nn.Module):
    """The `micro` architecture, its parameters named as in `parameter_shapes`; all zero until `adopt`."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        v, d = config.vocab_size, config.n_embd
        self.wte = nn.Parameter(torch.zeros(v, d, dtype=dtype))
        self.wpe = nn.Parameter(torch.zeros(config.block_size, d, dtype=dtype))
        self.lm_head = nn.Parameter(torch.zeros(v, d, dtype=dtype))
        self.h = nn.ModuleList(Layer(config, dtype) for _ in range(config.n_layer))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [b, t, V] from ids [b, t]."""
        x = rms_norm(F.embedding(ids, self.wte) + self.wpe[: ids.shape[1]])  # [b, t, d]
        for layer in self.h:
            x = layer(x)  # [b, t, d]
        return x @ self.lm_head.T  # [b, t, d] -> [b, t, V]

    @torch.no_grad()
    def adopt(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a model directory."""
        for name, parameter in self.named_parameters():
            parameter.copy_(torch.tensor(weights[name]))


class TensorTrainer:
    """Trains `MicroGPT` with Adam (Kingma and Ba 2015), a padded batch a step. See `training.micro.Trainer`."""

    def __init__(
        self,
        config: GPTConfig,
        weights: Mapping[str, NDArray[Any]],
        documents: Sequence[Sequence[int]],
        *,
        batch_size: int,
        precision: str,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        say: Callable[[str], None],
    ) -> None:
        self._model = MicroGPT(config, torch.float32 if precision == "float32" else torch.float64)
        self._model.adopt(weights)
        self._documents = documents
        self._learning_rate, self._beta1, self._beta2, self._epsilon = learning_rate, beta1, beta2, epsilon
        self._parameters: list[Tensor] = list(self._model.parameters())
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]

    def run(self, order: NDArray[np.int64], first_step: int, total_steps: int) -> NDArray[np.float64]:
        losses = np.zeros(len(order))
        for index, row in enumerate(order):
            ids, targets = self._batch(row)
            logits = self._model(ids)  # [b, t, V]
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=_IGNORE)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            self._step(first_step + index, total_steps)
            losses[index] = loss.item()
        return losses

    def state(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.detach().numpy().copy() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.tensor(state[name]))

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for (name, weight), first, second in zip(
            self._model.named_parameters(), self._first, self._second, strict=True
        ):
            tensors |= {f"weights.{name}": weight, f"first.{name}": first, f"second.{name}": second}
        return tensors

    def _batch(self, row: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Ids and the targets one token on, [b, t] each, of the documents of a row; documents are causal, so padding
        behind them changes nothing before it."""
        documents = [self._documents[number] for number in row if number >= 0]
        t = max(map(len, documents)) - 1
        ids = torch.zeros(len(documents), t, dtype=torch.int64)
        targets = torch.full_like(ids, _IGNORE)
        for i, document in enumerate(documents):
            tokens = torch.tensor(document)
            ids[i, : len(document) - 1], targets[i, : len(document) - 1] = tokens[:-1], tokens[1:]
        return ids, targets

    @torch.no_grad()
    def _step(self, step: int, total_steps: int) -> None:
        """One step of Adam with bias correction, its rate falling linearly to 0; gradients are forgotten."""
        rate = self._learning_rate * (1 - step / total_steps)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        torch._foreach_mul_(self._first, self._beta1)
        torch._foreach_add_(self._first, gradients, alpha=1 - self._beta1)
        torch._foreach_mul_(self._second, self._beta2)
        torch._foreach_addcmul_(self._second, gradients, gradients, value=1 - self._beta2)
        spread = torch._foreach_div(self._second, 1 - self._beta2 ** (step + 1))
        torch._foreach_sqrt_(spread)
        torch._foreach_add_(spread, self._epsilon)
        size = -rate / (1 - self._beta1 ** (step + 1))
        torch._foreach_addcdiv_(self._parameters, self._first, spread, value=size)
        for parameter in self._parameters:
            parameter.grad = None
