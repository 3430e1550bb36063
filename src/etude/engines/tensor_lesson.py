"""The `tensor` engine's `lesson`: the ladder of docs/ladder in PyTorch, from a table of pairs to a small transformer.

Read from top to bottom: a class a rung, and at the end `Lesson`, which puts together those that its rung has climbed.
Shapes: b windows of t tokens, d is n_embd, h heads of k numbers, V the vocabulary. A matrix is [out, in], used as
x @ W.T. Needs the `train` extra.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from etude.gpt.config import GPTConfig, parameter_shapes


def initial_weights(config: GPTConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """Random numbers of standard deviation 1 in the tables, 1 / sqrt(in) in the matrices; norms begin as the identity.

    A matrix so scaled gives back numbers about as large as those that it gets. The rows of a bigram's table are logits,
    and so random ones: it begins sure of itself, and wrong.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 1:
            weights[name] = np.full(shape, 1 if name.endswith("weight") else 0, np.float32)
        else:
            std = 1 if name in ("wte", "wpe") else 1 / math.sqrt(shape[1])
            weights[name] = np.float32(std) * rng.standard_normal(shape, np.float32)
    return weights


def zeros(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    """A parameter, to be filled by `adopt`."""
    return nn.Parameter(torch.zeros(*shape, dtype=dtype))


def past(t: int, device: torch.device) -> Tensor:
    """Which tokens (columns) each token (row) may look at, itself among them: the lower triangle of [t, t]."""
    return torch.ones(t, t, dtype=torch.bool, device=device).tril()


class Average(nn.Module):
    """Rung `average`: each token becomes the mean of itself and all before it, [b, t, d] -> [b, t, d]."""

    def forward(self, x: Tensor) -> Tensor:
        seen = past(x.shape[1], x.device).to(x.dtype)  # [t, t]
        weights = seen / seen.sum(dim=1, keepdim=True)  # [t, t], each row sums to 1
        return weights @ x  # [t, t], [b, t, d] -> [b, t, d]


class Head(nn.Module):
    """Rung `head`: a mean again, but each token chooses how much of whom. Self-attention, [b, t, d] -> [b, t, d]."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.c_attn = zeros(3 * config.n_embd, config.n_embd, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (x @ self.c_attn.T).chunk(3, dim=-1)  # [b, t, d] -> [b, t, 3d] -> [b, t, d] each
        scores = q @ k.mT / math.sqrt(q.shape[-1])  # [b, t, d], [b, d, t] -> [b, t, t]
        scores = scores.masked_fill(~past(x.shape[1], x.device), -math.inf)  # the future: nothing
        y: Tensor = scores.softmax(dim=-1) @ v  # [b, t, t], [b, t, d] -> [b, t, d]
        return y


class Heads(nn.Module):
    """Rung `heads`: several small heads side by side, and a matrix that mixes what they found."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        d, self.n_head = config.n_embd, config.n_head
        self.c_attn = zeros(3 * d, d, dtype=dtype)
        self.c_proj = zeros(d, d, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = (x @ self.c_attn.T).view(b, t, 3, self.n_head, d // self.n_head)  # [b, t, 3, h, k]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [b, h, t, k] each
        scores = q @ k.mT / math.sqrt(d // self.n_head)  # [b, h, t, k], [b, h, k, t] -> [b, h, t, t]
        scores = scores.masked_fill(~past(t, x.device), -math.inf)
        y = scores.softmax(dim=-1) @ v  # [b, h, t, t], [b, h, t, k] -> [b, h, t, k]
        mixed: Tensor = y.transpose(1, 2).reshape(b, t, d) @ self.c_proj.T  # heads side by side: [b, t, d]
        return mixed


class MLP(nn.Module):
    """Rung `mlp`: what a token gathered it now works on by itself, [b, t, d] -> [b, t, d]."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        d = config.n_embd
        self.c_fc = zeros(4 * d, d, dtype=dtype)
        self.c_proj = zeros(d, 4 * d, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.c_fc.T) @ self.c_proj.T  # [b, t, d] -> [b, t, 4d] -> [b, t, d]


class Norm(nn.Module):
    """Rung `norm`: LayerNorm. Each token's numbers get mean 0 and variance 1, then a learnt scale and shift."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.bias = zeros(config.n_embd, dtype=dtype), zeros(config.n_embd, dtype=dtype)
        self.epsilon = config.layer_norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class Layer(nn.Module):
    """Look at the past, then think: [b, t, d] -> [b, t, d]. From the rung `residual` on, both add to what is there."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.adds = config.climbed("residual")
        self.ln_1: nn.Module = Norm(config, dtype) if config.climbed("norm") else nn.Identity()
        self.attn = _attention(config, dtype)
        self.ln_2: nn.Module = Norm(config, dtype) if config.climbed("norm") else nn.Identity()
        self.mlp: nn.Module = MLP(config, dtype) if config.climbed("mlp") else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if not self.adds:
            thought: Tensor = self.mlp(self.attn(x))  # [b, t, d]
            return thought
        x = x + self.attn(self.ln_1(x))  # [b, t, d]
        out: Tensor = x + self.mlp(self.ln_2(x))  # [b, t, d]
        return out


def _attention(config: GPTConfig, dtype: torch.dtype) -> nn.Module:
    if config.climbed("heads"):
        return Heads(config, dtype)
    return Head(config, dtype) if config.climbed("head") else Average()


class Lesson(nn.Module):
    """The `lesson` architecture, its parameters named and stored as in `parameter_shapes`; all zero until `adopt`."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        v, d = config.vocab_size, config.n_embd
        self.is_table = config.rung == "bigram"
        self.wte = zeros(v, d, dtype=dtype)  # of a bigram d is V
        if self.is_table:
            return
        self.wpe = zeros(config.block_size, d, dtype=dtype)
        self.h = nn.ModuleList(Layer(config, dtype) for _ in range(config.n_layer))
        self.ln_f: nn.Module = Norm(config, dtype) if config.climbed("norm") else nn.Identity()
        self.lm_head = zeros(v, d, dtype=dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [b, t, V] from ids [b, t]; t is at most block_size."""
        x = F.embedding(ids, self.wte)  # [b, t] -> [b, t, d]
        if self.is_table:
            return x  # a token's row is the logits of the next
        x = x + self.wpe[: ids.shape[1]]  # [b, t, d]
        for layer in self.h:
            x = layer(x)  # [b, t, d]
        logits: Tensor = self.ln_f(x) @ self.lm_head.T  # [b, t, d] -> [b, t, V]
        return logits

    def nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """What each target costs, [b, t], after the ids up to its own place, [b, t]."""
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)

    @torch.no_grad()
    def adopt(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a model directory."""
        for name, parameter in self.stored().items():
            parameter.copy_(torch.tensor(weights[name]))

    def export(self) -> dict[str, NDArray[Any]]:
        """The weights as a model directory has them; the arrays are the model's own memory."""
        return {name: parameter.detach().numpy() for name, parameter in self.stored().items()}

    def stored(self) -> dict[str, Tensor]:
        """The parameters by their names in a model directory."""
        return dict(self.named_parameters())
