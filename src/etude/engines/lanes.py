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
    shares: Array  # [n_layer + 1, ...] for each group [h, n, n L]; the last row is for gradients
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
    # A cache line more than a multiple of sixteen: rows a power of two apart would compete for the same places in it.
    t = -(-groups * lanes * longest // 16) * 16 + 16
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
def dot_columns(a: Array, i: int, s: Any, b: Array, j: int, t: Any, rows: int, out: Array) -> None:
    """out[c] = the dot product of `rows` rows: a[i:, s + c] · b[j:, t + c]"""
    columns = U(out.size)
    for c in range(columns):
        out[c] = 0
    for m in range(0, rows - 3, 4):
        for c in range(columns):
            out[c] += (
                a[i + m, s + c] * b[j + m, t + c]
                + a[i + m + 1, s + c] * b[j + m + 1, t + c]
                + a[i + m + 2, s + c] * b[j + m + 2, t + c]
                + a[i + m + 3, s + c] * b[j + m + 3, t + c]
            )
    for m in range(rows - rows % 4, rows):
        for c in range(columns):
            out[c] += a[i + m, s + c] * b[j + m, t + c]


@kernel
def add_scaled(factor: Array, a: Array, i: int, s: Any, b: Array, j: int, t: Any, rows: int) -> None:
    """b[j:, t + c] += factor[c] · a[i:, s + c] for `rows` rows"""
    columns = U(factor.size)
    for m in range(0, rows - 3, 4):
        for c in range(columns):
            b[j + m, t + c] += factor[c] * a[i + m, s + c]
            b[j + m + 1, t + c] += factor[c] * a[i + m + 1, s + c]
            b[j + m + 2, t + c] += factor[c] * a[i + m + 2, s + c]
            b[j + m + 3, t + c] += factor[c] * a[i + m + 3, s + c]
    for m in range(rows - rows % 4, rows):
        for c in range(columns):
            b[j + m, t + c] += factor[c] * a[i + m, s + c]


@kernel
def attention(qkv: Array, y: Array, shares: Array, scratch: Array, first: int, lanes: int) -> None:
    """One group's attention: y [d, T] and shares from qkv [3d, T], whose columns begin at `first`.

    shares[h, e, c] is what column c takes of the column e positions before it: a long loop for each distance e.
    """
    n_head, n, columns = shares.shape
    d = len(y)
    k = d // n_head
    number = y.dtype.type
    scale = number(1 / np.sqrt(k))
    largest, total = scratch[0, :columns], scratch[1, :columns]
    for e in range(n):
        for h in range(n_head):
            back = e * lanes
            dot_columns(qkv, h * k, U(first + back), qkv, d + h * k, U(first), k, shares[h, e, back:])
    for h in range(n_head):
        largest[:] = shares[h, 0]
        for e in range(1, n):
            scores, top = shares[h, e, e * lanes :], largest[e * lanes :]
            for c in range(scores.size):
                top[c] = max(top[c], scores[c])
        total[:] = 0
        for e in range(n):
            scores, top, powers = shares[h, e, e * lanes :], largest[e * lanes :], total[e * lanes :]
            for c in range(scores.size):
                power = exp((scores[c] - top[c]) * scale)
                scores[c] = power
                powers[c] += power
        for c in range(columns):
            total[c] = number(1) / total[c]
        for e in range(n):
            share, inverse = shares[h, e, e * lanes :], total[e * lanes :]
            for c in range(share.size):
                share[c] *= inverse[c]
    for i in range(d):
        for c in range(U(columns)):
            y[i, U(first) + c] = 0
    for e in range(n):
        for h in range(n_head):
            back = e * lanes
            add_scaled(shares[h, e, back:], qkv, 2 * d + h * k, U(first), y, h * k, U(first + back), k)


@kernel
def attention_backward(
    qkv: Array, shares: Array, dy: Array, dqkv: Array, dshares: Array, scratch: Array, first: int, lanes: int
) -> None:
    """One group's dqkv [3d, T] from dy [d, T]; dshares, shaped like shares, is scratch."""
    n_head, n, columns = shares.shape
    d = len(dy)
    k = d // n_head
    scale = dy.dtype.type(1 / np.sqrt(k))
    for i in range(3 * d):
        for c in range(U(columns)):
            dqkv[i, U(first) + c] = 0
    for e in range(n):
        here, back = U(first + e * lanes), e * lanes
        for h in range(n_head):
            dot_columns(dy, h * k, here, qkv, 2 * d + h * k, U(first), k, dshares[h, e, back:])
            add_scaled(shares[h, e, back:], dy, h * k, here, dqkv, 2 * d + h * k, U(first), k)
    mean = scratch[0, :columns]
    for h in range(n_head):
        mean[:] = 0
        for e in range(n):
            share, dshare, part = shares[h, e, e * lanes :], dshares[h, e, e * lanes :], mean[e * lanes :]
            for c in range(share.size):
                part[c] += dshare[c] * share[c]
        for e in range(n):
            share, dshare, part = shares[h, e, e * lanes :], dshares[h, e, e * lanes :], mean[e * lanes :]
            for c in range(share.size):
                dshare[c] = (dshare[c] - part[c]) * share[c] * scale
    for e in range(n):
        here, back = U(first + e * lanes), e * lanes
        for h in range(n_head):
            dscores = dshares[h, e, back:]
            add_scaled(dscores, qkv, d + h * k, U(first), dqkv, h * k, here, k)
            add_scaled(dscores, qkv, h * k, here, dqkv, d + h * k, U(first), k)


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
    """[h, n, n L], one group's part of a layer's attention shares."""
    start = 0
    for g in range(group):
        start += r.n_head * r.lanes * r.groups[1, g] * r.groups[1, g]
    n = r.groups[1, group]
    return r.shares[layer, start : start + r.n_head * r.lanes * n * n].reshape(r.n_head, n, n * r.lanes)


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
