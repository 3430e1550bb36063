"""Many documents at once for the `compiled` engine: training at the speed of the processor's vectors.

A matrix here is [features, columns], a column being one token of one document. Documents of about equal length form a
*group*, and its columns are ordered by position, then by document, its *lanes*: a loop over columns does the same to
all documents, and the token e positions back is e times L columns to the left, for every column of the group alike. So
even attention is nothing but long loops over numbers that stand side by side.

d is n_embd, h the heads, k = d / h, V the vocabulary, T all columns, n a group's positions and L its lanes. The weights
are those of `compiled`, [in, out].
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from etude.gpt.config import GPTConfig

from .kernels import EPSILON, Array, Weights, adam, aligned, exp, kernel, matmul, matmul_transposed

MAX_LANES = 32
# An index of this type cannot be negative, so that a loop needs no test for it and can become a loop over vectors.
U = np.uint64


class Room(NamedTuple):
    """What a forward pass leaves for the backward pass, and space for gradients of it. T is the most columns."""

    x0: Array  # [d, T] the embeddings, normalised
    scale0: Array  # [T]
    x: Array  # [d, T] the residual stream
    n1: Array  # [n_layer, d, T] what attention reads
    scale1: Array  # [n_layer, T]
    qkv: Array  # [n_layer, 3d, T] queries, keys, values
    shares: Array  # [n_layer + 1, ...] for each group [n, h, n L]; the last row is for gradients
    y: Array  # [n_layer, d, T] what attention says
    n2: Array  # [n_layer, d, T] what the MLP reads
    scale2: Array  # [n_layer, T]
    hidden: Array  # [n_layer, 4d, T]
    logits: Array  # [V, T]
    dx: Array  # [d, T]
    dn: Array  # [d, T]
    dqkv: Array  # [3d, T]
    dhidden: Array  # [4d, T]
    scratch: Array  # [2, T]
    ids: Array  # [2, T] each column's token and the one to say, -1 where there is none
    groups: Array  # [2, ...] each group's first column and its positions
    lanes: int
    n_head: int


def room(config: GPTConfig, dtype: Any, batch_size: int, longest: int) -> Room:
    """Space for batches of documents of up to `longest` positions."""
    lanes = min(MAX_LANES, batch_size)
    groups = -(-batch_size // lanes)
    n, d, v = config.n_layer, config.n_embd, config.vocab_size
    # A processor may take a load and a store at the same place of two pages for one number, and wait: so rows begin
    # at different places of a page, 17 cache lines on from one to the next. It makes a step up to a fifth faster.
    size = np.dtype(dtype).itemsize
    t = groups * lanes * longest
    t += (17 * 64 // size - t) % (4096 // size)
    shapes = [
        *((d, t), (t,), (d, t), (n, d, t), (n, t), (n, 3 * d, t), (n + 1, config.n_head * longest * t), (n, d, t)),
        *((n, d, t), (n, t), (n, 4 * d, t), (v, t), (d, t), (d, t), (3 * d, t), (4 * d, t), (2, t)),
    ]
    fields: list[Any] = [aligned(shape, dtype) for shape in shapes]
    fields += [np.zeros((2, t), np.int64), np.zeros((2, groups), np.int64), lanes, config.n_head]
    return Room(*fields)


@kernel
def pack(tokens: Array, starts: Array, batch: Array, r: Room) -> tuple[int, int, int]:
    """Lay documents out in columns; returns how many groups, columns and tokens to say there are."""
    longest = 0
    for document in batch:
        if document >= 0:
            longest = max(longest, starts[document + 1] - starts[document] - 1)
    groups = columns = said = lane = 0
    for length in range(longest, 0, -1):  # the longest first: a group's first document says how long the group is
        for document in batch:
            if document < 0 or starts[document + 1] - starts[document] - 1 != length:
                continue
            if lane == 0:
                r.groups[0, groups], r.groups[1, groups] = columns, length
                r.ids[0, columns : columns + length * r.lanes] = 0
                r.ids[1, columns : columns + length * r.lanes] = -1
                columns += length * r.lanes
                groups += 1
            for t in range(length):
                column = r.groups[0, groups - 1] + t * r.lanes + lane
                r.ids[0, column], r.ids[1, column] = tokens[starts[document] + t], tokens[starts[document] + t + 1]
            said += length
            lane = (lane + 1) % r.lanes
    return groups, columns, said


@kernel
def clear(a: Array, columns: int) -> None:
    """The first columns of every row become 0."""
    for i in range(len(a)):
        for t in range(columns):
            a[i, t] = 0


@kernel
def rms_norm(x: Array, y: Array, scale: Array, columns: int) -> None:
    """y = x · scale, where scale [T] is one over the root mean square of a column of x [d, T]."""
    number, d = x.dtype.type, len(x)
    for t in range(columns):
        scale[t] = 0
    for i in range(d):
        for t in range(columns):
            scale[t] += x[i, t] * x[i, t]
    for t in range(columns):
        scale[t] = number(1) / np.sqrt(scale[t] * number(1 / d) + number(EPSILON))
    for i in range(d):
        for t in range(columns):
            y[i, t] = x[i, t] * scale[t]


@kernel
def rms_norm_backward(y: Array, scale: Array, dy: Array, dx: Array, mean: Array, columns: int) -> None:
    """dx += scale · (dy - y · mean(dy · y)); mean [T] is scratch."""
    number, d = y.dtype.type, len(y)
    for t in range(columns):
        mean[t] = 0
    for i in range(d):
        for t in range(columns):
            mean[t] += dy[i, t] * y[i, t] * number(1 / d)
    for i in range(d):
        for t in range(columns):
            dx[i, t] += scale[t] * (dy[i, t] - y[i, t] * mean[t])


@kernel
def linear(weight: Array, x: Array, y: Array, columns: int) -> None:
    """y [out, T] = weight.T [out, in] @ x [in, T]"""
    clear(y, columns)
    matmul(weight.T, x, y, columns)


@kernel
def linear_backward(weight: Array, x: Array, dy: Array, dx: Array, dweight: Array, columns: int) -> None:
    """dx = weight @ dy and dweight = x @ dy.T"""
    clear(dx, columns)
    matmul(weight, dy, dx, columns)
    matmul_transposed(x, dy, dweight, columns)


@kernel
def dot_heads(k: int, a: Array, i: int, s: Any, b: Array, j: int, t: Any, out: Array, o: Any) -> None:
    """For each head m: out[m, o + c] = the dot product of a[i + m k :, s + c] and b[j + m k :, t + c], k rows each."""
    columns = U(out.shape[1]) - o
    for m in range(len(out)):
        for c in range(columns):
            out[m, o + c] = 0
        for r in range(m * k, m * k + k - 3, 4):
            for c in range(columns):
                out[m, o + c] += (
                    a[i + r, s + c] * b[j + r, t + c]
                    + a[i + r + 1, s + c] * b[j + r + 1, t + c]
                    + a[i + r + 2, s + c] * b[j + r + 2, t + c]
                    + a[i + r + 3, s + c] * b[j + r + 3, t + c]
                )
        for r in range(m * k + k - k % 4, m * k + k):
            for c in range(columns):
                out[m, o + c] += a[i + r, s + c] * b[j + r, t + c]


@kernel
def add_heads(k: int, factor: Array, o: Any, a: Array, i: int, s: Any, b: Array, j: int, t: Any) -> None:
    """For each head m: b[j + m k :, t + c] += factor[m, o + c] · a[i + m k :, s + c], k rows each."""
    columns = U(factor.shape[1]) - o
    for m in range(len(factor)):
        for r in range(m * k, m * k + k - 3, 4):
            for c in range(columns):
                b[j + r, t + c] += factor[m, o + c] * a[i + r, s + c]
                b[j + r + 1, t + c] += factor[m, o + c] * a[i + r + 1, s + c]
                b[j + r + 2, t + c] += factor[m, o + c] * a[i + r + 2, s + c]
                b[j + r + 3, t + c] += factor[m, o + c] * a[i + r + 3, s + c]
        for r in range(m * k + k - k % 4, m * k + k):
            for c in range(columns):
                b[j + r, t + c] += factor[m, o + c] * a[i + r, s + c]


@kernel
def attention(qkv: Array, y: Array, shares: Array, scratch: Array, first: int, lanes: int) -> None:
    """One group's attention: y [d, T] and shares from qkv [3d, T], whose columns begin at `first`.

    shares[e, h, c] is what column c takes of the column e positions before it: a long loop for each distance e.
    """
    n, n_head, columns = shares.shape
    d, now, number = len(y), U(first), y.dtype.type
    k = d // n_head
    scale, one = number(1 / np.sqrt(k)), number(1)
    for e in range(n):
        dot_heads(k, qkv, 0, now + U(e * lanes), qkv, d, now, shares[e], U(e * lanes))
    largest, total = scratch[0], scratch[1]
    for h in range(n_head):
        for c in range(columns):
            largest[c] = shares[0, h, c]
            total[c] = 0
        for e in range(1, n):
            for c in range(U(e * lanes), U(columns)):
                largest[c] = max(largest[c], shares[e, h, c])
        for e in range(n):
            for c in range(U(e * lanes), U(columns)):
                power = exp((shares[e, h, c] - largest[c]) * scale)
                shares[e, h, c] = power
                total[c] += power
        for c in range(columns):
            total[c] = one / total[c]
        for e in range(n):
            for c in range(U(e * lanes), U(columns)):
                shares[e, h, c] *= total[c]
    for i in range(d):
        for c in range(U(columns)):
            y[i, now + c] = 0
    for e in range(n):
        add_heads(k, shares[e], U(e * lanes), qkv, 2 * d, now, y, 0, now + U(e * lanes))


@kernel
def attention_backward(
    qkv: Array, shares: Array, dy: Array, dqkv: Array, dshares: Array, scratch: Array, first: int, lanes: int
) -> None:
    """One group's dqkv [3d, T] from dy [d, T]; dshares, shaped like shares, is scratch."""
    n, n_head, columns = shares.shape
    d, now, number = len(dy), U(first), dy.dtype.type
    k = d // n_head
    scale, mean = number(1 / np.sqrt(k)), scratch[0]
    for i in range(3 * d):
        for c in range(U(columns)):
            dqkv[i, now + c] = 0
    for e in range(n):
        back = U(e * lanes)
        dot_heads(k, dy, 0, now + back, qkv, 2 * d, now, dshares[e], back)
        add_heads(k, shares[e], back, dy, 0, now + back, dqkv, 2 * d, now)
    for h in range(n_head):
        for c in range(columns):
            mean[c] = 0
        for e in range(n):
            for c in range(U(e * lanes), U(columns)):
                mean[c] += dshares[e, h, c] * shares[e, h, c]
        for e in range(n):
            for c in range(U(e * lanes), U(columns)):
                dshares[e, h, c] = (dshares[e, h, c] - mean[c]) * shares[e, h, c] * scale
    for e in range(n):
        back = U(e * lanes)
        add_heads(k, dshares[e], back, qkv, d, now, dqkv, 0, now + back)
        add_heads(k, dshares[e], back, qkv, 0, now + back, dqkv, d, now)


@kernel
def cross_entropy(logits: Array, targets: Array, scratch: Array, columns: int, said: int) -> float:
    """The mean of -log softmax(logits)[target] over the `said` columns with a target.

    The logits [V, T] become its gradient.
    """
    vocab_size, number = len(logits), logits.dtype.type
    largest, total = scratch[0], scratch[1]
    for t in range(columns):
        largest[t] = logits[0, t]
        total[t] = 0
    for v in range(1, vocab_size):
        for t in range(columns):
            largest[t] = max(largest[t], logits[v, t])
    loss = 0.0
    for t in range(columns):
        if targets[t] >= 0:
            loss += largest[t] - logits[targets[t], t]
    for v in range(vocab_size):
        for t in range(columns):
            power = exp(logits[v, t] - largest[t])
            logits[v, t] = power
            total[t] += power
    for t in range(columns):
        if targets[t] >= 0:
            loss += np.log(total[t])
            total[t] = number(1 / said) / total[t]
        else:
            total[t] = 0  # nothing is learnt where nothing is to be said
    for v in range(vocab_size):
        for t in range(columns):
            logits[v, t] *= total[t]
    for t in range(columns):
        if targets[t] >= 0:
            logits[targets[t], t] -= number(1 / said)
    return loss / said


@kernel
def group_shares(r: Room, layer: int, group: int) -> Array:
    """[n, h, n L], one group's part of a layer's attention shares."""
    start = 0
    for g in range(group):
        start += r.n_head * r.lanes * r.groups[1, g] * r.groups[1, g]
    n = r.groups[1, group]
    return r.shares[layer, start : start + r.n_head * r.lanes * n * n].reshape(n, r.n_head, n * r.lanes)


