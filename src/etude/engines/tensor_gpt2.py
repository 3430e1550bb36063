"""The `tensor` engine's `gpt2`: GPT-2 in PyTorch, run and trained. Needs the `train` extra.

Shapes as in `array`: b sequences of t tokens, d is n_embd, h heads of k numbers, V the vocabulary. Between the layers
the tokens of all sequences stand one after another, [b t, d], so that a product with weights is one of two matrices.
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

from .tensor_loss import mean_nats

INIT_STD = 0.02


def initial_weights(config: GPTConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """GPT-2's own beginning (Radford et al. 2019): matrices from a normal distribution of standard deviation 0.02.

    Those that add to the residual stream have 0.02 over the root of their number, 2 n_layer. Norms begin as the
    identity, biases at 0.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 1:
            is_scale = name.rpartition(".")[0].rpartition(".")[2].startswith("ln_") and name.endswith(".weight")
            weights[name] = np.full(shape, 1 if is_scale else 0, np.float32)
        else:
            std = INIT_STD / (math.sqrt(2 * config.n_layer) if name.endswith("c_proj.weight") else 1)
            weights[name] = np.float32(std) * rng.standard_normal(shape, np.float32)
    return weights


class Table(nn.Module):
    """A table of rows [n, d]: `weight`."""

    def __init__(self, rows: int, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width, dtype=dtype))


class Linear(nn.Module):
    """x @ weight + bias, [n, in] -> [n, out]."""

    def __init__(self, inputs: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class Norm(nn.Module):
    """LayerNorm along the last axis."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.epsilon = config.layer_norm_epsilon
        self.weight = nn.Parameter(torch.zeros(config.n_embd, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(config.n_embd, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class Attention(nn.Module):
    """Causal attention of several heads over sequences of t tokens, [b t, d] -> [b t, d]."""

    def __init__(self, config: GPTConfig, dropout: float, dtype: torch.dtype) -> None:
        super().__init__()
        d = config.n_embd
        self.n_head, self.head_size, self.dropout = config.n_head, config.head_size, dropout
        self.c_attn, self.c_proj = Linear(d, 3 * d, dtype), Linear(d, d, dtype)

    def forward(self, x: Tensor, t: int) -> Tensor:
        qkv = self.c_attn(x).view(-1, t, 3, self.n_head, self.head_size)  # [b, t, 3, h, k]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [b, h, t, k] each
        dropped = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped, is_causal=True)  # [b, h, t, k]
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(x.shape))  # [b t, d]
        return out


class MLP(nn.Module):
    """Two matrices with a GELU between, [b t, d] -> [b t, d]."""

    def __init__(self, config: GPTConfig, dtype: torch.dtype) -> None:
        super().__init__()
        d = config.n_embd
        self.c_fc, self.c_proj = Linear(d, 4 * d, dtype), Linear(4 * d, d, dtype)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))  # [b t, d] -> [b t, 4d] -> [b t, d]
        return out


class Layer(nn.Module):
    """Attention, then an MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, dropout: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.dropout = dropout
        self.ln_1, self.attn = Norm(config, dtype), Attention(config, dropout, dtype)
        self.ln_2, self.mlp = Norm(config, dtype), MLP(config, dtype)

    def forward(self, x: Tensor, t: int) -> Tensor:
        x = x + F.dropout(self.attn(self.ln_1(x), t), self.dropout, self.training)  # [b t, d]
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)  # [b t, d]


class GPT2(nn.Module):
    """The `gpt2` architecture, its parameters named and stored as in `parameter_shapes`; all zero until `adopt`.

    While it trains, `dropout` is the share that is dropped from embeddings, attention and each branch, as in GPT-2.
    """

    def __init__(self, config: GPTConfig, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dropout = dropout
        self.wte = Table(config.vocab_size, config.n_embd, dtype)
        self.wpe = Table(config.block_size, config.n_embd, dtype)
        self.h = nn.ModuleList(Layer(config, dropout, dtype) for _ in range(config.n_layer))
        self.ln_f = Norm(config, dtype)
        self.lm_head = None if config.tie_word_embeddings else Table(config.vocab_size, config.n_embd, dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [b, t, V] from ids [b, t]; t is at most block_size."""
        logits: Tensor = self.hidden(ids) @ self.head.T  # [b t, d] -> [b t, V]
        return logits.view(*ids.shape, -1)

    @property
    def head(self) -> Tensor:
        """The matrix [V, d] that makes logits of hidden states."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    def hidden(self, ids: Tensor) -> Tensor:
        """The states that the head reads, [b t, d], from ids [b, t]."""
        b, t = ids.shape
        x = F.embedding(ids, self.wte.weight) + self.wpe.weight[:t]  # [b, t, d]
        x = F.dropout(x, self.dropout, self.training).view(b * t, -1)  # [b t, d]
        for layer in self.h:
            x = layer(x, t)  # [b t, d]
        normed: Tensor = self.ln_f(x)  # [b t, d]
        return normed

    def nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """What each target costs, [b, t], after the ids up to its own place, [b, t]."""
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)

    def mean_nats(self, ids: Tensor, targets: Tensor) -> Tensor:
        """The mean of `nats`, without logits for more than some tokens at a time."""
        return mean_nats(self.hidden(ids), self.head, targets.flatten())

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
