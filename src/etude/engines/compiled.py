"""The `compiled` engine: the smallest GPT as plain loops, compiled by Numba. Needs the `fast` extra.

Here a step is on one document and in float64: the `scalar` engine's run, number by number. The backward pass is written
by hand: each function below has a twin that turns the gradient of its result into those of its inputs. `lanes` does the
same for many documents at once; `Trainer` chooses between the two.

d is n_embd, h the heads, k = d / h, V the vocabulary, n the document's positions and T the same, rounded up to a
multiple of four for the matrix products, with rows of zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numba.core import event
from numpy.typing import NDArray

from etude.gpt.config import GPTConfig, parameter_shapes

from . import lanes
from .kernels import EPSILON, Array, Weights, adam, aligned, exp, kernel, matmul, matmul_transposed

# An index of this type cannot be negative; a loop over one that can has a test for it at every turn.
U = np.uint64


class Room(NamedTuple):
    """What a forward pass leaves for the backward pass and for the next token, and space for gradients of it."""

    x0: Array  # [T, d] the embeddings, normalised
    scale0: Array  # [T]
    x: Array  # [T, d] the residual stream
    n1: Array  # [n_layer, T, d] what attention reads
    scale1: Array  # [n_layer, T]
    qkv: Array  # [n_layer, T, 3d] queries, keys, values
    shares: Array  # [n_layer, h, T, T] what each position takes of those up to it
    y: Array  # [n_layer, T, d] what attention says
    n2: Array  # [n_layer, T, d] what the MLP reads
    scale2: Array  # [n_layer, T]
    hidden: Array  # [n_layer, T, 4d]
    logits: Array  # [T, V]
    dx: Array  # [T, d]
    dn: Array  # [T, d]
    dqkv: Array  # [T, 3d]
    dhidden: Array  # [T, 4d]
    dshare: Array  # [T]


def room(config: GPTConfig, dtype: Any) -> Room:
    """Space for one document of up to block_size positions, rounded up to a multiple of four from anywhere."""
    n, d, h, v, t = config.n_layer, config.n_embd, config.n_head, config.vocab_size, config.block_size + 3
    shapes = [
        *((t, d), (t,), (t, d), (n, t, d), (n, t), (n, t, 3 * d), (n, h, t, t), (n, t, d)),
        *((n, t, d), (n, t), (n, t, 4 * d), (t, v), (t, d), (t, d), (t, 3 * d), (t, 4 * d), (t,)),
    ]
    return Room(*(aligned(shape, dtype) for shape in shapes))


@kernel
def rms_norm(x: Array, y: Array, scale: Array) -> None:
    """y = x · scale, where scale [T] is one over the root mean square of a row of x [T, d]."""
    d, zero = x.shape[1], x.dtype.type(0)
    for t in range(len(x)):
        total = zero
        for i in range(d):
            total += x[t, i] * x[t, i]
        scale[t] = 1 / np.sqrt(total / d + EPSILON)
        for i in range(d):
            y[t, i] = x[t, i] * scale[t]


@kernel
def rms_norm_backward(y: Array, scale: Array, dy: Array, dx: Array) -> None:
    """dx += scale · (dy - y · mean(dy · y))"""
    d, zero = y.shape[1], y.dtype.type(0)
    for t in range(len(y)):
        mean = zero
        for i in range(d):
            mean += dy[t, i] * y[t, i]
        mean /= d
        for i in range(d):
            dx[t, i] += scale[t] * (dy[t, i] - y[t, i] * mean)


@kernel
def linear(x: Array, weight: Array, y: Array) -> None:
    """y [T, out] = x [T, in] @ weight [in, out]"""
    y[:] = 0
    matmul(x, weight, y, y.shape[1])


@kernel
def linear_backward(x: Array, weight: Array, dy: Array, dx: Array, dweight: Array) -> None:
    """dx = dy @ weight.T and dweight = x.T @ dy"""
    matmul_transposed(dy, weight, dx, dy.shape[1])
    dweight[:] = 0
    matmul(x.T, dy, dweight, dy.shape[1])


@kernel
def attention(qkv: Array, shares: Array, y: Array, start: int) -> None:
    """y [n, d] and shares [h, n, n] from qkv [n, 3d], for the positions from `start` on."""
    n_head, n, d = len(shares), len(y), y.shape[1]
    k, keys, values = U(d // n_head), U(d), U(2 * d)
    scale, zero = 1 / np.sqrt(k), y.dtype.type(0)
    y[start:] = 0
    for h in range(n_head):
        head = U(h) * k
        for t in range(start, n):
            share = shares[h, t]
            largest = -1e300  # infinities are not allowed for in fast arithmetic
            for s in range(t + 1):
                score = zero
                for i in range(head, head + k):
                    score += qkv[t, i] * qkv[s, keys + i]
                share[s] = score * scale
                largest = max(largest, share[s])
            total = 0.0
            for s in range(t + 1):
                share[s] = exp(share[s] - largest)
                total += share[s]
            for s in range(t + 1):
                share[s] /= total
                for i in range(head, head + k):
                    y[t, i] += share[s] * qkv[s, values + i]


@kernel
def attention_backward(qkv: Array, shares: Array, dy: Array, dqkv: Array, dshare: Array) -> None:
    """dqkv [T, 3d] from dy [n, d]. Through a softmax: dscore = share · (dshare - the shares' mean of dshare)."""
    n_head, n, d = len(shares), len(dy), dy.shape[1]
    k, keys, values = U(d // n_head), U(d), U(2 * d)
    scale = 1 / np.sqrt(k)
    dqkv[:] = 0
    for h in range(n_head):
        head = U(h) * k
        for t in range(n):
            share = shares[h, t]
            mean = 0.0
            for s in range(t + 1):
                dshare[s] = 0
                for i in range(head, head + k):
                    dshare[s] += dy[t, i] * qkv[s, values + i]
                mean += dshare[s] * share[s]
            for s in range(t + 1):
                dscore = (dshare[s] - mean) * share[s] * scale
                for i in range(head, head + k):
                    dqkv[s, values + i] += share[s] * dy[t, i]
                    dqkv[t, i] += dscore * qkv[s, keys + i]
                    dqkv[s, keys + i] += dscore * qkv[t, i]


@kernel
def cross_entropy(logits: Array, targets: Array) -> float:
    """The mean of -log softmax(logits)[target] over n targets; logits [T, V] become its gradient."""
    n, vocab_size, zero = len(targets), logits.shape[1], logits.dtype.type(0)
    loss = 0.0
    for t in range(n):
        row = logits[t]
        largest = row[0]
        for v in range(1, vocab_size):
            largest = max(largest, row[v])
        loss += largest - row[targets[t]]
        total = zero
        for v in range(vocab_size):
            row[v] = exp(row[v] - largest)
            total += row[v]
        loss += np.log(total)
        for v in range(vocab_size):
            row[v] /= total * n
        row[targets[t]] -= 1 / n
    logits[n:] = 0
    return loss / n


@kernel
def forward(w: Weights, r: Room, ids: Array, start: Any) -> Array:
    """Logits [T, V] after the tokens ids[start:]; what is before `start` stands in `r` already."""
    n_layer, d = w.c_attn.shape[:2]
    n = len(ids)
    end = start + (n - start + 3) // 4 * 4
    x = r.x[start:end]
    for t in range(start, n):
        for i in range(d):
            r.x[t, i] = w.wte[ids[t], i] + w.wpe[t, i]
    r.x[n:end] = 0
    rms_norm(x, r.x0[start:end], r.scale0[start:end])
    x[:] = r.x0[start:end]
    for layer in range(n_layer):
        n1, n2, hidden = r.n1[layer, start:end], r.n2[layer, start:end], r.hidden[layer, start:end]
        rms_norm(x, n1, r.scale1[layer, start:end])
        linear(n1, w.c_attn[layer], r.qkv[layer, start:end])
        r.y[layer, n:end] = 0
        attention(r.qkv[layer], r.shares[layer], r.y[layer, :n], start)
        matmul(r.y[layer, start:end], w.attn_proj[layer], x, d)
        rms_norm(x, n2, r.scale2[layer, start:end])
        linear(n2, w.c_fc[layer], hidden)
        for t in range(end - start):
            for i in range(4 * d):
                hidden[t, i] = max(hidden[t, i], 0)
        matmul(hidden, w.mlp_proj[layer], x, d)
    linear(x, w.lm_head, r.logits[start:end])
    return r.logits[start:end]


@kernel
def backward(w: Weights, dw: Weights, r: Room, ids: Array, dlogits: Array) -> None:
    """The gradients of all weights, from those of the logits [T, V], after `forward` of the same ids."""
    n, end = len(ids), len(dlogits)
    n_layer, d = w.c_attn.shape[:2]
    dx, dn, dqkv, dhidden = r.dx[:end], r.dn[:end], r.dqkv[:end], r.dhidden[:end]
    linear_backward(r.x[:end], w.lm_head, dlogits, dx, dw.lm_head)
    for layer in range(n_layer - 1, -1, -1):
        n1, n2, hidden = r.n1[layer, :end], r.n2[layer, :end], r.hidden[layer, :end]
        linear_backward(hidden, w.mlp_proj[layer], dx, dhidden, dw.mlp_proj[layer])
        for t in range(end):
            for i in range(4 * d):
                dhidden[t, i] = dhidden[t, i] if hidden[t, i] > 0 else 0
        linear_backward(n2, w.c_fc[layer], dhidden, dn, dw.c_fc[layer])
        rms_norm_backward(n2, r.scale2[layer], dn, dx)
        linear_backward(r.y[layer, :end], w.attn_proj[layer], dx, dn, dw.attn_proj[layer])
        attention_backward(r.qkv[layer], r.shares[layer], dn[:n], dqkv, r.dshare)
        linear_backward(n1, w.c_attn[layer], dqkv, dn, dw.c_attn[layer])
        rms_norm_backward(n1, r.scale1[layer], dn, dx)
    dn[:] = 0
    rms_norm_backward(r.x0[:end], r.scale0, dx, dn)
    dw.wte[:] = 0
    dw.wpe[:] = 0
    for t in range(n):
        for i in range(d):
            dw.wte[ids[t], i] += dn[t, i]
            dw.wpe[t, i] = dn[t, i]


@kernel
def train(
    w: Weights,
    dw: Weights,
    flat: Array,
    moments: Array,
    r: Room,
    rates: tuple[float, float, float, float],
    tokens: Array,
    starts: Array,
    order: Array,
    first_step: int,
    steps: int,
    losses: Array,
) -> None:
    """A step of Adam on each document of `order`; document i is tokens[starts[i] : starts[i + 1]].

    flat [2, P] are the weights and gradients that w and dw are views of, moments [2, P] Adam's.
    """
    start = np.int64(0)  # of the type that the engine's calls have, or `forward` would be compiled twice
    for index in range(len(order)):
        document = tokens[starts[order[index]] : starts[order[index] + 1]]
        ids = document[:-1]
        logits = forward(w, r, ids, start)
        losses[index] = cross_entropy(logits, document[1:])
        backward(w, dw, r, ids, logits)
        adam(flat[0], flat[1], moments, rates, first_step + index, steps)


def parts(config: GPTConfig, flat: Array) -> tuple[Weights, dict[str, Array]]:
    """The flat array [P] as weights, and as the parameters of `parameter_shapes`: views, all of them."""
    n, d, v = config.n_layer, config.n_embd, config.vocab_size
    shapes = [(v, d), (config.block_size, d), (d, v), (n, d, 3 * d), (n, d, d), (n, d, 4 * d), (n, 4 * d, d)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    w = Weights(*(part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)))
    named = {"wte": w.wte, "wpe": w.wpe, "lm_head": w.lm_head.T}
    for layer in range(n):
        named[f"h.{layer}.attn.c_attn"] = w.c_attn[layer].T
        named[f"h.{layer}.attn.c_proj"] = w.attn_proj[layer].T
        named[f"h.{layer}.mlp.c_fc"] = w.c_fc[layer].T
        named[f"h.{layer}.mlp.c_proj"] = w.mlp_proj[layer].T
    return w, named


def _size(config: GPTConfig) -> int:
    """How many numbers the weights are."""
    return sum(int(np.prod(shape)) for shape in parameter_shapes(config).values())


class CompiledTrainer:
    """Trains `micro` on documents of ids, each with the token before its first and the one after its last."""

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
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        self.config, self.batch_size, self.say = config, batch_size, say
        self.rates = (float(learning_rate), float(beta1), float(beta2), float(epsilon))
        self.tokens = np.concatenate([np.asarray(document, np.int64) for document in documents])
        self.starts = np.cumsum([0, *map(len, documents)])
        self._flat = aligned((2, _size(config)), precision)  # weights and gradients
        self._moments = aligned((2, _size(config)), precision)
        self._weights, named = parts(config, self._flat[0])
        self._gradients, self.gradients = parts(config, self._flat[1])
        first, second = (parts(config, moments)[1] for moments in self._moments)
        self._kinds = {"weights": named, "first": first, "second": second}
        for name, value in weights.items():
            named[name][:] = value
        self._room: Any = room(config, precision)
        if batch_size > 1:
            longest = int(np.diff(self.starts).max()) - 1
            self._room = lanes.room(config, precision, batch_size, longest)
        self.run(np.zeros((0, batch_size), np.int64), 0, 1)  # compiled or loaded here, not within the first step

    def run(self, order: NDArray[np.int64], first_step: int, total_steps: int) -> NDArray[np.float64]:
        """Take a step for each row of order [count, batch_size], document numbers; -1 is none. The first is step
        `first_step` of total_steps, counted from 0. Returns the losses [count] in nats a token."""
        losses = np.zeros(len(order))
        data = (self.rates, self.tokens, self.starts)
        state = (self._weights, self._gradients, self._flat, self._moments, self._room)
        with announced(self.say):
            if self.batch_size == 1:
                train(*state, *data, np.ascontiguousarray(order[:, 0]), first_step, total_steps, losses)
            else:
                lanes.train(*state, *data, np.ascontiguousarray(order), first_step, total_steps, losses)
        return losses

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of the weights and of Adam's two moments."""
        return {
            f"{kind}.{name}": array.copy("C") for kind, named in self._kinds.items() for name, array in named.items()
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over what `state` gave."""
        for kind, named in self._kinds.items():
            for name, array in named.items():
                array[:] = state[f"{kind}.{name}"]


class CompiledEngine:
    """`micro` with a cache, a token at a time. As the other engines, a full block goes on with its newest half."""

    def __init__(
        self, config: GPTConfig, weights: Mapping[str, NDArray[Any]], say: Callable[[str], None] = lambda message: None
    ) -> None:
        dtype = next(iter(weights.values())).dtype
        self.config = config
        self._weights, named = parts(config, aligned((_size(config),), dtype))
        for name, value in weights.items():
            named[name][:] = value
        self._room = room(config, dtype)
        self._ids = np.zeros(0, np.int64)
        with announced(say):
            forward(self._weights, self._room, np.zeros(1, np.int64), 0)

    def start(self, prompt: Sequence[int]) -> NDArray[Any]:
        """Forget everything, read `prompt` (one token at least), return the logits [V] of the token after it."""
        last: Array = self.start_all(prompt)[-1]
        return last

    def start_all(self, prompt: Sequence[int]) -> NDArray[Any]:
        """As `start`, with the logits [t, V] after each of the prompt's tokens, at most `block_size` of them."""
        self._ids = np.zeros(0, np.int64)
        return self._add(prompt[-self.config.block_size :])

    def step(self, token: int) -> NDArray[Any]:
        """Add one token, return the logits [V] of the one after it."""
        if len(self._ids) == self.config.block_size:
            return self.start([*self._ids[len(self._ids) - self.config.block_size // 2 :].tolist(), token])
        last: Array = self._add([token])[-1]
        return last

    def _add(self, ids: Sequence[int]) -> NDArray[Any]:
        if not len(ids) or not all(0 <= token < self.config.vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self.config.vocab_size - 1}, and one at least")
        start = len(self._ids)
        self._ids = np.concatenate([self._ids, np.asarray(ids, np.int64)])
        return forward(self._weights, self._room, self._ids, start)[: len(ids)].copy()


@contextmanager
def announced(say: Callable[[str], None]) -> Iterator[None]:
    """Say so where something is compiled; what is kept on disk is loaded without a word."""
    said: list[bool] = []

    class Listener(event.Listener):
        def on_start(self, _: event.Event) -> None:
            if not said:
                said.append(True)
                say("compiling, up to half a minute, this once; later runs begin at once")

        def on_end(self, _: event.Event) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield
