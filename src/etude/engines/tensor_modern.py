"""The `tensor` engine's `modern`: of chords with what it looks up, of text with what it knows by sight.

Needs the `train` extra. Shapes as in `array`: b sequences of t tokens, d is n_embd, h heads of k numbers, V the
vocabulary. The residual stream is float32; while it trains, products are in the `compute` type, float32 or bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from etude.gpt.config import N_MATCH, GPTConfig, parameter_shapes

from .array import EPSILON, ROPE_BASE
from .ngrams import ngram_rows


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
        keep = torch.rand(x.shape[0], 1, x.shape[2], device=x.device) >= self.rate
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

    def __init__(self, config: GPTConfig, dropout: float, scale: float) -> None:
        super().__init__()
        d = config.n_embd
        self.n_head, self.head_size = config.n_head, config.head_size
        self.c_attn = nn.Parameter(torch.empty(3 * d, d).uniform_(-1, 1) * (3 / d) ** 0.5)
        self.attn_proj = nn.Parameter(torch.zeros(d, d))
        self.scale = nn.Parameter(torch.full((config.n_head,), scale))
        self.c_fc = nn.Parameter(torch.empty(4 * d, d).uniform_(-1, 1) * (3 / d) ** 0.5)
        self.mlp_proj = nn.Parameter(torch.zeros(d, 4 * d))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [b, t, d]; cos and sin [t, k/2] are in the type that products are to be in."""
        dtype = cos.dtype
        x = x + self.dropout(self.attention(rms_norm(x).to(dtype), cos, sin))  # [b, t, d]
        hidden = F.relu(rms_norm(x).to(dtype) @ self.c_fc.to(dtype).T).square()  # [b, t, d] -> [b, t, 4d]
        out: Tensor = x + self.dropout(hidden @ self.mlp_proj.to(dtype).T)  # [b, t, 4d] -> [b, t, d]
        return out

    def attention(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, d = x.shape
        qkv = (x @ self.c_attn.to(x.dtype).T).view(b, t, 3, self.n_head, self.head_size)  # [b, t, 3, h, k]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [b, h, t, k] each
        q, k = rotate(rms_norm(q), cos, sin), rotate(rms_norm(k), cos, sin)
        q = q * self.scale.to(x.dtype)[:, None, None]  # the scale is learnt, so attention itself multiplies by 1
        return attend(q, k, v).transpose(1, 2).reshape(b, t, d) @ self.attn_proj.to(x.dtype).T  # [b, t, d]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, [b, h, t, k] each, by products as they are."""
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        # Written out: the backward pass of PyTorch's own takes two to four times as long there (docs/log.md).
        later = torch.full((q.shape[2], q.shape[2]), -math.inf, dtype=q.dtype).triu(1)  # [t, t]
        return (q @ k.mT + later).softmax(-1) @ v  # [b, h, t, t] -> [b, h, t, k]
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: x [b, h, t, k], cos and sin [t, k/2]."""
    a, b = x.chunk(2, dim=-1)  # [b, h, t, k/2] each
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Trunk(nn.Module):
    """The layers, between embeddings and head. `scale` is what scores are multiplied by at first; it is learnt."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: GPTConfig, dropout: float, compute: torch.dtype, scale: float) -> None:
        super().__init__()
        self.compute = compute
        self.blocks = nn.ModuleList(Block(config, dropout, scale) for _ in range(config.n_layer))
        for name, table in zip(("cos", "sin"), rotary_table(config.block_size, config.head_size), strict=True):
            self.register_buffer(name, table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The residual stream [b, t, d] after all layers, normed, in the type that products are in."""
        dtype = self.compute if self.training else torch.float32
        cos, sin = self.cos[: x.shape[1]].to(dtype), self.sin[: x.shape[1]].to(dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return rms_norm(x).to(dtype)

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices of the layers, which Muon trains."""
        return [p for p in self.parameters() if p.ndim == 2]

    def stored(self) -> dict[str, nn.Parameter]:
        """The parameters by their names in a model directory."""
        stored: dict[str, nn.Parameter] = {}
        for layer, module in enumerate(self.blocks):
            block = cast(Block, module)
            stored[f"h.{layer}.attn.c_attn"] = block.c_attn
            stored[f"h.{layer}.attn.c_proj"] = block.attn_proj
            stored[f"h.{layer}.attn.scale"] = block.scale
            stored[f"h.{layer}.mlp.c_fc"] = block.c_fc
            stored[f"h.{layer}.mlp.c_proj"] = block.mlp_proj
        return stored


class TextGPT(nn.Module):
    """`modern` of text: beside its own row each token has those of the n-grams that it ends, and the head is its table.

    Few rows of the table of n-grams are in a batch, so it is no parameter: training asks for the `known` sums and their
    gradient, and changes the rows itself (`training.optimizers.Rows`).
    """

    ngrams: Tensor

    def __init__(self, config: GPTConfig, dropout: float = 0.0, compute: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        v, d = config.vocab_size, config.n_embd
        # The head too: at every width a token's logit after itself begins at about 5, all others at less than 1.
        self.wte = nn.Parameter(torch.randn(v, d) * (5.12 / d))
        self.trunk = Trunk(config, dropout, compute, config.head_size**-0.5)
        self.lm_bias = nn.Parameter(torch.zeros(v))
        self.dropout = Dropout(dropout / 2)
        self.register_buffer("ngrams", torch.zeros(parameter_shapes(config)["ngrams"]))

    def rows(self, ids: Tensor) -> Tensor:
        """Which rows of `ngrams` ids [b, t] have: [b, t, lengths]."""
        return torch.from_numpy(ngram_rows(ids.numpy(force=True), self.config.ngram_rows)).to(ids.device)

    def known(self, rows: Tensor) -> Tensor:
        """The sums of rows [b, t, lengths]: [b, t, d]."""
        b, t, lengths = rows.shape
        return F.embedding_bag(rows.view(-1, lengths), self.ngrams, mode="sum").view(b, t, -1)

    def forward(self, ids: Tensor, known: Tensor | None = None) -> Tensor:
        """Logits [b, t, V] from ids [b, t]; t is at most block_size."""
        known = self.known(self.rows(ids)) if known is None else known
        x = self.dropout(rms_norm(F.embedding(ids, self.wte) + known))  # [b, t, d]
        x = self.trunk(x)  # [b, t, d]
        logits: Tensor = (x @ self.wte.to(x.dtype).T).float() + self.lm_bias  # [b, t, d] -> [b, t, V]
        return logits

    def nats(self, ids: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """What each target costs, [b, t], after the ids up to its own place, [b, t]."""
        logits = self(ids, known)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices of the layers, which Muon trains."""
        return self.trunk.matrices()

    def export(self) -> dict[str, NDArray[Any]]:
        """The weights as a model directory has them; the arrays are the model's own memory."""
        return {name: tensor.detach().numpy() for name, tensor in self.stored().items()}

    @torch.no_grad()
    def adopt(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over the weights of a model directory."""
        for name, tensor in self.stored().items():
            tensor.copy_(torch.tensor(weights[name]))

    def stored(self) -> dict[str, Tensor]:
        """The tensors by their names in a model directory."""
        return {"wte": self.wte, "ngrams": self.ngrams, "lm_bias": self.lm_bias} | self.trunk.stored()


class ChordGPT(nn.Module):
    """`modern` of chords. `features` [V, n] ties rows of the embedding and of the head together.

    Rows are looked up by `F.embedding`: the gradient of plain indexing is summed in no fixed order by several threads.
    """

    def __init__(
        self,
        config: GPTConfig,
        features: NDArray[np.int64] | None = None,
        dropout: float = 0.0,
        compute: torch.dtype = torch.float32,
    ) -> None:
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
        self.trunk = Trunk(config, dropout, compute, 1.2)  # sharp from the start: a song copies itself
        self.lm_head = FeatureTable(v, d, table, 0.0)
        self.lm_bias = nn.Parameter(torch.zeros(v))
        self.dropout = Dropout(dropout / 2)

    def forward(self, ids: Tensor, found: Tensor, lengths: Tensor) -> Tensor:
        """Logits [b, t, V] from ids [b, t] and what `find_matches` says of them, [b, t, N_MATCH] each."""
        wte = self.wte()  # [V, d]
        before = torch.cat([ids[:, :1], ids[:, :-1]], dim=1)  # [b, t]; the first token stands before itself
        x = F.embedding(ids, wte) + F.embedding(before, wte) @ self.previous.T  # [b, t, d]
        for m in range(N_MATCH):
            seen = (lengths[:, :, m] > 0).unsqueeze(-1).to(x.dtype)  # [b, t, 1]
            x = x + seen * (F.embedding(found[:, :, m], wte) @ self.match[m].T)  # [b, t, d]
            x = x + F.embedding(lengths[:, :, m], self.match_length[m])  # [b, t, d]
        x = self.trunk(self.dropout(rms_norm(x)))  # [b, t, d]
        logits: Tensor = (x @ self.lm_head().to(x.dtype).T).float() + self.lm_bias  # [b, t, d] -> [b, t, V]
        gates = self.match_gate * (torch.arange(self.match_gate.shape[1]) > 0)  # a match of length 0 is none
        for m in range(N_MATCH):
            gate = F.embedding(lengths[:, :, m], gates[m].unsqueeze(-1))  # [b, t, 1]
            logits = logits.scatter_add(2, found[:, :, m : m + 1], gate)
        return logits

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices of the layers, which Muon trains."""
        return self.trunk.matrices()

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
        return {
            "previous": self.previous,
            "match": self.match,
            "match_length": self.match_length,
            "match_gate": self.match_gate,
            "lm_bias": self.lm_bias,
            **self.trunk.stored(),
        }
