"""The `array` engine: a GPT in NumPy, for the core install. It computes what `tensor` computes and can be stepped.

It computes in the precision of its weights, float32 or float64. Every line that changes a shape says so; d is n_embd,
h the number of heads, k their size, t the number of new tokens, n all tokens so far, V the vocabulary.

A step of `gpt2` reads every weight once and is as fast as memory gives them, so weights are used as they lie (mapped
from their file, no copies) and a product of one token goes to BLAS as matrix times vector.

A batch is ragged: the new tokens of its B texts stand one after another, t of them in all, and only attention is done
text by text. Where every text brings one token, x is [B, 1, d] instead of [t, d]: then NumPy calls BLAS for each as it
does for one text alone, while the weights are still in the processor's cache, and a text's logits are the same to the
bit whatever else is in the batch. A product of matrices would be faster for many texts, and would round otherwise.

`note(name, value)` is told every intermediate, where it is made; docs/explain.md has a table of the names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.gpt.config import N_MATCH, NGRAMS, GPTConfig

from .engine import BATCH_BYTES, MAX_ROWS
from .matches import MatchFinder
from .ngrams import ngram_rows

Array = NDArray[Any]  # float32 or float64
Note = Callable[[str, Array], Array]
"""Told an intermediate, gives it back. It must copy what it keeps: the next line may write into the array."""

ROPE_BASE = 10_000.0
EPSILON = float(np.finfo(np.float32).eps)
MICRO_EPSILON = 1e-5
_PIECE = 128  # tokens of prompts that go through the layers of `gpt2` at once
_CACHED = 1 << 21  # numbers of a matrix that the tokens of many texts are multiplied with before the next so many


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


def times(x: Array, matrix: Array) -> Array:
    """x [t, in] or [B, 1, in] through a matrix [in, out]; see the top of this file for what the shapes mean."""
    y: Array
    if matrix.size <= _CACHED or (x.ndim == 2 and len(x) > 1):
        y = x @ matrix
        return y
    columns = max(64, _CACHED // len(matrix) // 64 * 64)
    y = np.empty((*x.shape[:-1], matrix.shape[1]), x.dtype)
    for start in range(0, matrix.shape[1], columns):
        np.matmul(x, matrix[:, start : start + columns], out=y[..., start : start + columns])
    return y


def rotate(x: Array, positions: Array) -> Array:
    """Rotary positions (Su et al. 2021) of x [h, t, k], whose tokens stand at `positions` [t]."""
    half = x.shape[-1] // 2
    frequency = ROPE_BASE ** (-np.arange(half, dtype=np.float32) / half)  # [k/2]
    angle = positions.astype(np.float32)[:, None] * frequency  # [t, k/2]
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = x[..., :half], x[..., half:]  # [h, t, k/2] each
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)  # [h, t, k]


def unnoted(name: str, value: Array) -> Array:
    """The `Note` of an engine that nobody looks into."""
    return value


class _Text:
    """One text of a batch: its tokens so far, with their keys and values in every layer."""

    def __init__(self, config: GPTConfig, dtype: np.dtype[Any]) -> None:
        self.ids: list[int] = []
        self.matches = MatchFinder()
        self._block = config.block_size
        self.keys = np.empty((config.n_layer, config.n_head, 0, config.head_size), dtype)  # [layers, h, room, k]
        self.values = self.keys

    def reserve(self, tokens: int) -> None:
        """Make room for so many tokens in all."""
        if tokens > self.keys.shape[2]:
            self.keys, self.values = self._copies(room(tokens, self._block))

    def fork(self) -> _Text:
        """The same, to go on alone."""
        twin = _Text.__new__(_Text)
        twin.ids, twin.matches, twin._block = list(self.ids), self.matches.fork(), self._block
        twin.keys, twin.values = self._copies(self.keys.shape[2])
        return twin

    def _copies(self, room: int) -> tuple[Array, Array]:
        layers, heads, _, size = self.keys.shape
        n, copies = len(self.ids), np.empty((2, layers, heads, room, size), self.keys.dtype)
        copies[0, :, :, :n], copies[1, :, :, :n] = self.keys[:, :, :n], self.values[:, :, :n]
        return copies[0], copies[1]


def room(tokens: int, block_size: int) -> int:
    """For how many tokens there is room in the cache of a text of so many: a power of 2 from 64, at most a block."""
    return min(block_size, max(64, 1 << (tokens - 1).bit_length()))


_New = Sequence[tuple[_Text, list[int]]]  # texts, and the tokens that each is to read


class ArrayEngine:
    """Start with a prompt or several, then step by one token each; logits out, caches inside. See `engine.Engine`.

    A context that outgrows `block_size` goes on with its newest half, computed afresh: positions are counted anew.
    """

    def __init__(self, config: GPTConfig, weights: Mapping[str, Array], note: Note = unnoted) -> None:
        self.config, self.weights, self._note = config, weights, note
        self._dtype = next(iter(weights.values())).dtype
        self._texts = [_Text(config, self._dtype)]

    @property
    def ids(self) -> list[int]:
        """The tokens of the context; of the first, where there are several."""
        return self._texts[0].ids

    def start(self, prompt: Sequence[int]) -> Array:
        """Forget everything, read `prompt` (one token at least), return the logits [V] of the token after it."""
        logits: Array = self.start_batch([prompt])[0]
        return logits

    def start_all(self, prompt: Sequence[int]) -> Array:
        """As `start`, with the logits [t, V] after each of the prompt's tokens, at most `block_size` of them."""
        ids = self._checked(prompt[-self.config.block_size :])
        self._texts = [_Text(self.config, self._dtype)]
        return self._forward([(self._texts[0], ids)])

    def step(self, token: int) -> Array:
        """Add one token, return the logits [V] of the one after it."""
        logits: Array = self.step_batch([token])[0]
        return logits

    def start_batch(self, prompts: Sequence[Sequence[int]]) -> Array:
        """Forget everything, read the prompts (one at least), return the logits [B, V] of the token after each."""
        ids = [self._checked(prompt[-self.config.block_size :]) for prompt in prompts]
        self._texts = [_Text(self.config, self._dtype) for _ in ids]
        return self._read(list(zip(self._texts, ids, strict=True)))

    def step_batch(self, tokens: Sequence[int]) -> Array:
        """Add one token to each text, return the logits [B, V] of those after them."""
        block, new = self.config.block_size, [[token] for token in self._checked(tokens)]
        for index, (text, ids) in enumerate(zip(self._texts, new, strict=True)):
            if len(text.ids) == block:
                ids[:0] = text.ids[block - block // 2 :]
                self._texts[index] = _Text(self.config, self._dtype)
        return self._read(list(zip(self._texts, new, strict=True)))

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with the texts of these numbers, in this order; one that is named twice goes on twice."""
        texts = [self._texts[row] for row in rows]
        self._texts = [text.fork() if text in texts[:index] else text for index, text in enumerate(texts)]

    def most_rows(self, tokens: int) -> int:
        """How many texts that grow to so many tokens may be in a batch: `BATCH_BYTES` of memory, `MAX_ROWS`."""
        c = self.config
        cached = 2 * c.n_layer * c.n_embd * room(min(tokens, c.block_size), c.block_size)
        text = (cached + 2 * c.vocab_size) * self._dtype.itemsize  # logits as they come, and by sample
        return max(1, min(MAX_ROWS, BATCH_BYTES // text))

    def head(self, x: Array) -> Array:
        """What the last norm and the head make of a residual stream x [t, d]: [t, V]."""
        c, w = self.config, self.weights
        if c.rung == "bigram":
            return x
        if c.architecture == "modern":
            return times(self._note("ln_f", rms_norm(x)), w[c.head].T) + w["lm_bias"]
        normed = c.architecture == "gpt2" or (c.architecture == "lesson" and c.climbed("norm"))
        return times(self._norm("ln_f", x) if normed else x, w[c.head].T)

    def fork(self) -> ArrayEngine:
        """An engine that goes on from here on its own; the weights are shared."""
        twin = ArrayEngine(self.config, self.weights)
        twin._texts = [text.fork() for text in self._texts]
        return twin

    def _checked(self, ids: Sequence[int]) -> list[int]:
        if not len(ids) or not all(0 <= token < self.config.vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self.config.vocab_size - 1}, and one at least")
        return list(ids)

    def _read(self, new: _New) -> Array:
        """The logits [B, V] after what each text is to read.

        Texts go together so that none of them is rounded otherwise than alone: those that read one token, and prompts
        of `gpt2` that are a piece together. Its matrices [in, out] OpenBLAS multiplies with two tokens or more alike; a
        library that does not would change a prompt's last digits. Other architectures are small: a prompt at a time.
        """
        if len(new) == 1:
            return self._forward(new, last_only=True)
        groups, tokens = [[index for index, (_, ids) in enumerate(new) if len(ids) == 1]], _PIECE
        for index, (_, ids) in enumerate(new):
            if len(ids) > 1:
                if self.config.architecture == "gpt2" and tokens + len(ids) <= _PIECE:
                    groups[-1].append(index)
                else:
                    groups.append([index])
                    tokens = 0
                tokens += len(ids)
        logits = np.empty((len(new), self.config.vocab_size), self._dtype)
        for group in filter(None, groups):
            logits[group] = self._forward([new[index] for index in group], last_only=True)
        return logits

    def _forward(self, new: _New, last_only: bool = False) -> Array:
        """The logits [t, V] after each token, or `last_only` [B, V] after each text's last."""
        for text, ids in new:
            text.reserve(len(text.ids) + len(ids))
        if self.config.architecture == "gpt2":
            logits = self._gpt2(new, last_only)
        else:
            layers = {"micro": self._micro, "modern": self._modern, "lesson": self._lesson}
            logits = layers[self.config.architecture](new, last_only)
        return self._note("logits", logits)

    def _tokens(self, new: _New) -> tuple[Any, Any]:
        """Ids and positions of what is new: [t] each, or [B, 1] where several texts bring a token each."""
        if len(new) == 1:
            text, ids = new[0]
            return ids, slice(len(text.ids), len(text.ids) + len(ids))
        tokens = np.array([token for _, ids in new for token in ids])
        positions = np.array([len(text.ids) + index for text, ids in new for index in range(len(ids))])
        one_each = len(tokens) == len(new)
        return (tokens[:, None], positions[:, None]) if one_each else (tokens, positions)

    def _done(self, new: _New, x: Array, last_only: bool) -> Array:
        """The texts have read what was new. Of x [t, d] what the head is asked for: all, or each text's last token."""
        for text, ids in new:
            text.ids.extend(ids)
        if not last_only or x.ndim == 3:
            return x
        return x[-1:] if len(new) == 1 else x[np.cumsum([len(ids) for _, ids in new]) - 1][:, None]  # [B, 1, d]

    def _gpt2(self, new: _New, last_only: bool) -> Array:
        pieces = [new]
        if len(new) == 1 and self._note is unnoted:
            # A long prompt goes through the layers in pieces, so that its scores [h, t, n] stay small.
            text, ids = new[0]
            pieces = [[(text, ids[start : start + _PIECE])] for start in range(0, len(ids), _PIECE)]
        x = [self._done(piece, self._gpt2_layers(piece), last_only) for piece in pieces]
        return self._flat(self.head(x[-1] if last_only else np.concatenate(x)))

    def _flat(self, logits: Array) -> Array:
        """Logits [t, V] of either shape."""
        return logits if logits.ndim == 2 else logits[:, 0]

    def _gpt2_layers(self, new: _New) -> Array:
        w, note = self.weights, self._note
        ids, positions = self._tokens(new)
        x = note("wte", w["wte.weight"][ids]) + note("wpe", w["wpe.weight"][positions])  # [t, d]
        note("resid_pre", x)
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            q, k, v = self._split(self._linear(f"{name}.attn.c_attn", self._norm(f"{name}.ln_1", x)))  # [h, t, k] each
            y = self._mix(layer, q, k, v, self.config.head_size**-0.5, new)  # [t, d]
            x += self._linear(f"{name}.attn.c_proj", y.reshape(x.shape))  # [t, d]
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
        y = times(x, self.weights[f"{name}.weight"])
        y += self.weights[f"{name}.bias"]
        return self._note(name, y)

    def _micro(self, new: _New, last_only: bool) -> Array:
        w, note = self.weights, self._note
        ids, positions = self._tokens(new)
        x = note("wte", w["wte"][ids]) + note("wpe", w["wpe"][positions])  # [t, d]
        x = note("resid_pre", rms_norm(note("embed", x), MICRO_EPSILON))
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            q, k, v = self._heads(name, note(f"{name}.ln_1", rms_norm(x, MICRO_EPSILON)))  # [h, t, k] each
            y = self._mix(layer, q, k, v, self.config.head_size**-0.5, new)  # [t, d]
            x = note(f"{name}.resid_mid", x + self._product(f"{name}.attn.c_proj", y.reshape(x.shape)))  # [t, d]
            hidden = self._product(f"{name}.mlp.c_fc", note(f"{name}.ln_2", rms_norm(x, MICRO_EPSILON)))  # [t, 4d]
            hidden = note(f"{name}.mlp.act", np.maximum(hidden, 0))
            x = note(f"{name}.resid_post", x + self._product(f"{name}.mlp.c_proj", hidden))  # [t, 4d] -> [t, d]
        return self._flat(self.head(self._done(new, x, last_only)))

    def _modern(self, new: _New, last_only: bool) -> Array:
        w, note = self.weights, self._note
        ids, positions = self._tokens(new)
        positions = np.arange(positions.start, positions.stop) if len(new) == 1 else positions.ravel()  # [t]
        x = note("wte", w["wte"][ids])  # [t, d]
        if self.config.ngram_rows:
            x = x + note("ngrams", self._ngrams(new).reshape(x.shape))  # [t, d]
        else:
            found, lengths = self._matches(new)  # [t, N_MATCH] each
            x = self._matched(x, new, found, lengths)  # [t, d]
        x = note("resid_pre", rms_norm(note("embed", x)))
        for layer in range(self.config.n_layer):
            name = f"h.{layer}"
            q, k, v = self._heads(name, note(f"{name}.ln_1", rms_norm(x)))  # [h, t, k] each
            q, k = note(f"{name}.attn.q_norm", rms_norm(q)), note(f"{name}.attn.k_norm", rms_norm(k))
            scale = w[f"{name}.attn.scale"][:, None, None]
            y = self._mix(layer, rotate(q, positions), rotate(k, positions), v, scale, new)  # [t, d]
            x = note(f"{name}.resid_mid", x + self._product(f"{name}.attn.c_proj", y.reshape(x.shape)))  # [t, d]
            hidden = self._product(f"{name}.mlp.c_fc", note(f"{name}.ln_2", rms_norm(x)))  # [t, d] -> [t, 4d]
            hidden = note(f"{name}.mlp.act", np.square(np.maximum(hidden, 0)))
            x = note(f"{name}.resid_post", x + self._product(f"{name}.mlp.c_proj", hidden))  # [t, 4d] -> [t, d]
        logits = note("lm_head", self._flat(self.head(self._done(new, x, last_only))))  # [t, V] or [B, V]
        if self.config.ngram_rows:
            return logits
        if last_only:
            last = np.cumsum([len(new_ids) for _, new_ids in new]) - 1
            found, lengths = found[last], lengths[last]  # [B, N_MATCH] each
        rows = np.arange(len(logits))
        for m in range(N_MATCH):
            gate = np.where(lengths[:, m] > 0, w["match_gate"][m][lengths[:, m]], 0)  # [t]
            logits[rows, found[:, m]] += note(f"match_gate.{m}", gate)
        return logits

    def _ngrams(self, new: _New) -> Array:
        """The sum of the rows of each new token's n-grams, [t, d]."""
        rows = []
        for text, ids in new:
            context = np.array([[*text.ids[-max(NGRAMS) + 1 :], *ids]])
            rows.append(ngram_rows(context, self.config.ngram_rows)[0, -len(ids) :])  # [t, lengths]
        summed: Array = self.weights["ngrams"][np.concatenate(rows)].sum(axis=1)  # [t, lengths, d] -> [t, d]
        return summed

    def _matches(self, new: _New) -> tuple[Array, Array]:
        """Continuations of earlier matches and the lengths of these, after each new token: [t, N_MATCH] each."""
        matches = [text.matches.add(np.array([token])) for text, ids in new for token in ids]
        found = np.concatenate([each for each, _ in matches])
        lengths = np.concatenate([each for _, each in matches])
        return self._note("found", found), self._note("lengths", lengths)

    def _matched(self, x: Array, new: _New, found: Array, lengths: Array) -> Array:
        """x [t, d] with what is known of the token before, and of what came after matches [t, N_MATCH]: [t, d]."""
        w, note = self.weights, self._note
        # The first token stands before itself.
        before = np.concatenate([[text.ids[-1] if text.ids else ids[0], *ids[:-1]] for text, ids in new])
        apart = (*x.shape[:-1], -1)  # what follows is of the shape of x
        x = x + note("previous", times(w["wte"][before].reshape(x.shape), w["previous"].T))  # [t, d]
        for m in range(N_MATCH):
            seen = (lengths[:, m] > 0).reshape(apart)  # [t, 1]
            copied = times(w["wte"][found[:, m]].reshape(x.shape), w["match"][m].T)  # [t, d]
            x = x + note(f"match.{m}", np.where(seen, copied, 0))  # [t, d]
            x = x + note(f"match_length.{m}", w["match_length"][m][lengths[:, m]].reshape(x.shape))  # [t, d]
        return x

    def _lesson(self, new: _New, last_only: bool) -> Array:
        c, w, note = self.config, self.weights, self._note
        ids, positions = self._tokens(new)
        x = note("wte", w["wte"][ids])  # [t, d]
        if c.rung == "bigram":  # d is V: the rows are logits, and each token looks at itself alone
            note("resid_pre", x)
            if note is not unnoted:
                note("h.0.attn.weights", np.eye(len(ids), dtype=x.dtype)[None])  # [1, t, t]
            note("h.0.resid_post", x)
            return self._flat(self.head(self._done(new, x, last_only)))
        x = note("resid_pre", x + note("wpe", w["wpe"][positions]))  # [t, d]
        for layer in range(c.n_layer):
            name = f"h.{layer}"
            y = self._norm(f"{name}.ln_1", x) if c.climbed("norm") else x  # [t, d]
            if c.climbed("head"):
                q, k, v = self._heads(name, y)  # [h, t, k] each
            else:  # all scores alike: the mean of what came so far
                q, k, v = self._split(np.concatenate([0 * y, 0 * y, y], axis=-1))  # [1, t, d] each
            y = self._mix(layer, q, k, v, c.head_size**-0.5, new).reshape(x.shape)  # [t, d]
            if c.climbed("heads"):
                y = self._product(f"{name}.attn.c_proj", y)  # [t, d]
            x = note(f"{name}.resid_mid", x + y if c.climbed("residual") else y)  # [t, d]
            if c.climbed("mlp"):
                y = self._norm(f"{name}.ln_2", x) if c.climbed("norm") else x  # [t, d]
                hidden = note(f"{name}.mlp.act", np.maximum(self._product(f"{name}.mlp.c_fc", y), 0))  # [t, 4d]
                y = self._product(f"{name}.mlp.c_proj", hidden)  # [t, 4d] -> [t, d]
                x = x + y if c.climbed("residual") else y  # [t, d]
            note(f"{name}.resid_post", x)
        return self._flat(self.head(self._done(new, x, last_only)))

    def _product(self, name: str, x: Array) -> Array:
        """x [t, in] through a matrix [out, in] of any architecture but `gpt2`: [t, out]."""
        return self._note(name, times(x, self.weights[name].T))

    def _heads(self, name: str, x: Array) -> Array:
        """Queries, keys and values [3, h, t, k] of new tokens [t, d]; `name` is the layer's."""
        return self._split(self._product(f"{name}.attn.c_attn", x))  # [t, d] -> [t, 3d]

    def _split(self, qkv: Array) -> Array:
        """[t, 3d] as queries, keys and values of each head: [3, h, t, k]."""
        c = self.config
        return qkv.reshape(len(qkv), 3, c.n_head, c.head_size).transpose(1, 2, 0, 3)

    def _mix(self, layer: int, q: Array, k: Array, v: Array, scale: float | Array, new: _New) -> Array:
        """The values [t, d] that new tokens [h, t, k] attend to, each in its own text; a scale, or one a head."""
        if len(new) == 1:
            return self._attend(layer, q, k, v, scale, new[0][0])
        parts, stop = [], 0
        for text, ids in new:
            start, stop = stop, stop + len(ids)
            part = slice(start, stop)
            parts.append(self._attend(layer, q[:, part], k[:, part], v[:, part], scale, text))
        return np.concatenate(parts)

    def _attend(self, layer: int, q: Array, k: Array, v: Array, scale: float | Array, text: _Text) -> Array:
        """Causal attention of a text's new tokens [h, t, k] to all its tokens so far: [t, d]."""
        past, t, note, name = len(text.ids), q.shape[1], self._note, f"h.{layer}.attn"
        n = past + t
        note(f"{name}.q", q), note(f"{name}.k", k), note(f"{name}.v", v)
        text.keys[layer, :, past:n], text.values[layer, :, past:n] = k, v
        k, v = text.keys[layer, :, :n], text.values[layer, :, :n]  # [h, n, k] each
        scores = q @ k.transpose(0, 2, 1)  # [h, t, k], [h, k, n] -> [h, t, n]
        scores *= scale
        note(f"{name}.scores", scores)  # all pairs, those to come too
        if t > 1:  # a single new token sees all
            visible = np.arange(n) <= past + np.arange(t)[:, None]  # [t, n]
            np.copyto(scores, -np.inf, where=~visible)
        attention = note(f"{name}.weights", softmax(scores))  # [h, t, n]
        y = (attention @ v).transpose(1, 0, 2).reshape(t, self.config.n_embd)  # [h, t, k] -> [t, d]
        return note(f"{name}.z", y)
