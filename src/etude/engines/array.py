"""The `array` engine: a GPT in NumPy, for the core install. It computes what `tensor` computes and can be stepped.

It computes in the precision of its weights, float32 or float64. Every line that changes a shape says so; d is n_embd,
h the number of heads, k their size, t the number of new tokens, n all tokens so far, V the vocabulary.

A step of `gpt2` reads every weight once and is as fast as memory gives them, so weights are used as they lie (mapped
from their file, no copies) and a product of one token goes to BLAS as matrix times vector.

`note(name, value)` is told every intermediate, where it is made; docs/explain.md has a table of the names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import N_MATCH, GPTConfig

from .matches import MatchFinder

Array = NDArray[Any]  # float32 or float64
Note = Callable[[str, Array], Array]
"""Told an intermediate, gives it back. It must copy what it keeps: the next line may write into the array."""

ROPE_BASE = 10_000.0
EPSILON = float(np.finfo(np.float32).eps)
MICRO_EPSILON = 1e-5
_PIECE = 128  # tokens of a prompt that go through the layers of `gpt2` at once


def mean(x: Array) -> Array:
    """The mean along the last axis, which stays: the bits of `np.mean`, in half its time where x is small."""
    total: Array = x.sum(axis=-1, keepdims=True)
    total /= x.shape[-1]
    return total


def rms_norm(x: Array, epsilon: float = EPSILON) -> Array:
    """x over the root of its mean square, along the last axis; no weights (Zhang and Sennrich 2019)."""
    normed: Array = x / np.sqrt(mean(np.square(x)) + epsilon)
    return normed


def softmax(x: Array) -> Array:
    """Positive numbers in the proportions of e^x that sum to one along the last axis."""
    e: Array = x - x.max(axis=-1, keepdims=True)
    np.exp(e, out=e)
    e /= e.sum(axis=-1, keepdims=True)
    return e


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """x with mean 0 and variance 1 along the last axis, then scaled and shifted (Ba, Kiros and Hinton 2016)."""
    centred = x - mean(x)
    normed: Array = centred / np.sqrt(mean(np.square(centred)) + epsilon) * weight + bias
    return normed


def gelu(x: Array) -> Array:
    """x times about the chance that a standard normal number is below x (Hendrycks and Gimpel 2016, with tanh)."""
    inner = x * x
    inner *= 0.044715
    inner += 1
    inner *= x
    inner *= math.sqrt(2 / math.pi)
    np.tanh(inner, out=inner)
    inner += 1
    inner *= x
    inner *= 0.5
    return inner


def rotate(x: Array, position: int) -> Array:
    """Rotary positions (Su et al. 2021): x [h, t, k] whose first token stands at `position`."""
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-np.arange(half, dtype=np.float32) / half)  # [k/2]
    angle = np.arange(position, position + x.shape[1], dtype=np.float32)[:, None] * frequency  # [t, k/2]
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]  # [h, t, k/2] each
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)  # [h, t, k]


def unnoted(name: str, value: Array) -> Array:
    """The `Note` of an engine that nobody looks into."""
    return value


class ArrayEngine:
    """Start with a prompt, then step by one token; logits out, caches inside.

    A context that outgrows `block_size` goes on with its newest half, computed afresh: positions are counted anew.
    """

    def __init__(self, config: GPTConfig, weights: Mapping[str, Array], note: Note = unnoted) -> None:
        self.config, self.weights, self._note = config, weights, note
        self.ids: list[int] = []
        self._matches = MatchFinder()
        # A block's room for each layer's keys and values; the system gives memory only to what is written.
        cache = (config.n_layer, config.n_head, config.block_size, config.head_size)
        dtype = next(iter(weights.values())).dtype
        self._keys, self._values = np.empty(cache, dtype), np.empty(cache, dtype)

    def start(self, prompt: Sequence[int]) -> Array:
        """Forget everything, read `prompt` (one token at least), return the logits [V] of the token after it."""
        self._reset()
        last: Array = self._forward(list(prompt[-self.config.block_size :]), last_only=True)[-1]
        return last

    def start_all(self, prompt: Sequence[int]) -> Array:
        """As `start`, with the logits [t, V] after each of the prompt's tokens, at most `block_size` of them."""
        self._reset()
        return self._forward(list(prompt[-self.config.block_size :]))

    def step(self, token: int) -> Array:
        """Add one token, return the logits [V] of the one after it."""
        if len(self.ids) == self.config.block_size:
            half = self.config.block_size // 2
            return self.start([*self.ids[len(self.ids) - half :], token])
        last: Array = self._forward([token])[-1]
        return last

    def head(self, x: Array) -> Array:
        """What the last norm and the head make of a residual stream x [t, d]: [t, V]."""
        w = self.weights
        if self.config.architecture == "gpt2":
            matrix = w["wte.weight"] if self.config.tie_word_embeddings else w["lm_head.weight"]  # [V, d]
            return self._norm("ln_f", x) @ matrix.T
        if self.config.architecture == "micro":
            return x @ w["lm_head"].T
        return self._note("ln_f", rms_norm(x)) @ w["lm_head"].T + w["lm_bias"]

    def fork(self) -> ArrayEngine:
        """An engine that goes on from here on its own; the weights are shared."""
        twin, n = ArrayEngine(self.config, self.weights), len(self.ids)
        twin.ids, twin._matches = list(self.ids), self._matches.fork()
        twin._keys[:, :, :n], twin._values[:, :, :n] = self._keys[:, :, :n], self._values[:, :, :n]
        return twin

    def _reset(self) -> None:
        self.ids, self._matches = [], MatchFinder()

    def _forward(self, ids: list[int], last_only: bool = False) -> Array:
        """The logits [t, V] after each of `ids`, the new tokens; `last_only` allows to leave out all but the last's."""
        if not ids or not all(0 <= token < self.config.vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self.config.vocab_size - 1}, and one at least")
        if self.config.architecture == "gpt2":
            logits = self._gpt2(ids, last_only)
        else:
            logits = self._micro(ids) if self.config.architecture == "micro" else self._modern(ids)
        self.ids.extend(ids)
        return self._note("logits", logits)

    def _gpt2(self, ids: list[int], last_only: bool) -> Array:
        # A long prompt goes through the layers in pieces, so that its scores [h, t, n] stay small; but is noted whole.
        past, size = len(self.ids), _PIECE if self._note is unnoted else len(ids)
        pieces = [self._gpt2_layers(ids[start : start + size], past + start) for start in range(0, len(ids), size)]
        return self.head(pieces[-1][-1:] if last_only else np.concatenate(pieces))  # [1, V] or [t, V]

    def _gpt2_layers(self, ids: list[int], past: int) -> Array:
        w, note = self.weights, self._note
        x = note("wte", w["wte.weight"][ids]) + note("wpe", w["wpe.weight"][past : past + len(ids)])  # [t, d]
        note("resid_pre", x)
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            q, k, v = self._split(self._linear(f"{name}.attn.c_attn", self._norm(f"{name}.ln_1", x)))  # [h, t, k] each
            y = self._mix(layer, q, k, v, self.config.head_size**-0.5, past)  # [t, d]
            x += self._linear(f"{name}.attn.c_proj", y)  # [t, d]
            note(f"{name}.resid_mid", x)
            hidden = gelu(self._linear(f"{name}.mlp.c_fc", self._norm(f"{name}.ln_2", x)))  # [t, d] -> [t, 4d]
            x += self._linear(f"{name}.mlp.c_proj", note(f"{name}.mlp.act", hidden))  # [t, 4d] -> [t, d]
            note(f"{name}.resid_post", x)
        return x

    def _norm(self, name: str, x: Array) -> Array:
        w = self.weights
        normed = layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], self.config.layer_norm_epsilon)
        return self._note(name, normed)

    def _linear(self, name: str, x: Array) -> Array:
        """x [t, in] through a matrix [in, out] of `gpt2` and its bias: [t, out]."""
        y: Array = x @ self.weights[f"{name}.weight"]
        y += self.weights[f"{name}.bias"]
        return self._note(name, y)

    def _micro(self, ids: list[int]) -> Array:
        w, past, note = self.weights, len(self.ids), self._note
        x = note("wte", w["wte"][ids]) + note("wpe", w["wpe"][past : past + len(ids)])  # [t, d]
        x = note("resid_pre", rms_norm(note("embed", x), MICRO_EPSILON))
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            q, k, v = self._heads(name, note(f"{name}.ln_1", rms_norm(x, MICRO_EPSILON)))  # [h, t, k] each
            x = note(f"{name}.resid_mid", x + self._attend(layer, q, k, v, self.config.head_size**-0.5))  # [t, d]
            hidden = self._product(f"{name}.mlp.c_fc", note(f"{name}.ln_2", rms_norm(x, MICRO_EPSILON)))  # [t, 4d]
            hidden = note(f"{name}.mlp.act", np.maximum(hidden, 0))
            x = note(f"{name}.resid_post", x + self._product(f"{name}.mlp.c_proj", hidden))  # [t, 4d] -> [t, d]
        return self.head(x)

    def _modern(self, ids: list[int]) -> Array:
        w, past, note = self.weights, len(self.ids), self._note
        matches = [self._matches.add(np.array([token])) for token in ids]
        found = np.concatenate([each for each, _ in matches])  # [t, N_MATCH]
        lengths = np.concatenate([each for _, each in matches])  # [t, N_MATCH]
        before = [self.ids[-1] if self.ids else ids[0], *ids[:-1]]  # the first token stands before itself

        note("found", found), note("lengths", lengths)
        x = note("wte", w["wte"][ids])  # [t, d]
        x = x + note("previous", w["wte"][before] @ w["previous"].T)  # [t, d]
        for m in range(N_MATCH):
            seen = (lengths[:, m] > 0)[:, None]  # [t, 1]
            x = x + note(f"match.{m}", np.where(seen, w["wte"][found[:, m]] @ w["match"][m].T, 0))  # [t, d]
            x = x + note(f"match_length.{m}", w["match_length"][m][lengths[:, m]])  # [t, d]
        x = note("resid_pre", rms_norm(note("embed", x)))
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            q, k, v = self._heads(name, note(f"{name}.ln_1", rms_norm(x)))  # [h, t, k] each
            q, k = note(f"{name}.attn.q_norm", rms_norm(q)), note(f"{name}.attn.k_norm", rms_norm(k))
            y = self._attend(layer, rotate(q, past), rotate(k, past), v, w[f"{name}.attn.scale"][:, None, None])
            x = note(f"{name}.resid_mid", x + y)  # [t, d]
            hidden = self._product(f"{name}.mlp.c_fc", note(f"{name}.ln_2", rms_norm(x)))  # [t, d] -> [t, 4d]
            hidden = note(f"{name}.mlp.act", np.square(np.maximum(hidden, 0)))
            x = note(f"{name}.resid_post", x + self._product(f"{name}.mlp.c_proj", hidden))  # [t, 4d] -> [t, d]
        logits = note("lm_head", self.head(x))  # [t, V]
        rows = np.arange(len(ids))
        for m in range(N_MATCH):
            gate = np.where(lengths[:, m] > 0, w["match_gate"][m][lengths[:, m]], 0)  # [t]
            logits[rows, found[:, m]] += note(f"match_gate.{m}", gate)
        return logits

    def _product(self, name: str, x: Array) -> Array:
        """x [t, in] through a matrix [out, in] of `micro` or `modern`: [t, out]."""
        return self._note(name, x @ self.weights[name].T)

    def _heads(self, name: str, x: Array) -> Array:
        """Queries, keys and values [3, h, t, k] of new tokens [t, d]; `name` is the layer's."""
        return self._split(self._product(f"{name}.attn.c_attn", x))  # [t, d] -> [t, 3d]

    def _split(self, qkv: Array) -> Array:
        """[t, 3d] as queries, keys and values of each head: [3, h, t, k]."""
        c = self.config
        return qkv.reshape(len(qkv), 3, c.n_head, c.head_size).transpose(1, 2, 0, 3)

    def _attend(self, layer: int, q: Array, k: Array, v: Array, scale: float | Array) -> Array:
        """Causal attention of new tokens [h, t, k] to all so far, projected: [t, d]."""
        y = self._mix(layer, q, k, v, scale, len(self.ids))
        return self._product(f"h.{layer}.attn.c_proj", y)  # [t, d]

    def _mix(self, layer: int, q: Array, k: Array, v: Array, scale: float | Array, past: int) -> Array:
        """The values [t, d] that new tokens [h, t, k], after `past` others, attend to; a scale, or one a head."""
        t, n, note, name = q.shape[1], past + q.shape[1], self._note, f"h.{layer}.attn"
        note(f"{name}.q", q), note(f"{name}.k", k), note(f"{name}.v", v)
        self._keys[layer, :, past:n], self._values[layer, :, past:n] = k, v
        k, v = self._keys[layer, :, :n], self._values[layer, :, :n]  # [h, n, k] each
        scores = q @ k.transpose(0, 2, 1)  # [h, t, k], [h, k, n] -> [h, t, n]
        scores *= scale
        note(f"{name}.scores", scores)  # all pairs, those to come too
        if t > 1:  # a single new token sees all
            visible = np.arange(n) <= past + np.arange(t)[:, None]  # [t, n]
            np.copyto(scores, -np.inf, where=~visible)
        attention = note(f"{name}.weights", softmax(scores))  # [h, t, n]
        y = (attention @ v).transpose(1, 0, 2).reshape(t, self.config.n_embd)  # [h, t, k] -> [t, d]
        return note(f"{name}.z", y)