@kernel
def embed(wte: Array, wpe: Array, r: Room, groups: int) -> None:
    """r.x [d, T] = the token's vector and the position's"""
    x, ids = r.x, r.ids[0]
    for g in range(groups):
        for t in range(r.groups[1, g]):
            start = r.groups[0, g] + t * r.lanes
            for c in range(start, start + r.lanes):
                token = ids[c]
                for i in range(len(x)):
                    x[i, c] = wte[token, i] + wpe[t, i]


@kernel
def embed_backward(dwte: Array, dwpe: Array, r: Room, groups: int) -> None:
    """The gradients of both embeddings, from r.dn [d, T]"""
    dn, ids, zero = r.dn, r.ids[0], r.dn.dtype.type(0)
    dwte[:] = 0
    dwpe[:] = 0
    for g in range(groups):
        for t in range(r.groups[1, g]):
            start = r.groups[0, g] + t * r.lanes
            for i in range(len(dn)):
                total = zero
                for c in range(U(start), U(start + r.lanes)):
                    total += dn[i, c]
                dwpe[t, i] += total
            for c in range(start, start + r.lanes):
                token = ids[c]
                for i in range(len(dn)):
                    dwte[token, i] += dn[i, c]


@kernel
def forward(w: Weights, r: Room, groups: int, columns: int) -> None:
    """The logits of all columns, into r.logits."""
    n_layer, d = w.c_attn.shape[:2]
    zero = r.x.dtype.type(0)
    embed(w.wte, w.wpe, r, groups)
    rms_norm(r.x, r.x0, r.scale0, columns)
    for i in range(d):
        for c in range(columns):
            r.x[i, c] = r.x0[i, c]
    for layer in range(n_layer):
        qkv, y, hidden = r.qkv[layer], r.y[layer], r.hidden[layer]
        rms_norm(r.x, r.n1[layer], r.scale1[layer], columns)
        linear(w.c_attn[layer], r.n1[layer], qkv, columns)
        for g in range(groups):
            attention(qkv, y, group_shares(r, layer, g), r.scratch, r.groups[0, g], r.lanes)
        matmul(w.attn_proj[layer].T, y, r.x, columns)
        rms_norm(r.x, r.n2[layer], r.scale2[layer], columns)
        linear(w.c_fc[layer], r.n2[layer], hidden, columns)
        for i in range(4 * d):
            for c in range(columns):
                hidden[i, c] = max(hidden[i, c], zero)
        matmul(w.mlp_proj[layer].T, hidden, r.x, columns)
    linear(w.lm_head, r.x, r.logits, columns)


