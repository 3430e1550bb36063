"""The `tensor` engine: the same GPT in PyTorch, for training. Needs the `train` extra.

Shapes as in `array`: b sequences of t tokens, d is n_embd, h heads of k numbers, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from etude.gpt.config import N_MATCH, GPTConfig, parameter_shapes

from .array import EPSILON, ROPE_BASE


def rms_norm(x: Tensor) -> Tensor:
    """As in `array`."""
    return F.rms_norm(x, (x.shape[-1],), eps=EPSILON)


def rotary_table(block_size: int, head_size: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [block_size, k/2] of every position's angles."""
    half = head_size // 2
    frequency = ROPE_BASE ** (-torch.arange(half, dtype=torch.float32) / half)  # [k/2]
    angle = torch.arange(block_size, dtype=torch.float32)[:, None] * frequency  # [block_size, k/2]
    return angle.cos(), angle.sin()


class Dropout(nn.Module):
    """Drops channels of the residual stream for a whole sequence (Gal and Ghahramani 2016): one mask [b, 1, d].

    A mask a sequence needs t times fewer random numbers than a mask a token (docs/log.md).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, x.shape[2]) >= self.rate
        scaled: Tensor = x * keep.to(x.dtype).div_(1 - self.rate)
        return scaled


class FeatureTable(nn.Module):
    """A table [V, d] whose rows are sums: one row of their own and one for each feature of the token.

    Tokens that share a feature (a root, a quality) share what is learnt of it; a model directory holds the sums.
    """

    def __init__(self, rows: int, width: int, features: Tensor | None, spread: float) -> None:
        super().__init__()
        self.features = features  # [V, n_features] or None
        own_spread = spread if features is None else 0.25 * spread
        self.own = nn.Parameter(torch.randn(rows, width) * own_spread)
        if features is not None:
            self.shared = nn.Parameter(torch.randn(int(features.max()) + 1, width) * spread)

    def forward(self) -> Tensor:
        if self.features is None:
            return self.own
        return self.own + F.embedding(self.features, self.shared).sum(dim=1)  # [V, n_features, d] -> [V, d]


class Block(nn.Module):
    """One layer: attention, then an MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig, dropout: float) -> None:
        super().__init__()
        d = config.n_embd
        self.n_head, self.head_size = config.n_head, config.head_size
        self.c_attn = nn.Parameter(torch.empty(3 * d, d).uniform_(-1, 1) * (3 / d) ** 0.5)
        self.attn_proj = nn.Parameter(torch.zeros(d, d))
        self.scale = nn.Parameter(torch.full((config.n_head,), 1.2))
        self.c_fc = nn.Parameter(torch.empty(4 * d, d).uniform_(-1, 1) * (3 / d) ** 0.5)
        self.mlp_proj = nn.Parameter(torch.zeros(d, 4 * d))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(rms_norm(x), cos, sin))  # [b, t, d]
        hidden = F.relu(rms_norm(x) @ self.c_fc.T).square()  # [b, t, d] -> [b, t, 4d]
        out: Tensor = x + self.dropout(hidden @ self.mlp_proj.T)  # [b, t, 4d] -> [b, t, d]
        return out

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = (x @ self.c_attn.T).view(b, t, 3, self.n_head, self.head_size)  # [b, t, 3, h, k]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [b, h, t, k] each
        q, k = rotate(rms_norm(q), cos, sin), rotate(rms_norm(k), cos, sin)
        q = q * self.scale[:, None, None]  # the scale is learnt, so attention itself multiplies by 1
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)  # [b, h, t, k]
        return y.transpose(1, 2).reshape(b, t, d) @ self.attn_proj.T  # [b, t, d]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [b, h, t, k], cos and sin [t, k/2]."""
    a, b = x.chunk(2, dim=-1)  # [b, h, t, k/2] each
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class GPT(nn.Module):
    """The `modern` architecture, trainable. `features` [V, n] ties rows of the embedding and of the head together.

    Rows are looked up by `F.embedding`: the gradient of plain indexing is summed in no fixed order by several threads.
    """

    def __init__(self, config: GPTConfig, features: NDArray[np.int64] | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        v, d = config.vocab_size, config.n_embd
        shapes = parameter_shapes(config)
        table = None if features is None else torch.from_numpy(features)
        self.wte = FeatureTable(v, d, table, 0.4)
        self.previous = nn.Parameter(torch.zeros(shapes["previous"]))
        self.match = nn.Parameter(torch.empty(shapes["match"]).uniform_(-1, 1) * d**-0.5)
        self.match_length = nn.Parameter(torch.randn(shapes["match_length"]))
        self.match_gate = nn.Parameter(torch.zeros(shapes["match_gate"]))
        self.blocks = nn.ModuleList(Block(config, dropout) for _ in range(config.n_layer))
        self.lm_head = FeatureTable(v, d, table, 0.0)
        self.lm_bias = nn.Parameter(torch.zeros(v))
        self.dropout = Dropout(dropout / 2)
        self.cos, self.sin = rotary_table(config.block_size, config.head_size)

    def forward(self, ids: Tensor, found: Tensor, lengths: Tensor) -> Tensor:
        """Logits [b, t, V] from ids [b, t] and what `find_matches` says of them, [b, t, N_MATCH] each."""
        t = ids.shape[1]
        wte = self.wte()  # [V, d]
        before = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)  # [b, t]; the first token stands before itself
        x = F.embedding(ids, wte) + F.embedding(before, wte) @ self.previous.T  # [b, t, d]
        for m in range(N_MATCH):
            seen = (lengths[:, :, m] > 0).unsqueeze(-1).to(x.dtype)  # [b, t, 1]
            x = x + seen * (F.embedding(found[:, :, m], wte) @ self.match[m].T)  # [b, t, d]
            x = x + F.embedding(lengths[:, :, m], self.match_length[m])  # [b, t, d]
        x = self.dropout(rms_norm(x))
        cos, sin = self.cos[:t], self.sin[:t]
        for block in self.blocks:
            x = block(x, cos, sin)  # [b, t, d]
        logits: Tensor = rms_norm(x) @ self.lm_head().T + self.lm_bias  # [b, t, d] -> [b, t, V]
        gates = self.match_gate * (torch.arange(self.match_gate.shape[1]) > 0)  # a match of length 0 is none
        for m in range(N_MATCH):
            gate = F.embedding(lengths[:, :, m], gates[m].unsqueeze(-1))  # [b, t, 1]
            logits = logits.scatter_add(2, found[:, :, m : m + 1], gate)
        return logits

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices of the layers, which Muon trains."""
        return [p for block in self.blocks for p in block.parameters() if p.ndim == 2]

    @torch.no_grad()
    def export(self) -> dict[str, NDArray[np.float32]]:
        """The parameters under the names of `parameter_shapes`, sums taken."""
        tensors = {"wte": self.wte(), "lm_head": self.lm_head(), **self._stored()}
        return {name: tensor.detach().float().numpy().copy() for name, tensor in tensors.items()}

    @torch.no_grad()
    def adopt(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Take over the weights of a model directory; the shared rows of feature tables become zero."""
        for table, name in ((self.wte, "wte"), (self.lm_head, "lm_head")):
            table.own.copy_(torch.from_numpy(weights[name]))
            if table.features is not None:
                table.shared.zero_()
        for name, parameter in self._stored().items():
            parameter.copy_(torch.from_numpy(weights[name]))

    def _stored(self) -> dict[str, Tensor]:
        """The parameters that a model directory holds as they are, by its names for them."""
        stored: dict[str, Tensor] = {
            "previous": self.previous,
            "match": self.match,
            "match_length": self.match_length,
            "match_gate": self.match_gate,
            "lm_bias": self.lm_bias,
        }
        for layer, module in enumerate(self.blocks):
            block = cast(Block, module)
            stored[f"h.{layer}.attn.c_attn"] = block.c_attn
            stored[f"h.{layer}.attn.c_proj"] = block.attn_proj
            stored[f"h.{layer}.attn.scale"] = block.scale
            stored[f"h.{layer}.mlp.c_fc"] = block.c_fc
            stored[f"h.{layer}.mlp.c_proj"] = block.mlp_proj
        return stored
