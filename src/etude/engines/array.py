"""The `array` engine: a GPT in NumPy, for the core install. It computes what `tensor` computes and can be stepped.

It computes in the precision of its weights, float32 or float64. Every line that changes a shape says so; d is n_embd,
h the number of heads, k their size, t the number of new tokens, n all tokens so far, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import N_MATCH, GPTConfig

from .matches import MatchFinder

Array = NDArray[Any]  # float32 or float64
ROPE_BASE = 10_000.0
EPSILON = float(np.finfo(np.float32).eps)
MICRO_EPSILON = 1e-5


def rms_norm(x: Array, epsilon: float = EPSILON) -> Array:
    """x over the root of its mean square, along the last axis; no weights (Zhang and Sennrich 2019)."""
    normed: Array = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + epsilon)
    return normed


def softmax(x: Array) -> Array:
    """Positive numbers in the proportions of e^x that sum to one along the last axis."""
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def rotate(x: Array, position: int) -> Array:
    """Rotary positions (Su et al. 2021): x [h, t, k] whose first token stands at `position`."""
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-np.arange(half, dtype=np.float32) / half)  # [k/2]
    angle = np.arange(position, position + x.shape[1], dtype=np.float32)[:, None] * frequency  # [t, k/2]
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]  # [h, t, k/2] each
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)  # [h, t, k]


class ArrayEngine:
    """Start with a prompt, then step by one token; logits out, caches inside.

    A context that outgrows `block_size` goes on with its newest half, computed afresh: positions are counted anew.
    """

    def __init__(self, config: GPTConfig, weights: Mapping[str, Array]) -> None:
        self.config, self.weights = config, weights
        self.ids: list[int] = []
        self._reset()

    def start(self, prompt: Sequence[int]) -> Array:
        """Forget everything, read `prompt` (one token at least), return the logits [V] of the token after it."""
        last: Array = self.start_all(prompt)[-1]
        return last

    def start_all(self, prompt: Sequence[int]) -> Array:
        """As `start`, with the logits [t, V] after each of the prompt's tokens, at most `block_size` of them."""
        self._reset()
        return self._forward(list(prompt[-self.config.block_size :]))

    def step(self, token: int) -> Array:
        """Add one token, return the logits [V] of the one after it."""
        if len(self.ids) == self.config.block_size:
            return self.start([*self.ids[-(self.config.block_size // 2) :], token])
        last: Array = self._forward([token])[-1]
        return last

    def fork(self) -> ArrayEngine:
        """An engine that goes on from here on its own; the weights are shared."""
        twin = ArrayEngine(self.config, self.weights)
        twin.ids, twin._matches = list(self.ids), self._matches.fork()
        twin._keys, twin._values = list(self._keys), list(self._values)
        return twin

    def _reset(self) -> None:
        c = self.config
        empty = np.zeros((c.n_head, 0, c.head_size), self.weights["wte"].dtype)
        self.ids = []
        self._matches = MatchFinder()
        self._keys = [empty] * c.n_layer  # [h, n, k] each
        self._values = [empty] * c.n_layer

    def _forward(self, ids: list[int]) -> Array:
        """The logits [t, V] after each of `ids`, the new tokens."""
        if not ids or not all(0 <= token < self.config.vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self.config.vocab_size - 1}, and one at least")
        logits = self._micro(ids) if self.config.architecture == "micro" else self._modern(ids)
        self.ids.extend(ids)
        return logits

    def _micro(self, ids: list[int]) -> Array:
        w, past = self.weights, len(self.ids)
        x = w["wte"][ids] + w["wpe"][past : past + len(ids)]  # [t, d]
        x = rms_norm(x, MICRO_EPSILON)
        for layer in range(self.config.n_layer):
            q, k, v = self._heads(layer, rms_norm(x, MICRO_EPSILON))  # [h, t, k] each
            x = x + self._attend(layer, q, k, v, self.config.head_size**-0.5)  # [t, d]
            hidden = np.maximum(rms_norm(x, MICRO_EPSILON) @ w[f"h.{layer}.mlp.c_fc"].T, 0)  # [t, d] -> [t, 4d]
            x = x + hidden @ w[f"h.{layer}.mlp.c_proj"].T  # [t, 4d] -> [t, d]
        logits: Array = x @ w["lm_head"].T  # [t, d] -> [t, V]
        return logits

    def _modern(self, ids: list[int]) -> Array:
        w, past = self.weights, len(self.ids)
        matches = [self._matches.add(np.array([token])) for token in ids]
        found = np.concatenate([each for each, _ in matches])  # [t, N_MATCH]
        lengths = np.concatenate([each for _, each in matches])  # [t, N_MATCH]
        before = [self.ids[-1] if self.ids else ids[0], *ids[:-1]]  # the first token stands before itself

        x = w["wte"][ids]  # [t, d]
        x = x + w["wte"][before] @ w["previous"].T  # [t, d]
        for m in range(N_MATCH):
            seen = (lengths[:, m] > 0)[:, None]  # [t, 1]
            x = x + np.where(seen, w["wte"][found[:, m]] @ w["match"][m].T, 0)  # [t, d]
            x = x + w["match_length"][m][lengths[:, m]]  # [t, d]
        x = rms_norm(x)
        for layer in range(self.config.n_layer):
            q, k, v = self._heads(layer, rms_norm(x))  # [h, t, k] each
            q, k = rotate(rms_norm(q), past), rotate(rms_norm(k), past)
            x = x + self._attend(layer, q, k, v, w[f"h.{layer}.attn.scale"][:, None, None])  # [t, d]
            hidden = np.maximum(rms_norm(x) @ w[f"h.{layer}.mlp.c_fc"].T, 0)  # [t, d] -> [t, 4d]
            x = x + np.square(hidden) @ w[f"h.{layer}.mlp.c_proj"].T  # [t, 4d] -> [t, d]
        logits: Array = rms_norm(x) @ w["lm_head"].T + w["lm_bias"]  # [t, d] -> [t, V]
        rows = np.arange(len(ids))
        for m in range(N_MATCH):
            logits[rows, found[:, m]] += np.where(lengths[:, m] > 0, w["match_gate"][m][lengths[:, m]], 0)
        return logits

    def _heads(self, layer: int, x: Array) -> Array:
        """Queries, keys and values [3, h, t, k] of new tokens [t, d]."""
        c = self.config
        qkv = x @ self.weights[f"h.{layer}.attn.c_attn"].T  # [t, d] -> [t, 3d]
        stacked: Array = qkv.reshape(len(x), 3, c.n_head, c.head_size).transpose(1, 2, 0, 3)  # [3, h, t, k]
        return stacked

    def _attend(self, layer: int, q: Array, k: Array, v: Array, scale: float | Array) -> Array:
        """Causal attention of new tokens [h, t, k] to all so far, projected: [t, d]. `scale` is one, or one a head."""
        past, t = self._keys[layer].shape[1], q.shape[1]
        self._keys[layer] = k = np.concatenate([self._keys[layer], k], axis=1)  # [h, n, k]
        self._values[layer] = v = np.concatenate([self._values[layer], v], axis=1)  # [h, n, k]
        scores = scale * (q @ k.transpose(0, 2, 1))  # [h, t, k], [h, k, n] -> [h, t, n]
        visible = np.arange(past + t) <= past + np.arange(t)[:, None]  # [t, n]
        attention = softmax(np.where(visible, scores, np.float32(-np.inf)))  # [h, t, n]
        y = (attention @ v).transpose(1, 0, 2).reshape(t, self.config.n_embd)  # [h, t, k] -> [t, d]
        projected: Array = y @ self.weights[f"h.{layer}.attn.c_proj"].T  # [t, d]
        return projected