@kernel
def backward(w: Weights, dw: Weights, r: Room, groups: int, columns: int) -> None:
    """The gradients of all weights, from those of the logits in r.logits."""
    n_layer, d = w.c_attn.shape[:2]
    zero = r.x.dtype.type(0)
    linear_backward(w.lm_head, r.x, r.logits, r.dx, dw.lm_head, columns)
    for layer in range(n_layer - 1, -1, -1):
        hidden, dhidden = r.hidden[layer], r.dhidden
        linear_backward(w.mlp_proj[layer], hidden, r.dx, dhidden, dw.mlp_proj[layer], columns)
        for i in range(4 * d):
            for c in range(columns):
                dhidden[i, c] = dhidden[i, c] if hidden[i, c] > zero else zero
        linear_backward(w.c_fc[layer], r.n2[layer], dhidden, r.dn, dw.c_fc[layer], columns)
        rms_norm_backward(r.n2[layer], r.scale2[layer], r.dn, r.dx, r.scratch[0], columns)
        linear_backward(w.attn_proj[layer], r.y[layer], r.dx, r.dn, dw.attn_proj[layer], columns)
        for g in range(groups):
            shares, dshares = group_shares(r, layer, g), group_shares(r, n_layer, g)
            attention_backward(r.qkv[layer], shares, r.dn, r.dqkv, dshares, r.scratch, r.groups[0, g], r.lanes)
        linear_backward(w.c_attn[layer], r.n1[layer], r.dqkv, r.dn, dw.c_attn[layer], columns)
        rms_norm_backward(r.n1[layer], r.scale1[layer], r.dn, r.dx, r.scratch[0], columns)
    clear(r.dn, columns)
    rms_norm_backward(r.x0, r.scale0, r.dx, r.dn, r.scratch[0], columns)
    embed_backward(dw.wte, dw.wpe, r, groups)


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
    """As `compiled.train`, with a row of `order` [count, batch_size] for a step; -1 is no document."""
    for index in range(len(order)):
        groups, columns, said = pack(tokens, starts, order[index], r)
        forward(w, r, groups, columns)
        losses[index] = cross_entropy(r.logits, r.ids[1], r.scratch, columns, said)
        backward(w, dw, r, groups, columns)
        adam(flat[0], flat[1], moments, rates, first_step + index, steps)
