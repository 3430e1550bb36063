"""The `array` engine: a GPT in NumPy, for the core install. It computes what `tensor` computes and can be stepped.

Every line that changes a shape says so; d is n_embd, t the number of new tokens, n all tokens so far, V the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import N_MATCH, GPTConfig

from .matches import MatchFinder

Array = NDArray[np.float32]
ROPE_BASE = 10_000.0
EPSILON = float(np.finfo(np.float32).eps)


def rms_norm(x: Array) -> Array:
    """x over the root of its mean square, along the last axis; no weights (Zhang and Sennrich 2019)."""
    normed: Array = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + EPSILON)
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

    A context that outgrows `block_size` goes on with its newest half, computed afresh.
    """

    def __init__(self, config: GPTConfig, weights: dict[str, Array]) -> None:
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
        empty = np.zeros((c.n_head, 0, c.head_size), np.float32)
        self.ids = []
        self._matches = MatchFinder()
        self._keys = [empty] * c.n_layer  # [h, n, k] each
        self._values = [empty] * c.n_layer

    def _forward(self, ids: list[int]) -> Array:
        w, past = self.weights, len(self.ids)
        if not ids or not all(0 <= token < self.config.vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self.config.vocab_size - 1}, and one at least")
        matches = [self._matches.add(np.array([token])) for token in ids]
        found = np.concatenate([each for each, _ in matches])  # [t, N_MATCH]
        lengths = np.concatenate([each for _, each in matches])  # [t, N_MATCH]
        before = [self.ids[-1] if self.ids else ids[0], *ids[:-1]]  # the first token stands before itself
        self.ids.extend(ids)

        x = w["wte"][ids]  # [t, d]
        x = x + w["wte"][before] @ w["previous"].T  # [t, d]
        for m in range(N_MATCH):
            seen = (lengths[:, m] > 0)[:, None]  # [t, 1]
            x = x + np.where(seen, w["wte"][found[:, m]] @ w["match"][m].T, 0)  # [t, d]
            x = x + w["match_length"][m][lengths[:, m]]  # [t, d]
        x = rms_norm(x)
        for layer in range(self.config.n_layer):
            x = x + self._attention(layer, rms_norm(x), past)  # [t, d]
            x = x + self._mlp(layer, rms_norm(x))  # [t, d]
        logits = rms_norm(x) @ w["lm_head"].T + w["lm_bias"]  # [t, d] -> [t, V]
        rows = np.arange(len(ids))
        for m in range(N_MATCH):
            logits[rows, found[:, m]] += np.where(lengths[:, m] > 0, w["match_gate"][m][lengths[:, m]], 0)
        return logits

    def _attention(self, layer: int, x: Array, past: int) -> Array:
        w, c, t = self.weights, self.config, len(x)
        qkv = x @ w[f"h.{layer}.attn.c_attn"].T  # [t, d] -> [t, 3d]
        q, k, v = qkv.reshape(t, 3, c.n_head, c.head_size).transpose(1, 2, 0, 3)  # [h, t, k] each
        q, k = rotate(rms_norm(q), past), rotate(rms_norm(k), past)
        self._keys[layer] = k = np.concatenate([self._keys[layer], k], axis=1)  # [h, n, k]
        self._values[layer] = v = np.concatenate([self._values[layer], v], axis=1)  # [h, n, k]
        scale = w[f"h.{layer}.attn.scale"][:, None, None]  # [h, 1, 1]
        scores = scale * (q @ k.transpose(0, 2, 1))  # [h, t, k], [h, k, n] -> [h, t, n]
        visible = np.arange(past + t) <= past + np.arange(t)[:, None]  # [t, n]
        attention = softmax(np.where(visible, scores, np.float32(-np.inf)))  # [h, t, n]
        y = (attention @ v).transpose(1, 0, 2).reshape(t, c.n_embd)  # [h, t, k] -> [t, d]
        return y @ w[f"h.{layer}.attn.c_proj"].T  # [t, d]

    def _mlp(self, layer: int, x: Array) -> Array:
        hidden = np.maximum(x @ self.weights[f"h.{layer}.mlp.c_fc"].T, 0)  # [t, d] -> [t, 4d]
        out: Array = np.square(hidden) @ self.weights[f"h.{layer}.mlp.c_proj"].T  # [t, 4d] -> [t, d]
        return out
