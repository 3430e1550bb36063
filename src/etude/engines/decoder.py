"""The `compiled` engine's GPT-2: one compiled function runs all layers, on all cores, in float32, int8 or int4.

A step reads every weight once and is as fast as memory gives them, so fewer bits a weight are more tokens a second. A
prompt is arithmetic instead: its tokens go through each matrix together, 128 at a time. Several texts go together too,
whatever their lengths, and each gets the logits that it would get alone, to the bit.

T is the number of tokens computed together, each with a place in its text and the slot of the cache that is its text's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from etude.gpt.config import GROUP, GPTConfig, Precision

from .compiled import announced
from .engine import BATCH_BYTES, MAX_ROWS
from .kernels import Array, aligned, exp, inlined, kernel, reserved
from .matrices import (
    TILE,
    Matrix,
    Tile,
    encode,
    largest_code,
    make_tile,
    multiply,
    multiply_many,
    packed,
    stored,
    unpack,
)
from .team import MAX_THREADS, barrier, share, take, team
from .vectors import scores16

_PIECE = 128  # tokens of a prompt that go through the layers together
_PIECES_EACH = 4  # pieces of a product for each thread: more are fairer, and longer ones are read faster
_STEP = 32  # texts that take a step together
_ALONE = 1 << 23  # a model with fewer weights takes a step in a millisecond on one core, which need not wait for others


class Layers(NamedTuple):
    """The weights of GPT-2."""

    wte: Matrix  # [1, V, d], the head too where that is tied
    head: Matrix  # [1, V, d]
    wpe: Array  # [block_size, d]
    norms: Array  # [n_layer, 2, 2, d]: ln_1 and ln_2, weight and bias
    last_norm: Array  # [2, d]: ln_f
    c_attn: Matrix  # [n_layer, 3d, d]
    attn_proj: Matrix  # [n_layer, d, d]
    c_fc: Matrix  # [n_layer, 4d, d]
    mlp_proj: Matrix  # [n_layer, d, 4d]


class Room(NamedTuple):
    """Where it is computed, for up to `_PIECE` tokens. Zeros fill up the last group of all but the stream."""

    x: Array  # [T, d]: the residual stream
    normed: Array  # [T, d], and what attention gives
    qkv: Array  # [T, 3d]
    hidden: Array  # [T, 4d]
    codes: Array  # [T, d] int16
    hidden_codes: Array  # [T, 4d] int16
    steps: Array  # [T]: the scales of codes
    hidden_steps: Array  # [T]
    tiles: tuple[Tile, ...]  # one a thread, and as many whatever their number, for one version to be compiled
    scores: Array  # [threads, block_size in whole tiles]
    taken: Array  # [products] int64: how many pieces of each are taken


@inlined
def _norm(x: Array, scale: Array, shift: Array, epsilon: float, out: Array) -> None:
    """LayerNorm of x [d]."""
    d = len(x)
    total = np.float32(0)
    for i in range(d):
        total += x[i]
    mean = total / np.float32(d)
    square = np.float32(0)
    for i in range(d):
        square += (x[i] - mean) * (x[i] - mean)
    factor = np.float32(1) / np.sqrt(square / np.float32(d) + np.float32(epsilon))
    for i in range(d):
        out[i] = (x[i] - mean) * factor * scale[i] + shift[i]


@inlined
def _gelu(x: Array) -> None:
    """x times its sigmoid after a polynomial: the tanh form of GELU, as tanh u = 2 sigmoid(2u) - 1."""
    one, twice, cubic = np.float32(1), np.float32(2 * math.sqrt(2 / math.pi)), np.float32(0.044715)
    zero = np.float32(0)
    for i in range(len(x)):
        u = twice * (x[i] + cubic * x[i] * x[i] * x[i])
        e = exp(-abs(u))
        x[i] = x[i] * (one if u >= zero else e) / (one + e)


@inlined
def _attend(q: Array, keys: Array, values: Array, n: int, scores: Array, out: Array) -> None:
    """The values that a query q [k] attends to among n tokens; keys [tiles, k, TILE], values [block_size, k]."""
    size = len(q)
    scale = np.float32(1) / np.sqrt(np.float32(size))
    zero = np.float32(0)
    for block in range((n + TILE - 1) // TILE):
        scores16(q.ctypes.data, keys[block].ctypes.data, size, scale, scores[block * TILE :].ctypes.data)
    most = scores[0]
    for j in range(np.uint64(n)):
        most = scores[j] if scores[j] > most else most
    total = zero
    for j in range(np.uint64(n)):
        scores[j] = exp(scores[j] - most)
        total += scores[j]
    for i in range(size):
        out[i] = zero
    for j in range(0, n - 3, 4):
        p0, p1, p2, p3 = scores[j], scores[j + 1], scores[j + 2], scores[j + 3]
        v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
        for i in range(size):
            out[i] += p0 * v0[i] + p1 * v1[i] + p2 * v2[i] + p3 * v3[i]
    for j in range(n - n % 4, n):
        p0, v0 = scores[j], values[j]
        for i in range(size):
            out[i] += p0 * v0[i]
    one = np.float32(1) / total
    for i in range(size):
        out[i] *= one


class Factor(NamedTuple):
    """What a matrix is multiplied with, as numbers and rounded."""

    x: Array  # [T, k]
    codes: Array  # [T, k] int16
    steps: Array  # [T]


class Work(NamedTuple):
    """What all products of a thread share."""

    many: bool
    taken: Array
    tile: Tile
    threads: int


@kernel
def _product(matrix: Matrix, layer: int, factor: Factor, y: Array, n: int, bent: bool, work: Work, stage: int) -> None:
    """The first n columns of y [T, n] = x W.T + bias, through GELU if `bent`: all threads take it piece by piece."""
    x, codes, steps = factor.x, factor.codes, factor.steps
    # Whole tiles, so that no two threads write to one cache line.
    piece = (n // (work.threads * _PIECES_EACH) // TILE + 1) * TILE
    start = take(work.taken, stage) * piece
    while start < n:
        stop = min(start + piece, n)
        if work.many:
            multiply_many(matrix, layer, x, codes, steps, y, start, (stop + TILE - 1) // TILE * TILE, work.tile)
        else:
            multiply(matrix, layer, x, codes, steps, y, start, stop, work.tile)
        if bent:
            for t in range(len(x)):
                _gelu(y[t][start:stop])
        start = take(work.taken, stage) * piece


@kernel
def forward(
    w: Layers,
    room: Room,
    keys: Array,  # [n_layer, slots, h, tiles, k, TILE]: the keys of TILE tokens side by side
    values: Array,  # [n_layer, slots, h, block_size, k]
    tokens: Array,  # [3, T]: id, place in its text, slot
    wanted: Array,  # [R]: which of the T tokens' logits are wanted
    logits: Array,  # [R, V]
    epsilon: float,
    largest: tuple[int, int],  # what d and 4d numbers may be rounded to; 0 in float32
    many: bool,  # whether the tokens are a prompt's
    meeting: Array,
    thread: int,
    threads: int,
) -> None:
    """Run tokens through all layers; what one thread is to do between two barriers depends on no other."""
    n_layer, heads, size = values.shape[0], values.shape[2], values.shape[4]
    count, d = tokens.shape[1], heads * size
    rows = (count + 3) // 4 * 4 if many else count  # what is computed for more tokens than there are is not used
    x, normed, qkv, hidden = room.x[:rows], room.normed[:rows], room.qkv[:rows], room.hidden[:rows]
    codes, steps = room.codes[:rows], room.steps[:rows]
    hidden_codes, hidden_steps = room.hidden_codes[:rows], room.hidden_steps[:rows]
    tile, scores = room.tiles[thread], room.scores[thread]
    narrow, wide = Factor(normed, codes, steps), Factor(hidden, hidden_codes, hidden_steps)
    work = Work(many, room.taken, tile, threads)
    whole = largest[0] > 0
    first, last = share(count, 1, thread, threads)
    first_head, last_head = share(heads, 1, thread, threads)

    if thread == 0:
        room.taken[:] = 0
    for t in range(first, last):
        token, place = tokens[0, t], tokens[1, t]
        unpack(w.wte, 0, token, token + 1, tile.numbers)
        for i in range(d):
            x[t, i] = tile.numbers[0, i] + w.wpe[place, i]
    for layer in range(n_layer):
        for t in range(first, last):
            _norm(x[t], w.norms[layer, 0, 0], w.norms[layer, 0, 1], epsilon, normed[t])
            if whole:
                steps[t] = encode(normed[t], codes[t], largest[0])
        barrier(meeting, threads)
        _product(w.c_attn, layer, narrow, qkv, 3 * d, False, work, 4 * layer)
        barrier(meeting, threads)
        for head in range(first_head, last_head):
            at = head * size
            for t in range(count):
                place, slot = tokens[1, t], tokens[2, t]
                for i in range(size):
                    keys[layer, slot, head, place // TILE, i, place % TILE] = qkv[t, d + at + i]
                    values[layer, slot, head, place, i] = qkv[t, 2 * d + at + i]
            for t in range(count):
                place, slot = tokens[1, t], tokens[2, t]
                q, out = qkv[t][at : at + size], normed[t][at : at + size]
                _attend(q, keys[layer, slot, head], values[layer, slot, head], place + 1, scores, out)
        barrier(meeting, threads)
        if whole:
            for t in range(first, last):
                steps[t] = encode(normed[t], codes[t], largest[0])
            barrier(meeting, threads)
        # What a block adds to the stream is written over q, which no thread needs any more.
        _product(w.attn_proj, layer, narrow, qkv, d, False, work, 4 * layer + 1)
        barrier(meeting, threads)
        for t in range(first, last):
            for i in range(d):
                x[t, i] += qkv[t, i]
            _norm(x[t], w.norms[layer, 1, 0], w.norms[layer, 1, 1], epsilon, normed[t])
            if whole:
                steps[t] = encode(normed[t], codes[t], largest[0])
        barrier(meeting, threads)
        _product(w.c_fc, layer, narrow, hidden, 4 * d, True, work, 4 * layer + 2)
        barrier(meeting, threads)
        if whole:
            for t in range(first, last):
                hidden_steps[t] = encode(hidden[t], hidden_codes[t], largest[1])
            barrier(meeting, threads)
        _product(w.mlp_proj, layer, wide, qkv, d, False, work, 4 * layer + 3)
        barrier(meeting, threads)
        for t in range(first, last):
            for i in range(d):
                x[t, i] += qkv[t, i]

    barrier(meeting, threads)
    first, last = share(len(wanted), 1, thread, threads)
    for r in range(first, last):
        _norm(x[wanted[r]], w.last_norm[0], w.last_norm[1], epsilon, normed[r])
        if largest[0] > 0:
            steps[r] = encode(normed[r], codes[r], largest[0])
    barrier(meeting, threads)
    n = len(wanted)
    if n:
        last_factor = Factor(normed[:n], codes[:n], steps[:n])
        work = Work(False, room.taken, tile, threads)
        _product(w.head, 0, last_factor, logits, logits.shape[1], False, work, 4 * n_layer)
    barrier(meeting, threads)


def layers(config: GPTConfig, weights: Mapping[str, Array], precision: Precision) -> Layers:
    """The weights of `parameter_shapes` for `gpt2` in a precision. Embeddings are a matrix as others; positions and
    norms stay in float32."""
    if config.precision != "float32":
        wte = stored(weights, "wte")
        return Layers(
            wte=wte,
            head=wte if config.tie_word_embeddings else stored(weights, "head"),
            wpe=np.array(weights["wpe"], np.float32),
            norms=np.array(weights["norms"], np.float32),
            last_norm=np.array(weights["last_norm"], np.float32),
            c_attn=stored(weights, "c_attn"),
            attn_proj=stored(weights, "attn_proj"),
            c_fc=stored(weights, "c_fc"),
            mlp_proj=stored(weights, "mlp_proj"),
        )

    def stacked(name: str) -> Matrix:
        names = [f"h.{layer}.{name}" for layer in range(config.n_layer)]
        sources, biases = [weights[f"{each}.weight"] for each in names], [weights[f"{each}.bias"] for each in names]
        return packed(sources, biases, precision, transposed=True)

    def norm(name: str) -> list[Array]:
        return [weights[f"{name}.weight"], weights[f"{name}.bias"]]

    wte = packed([weights["wte.weight"]], None, precision)
    norms = [[norm(f"h.{layer}.ln_1"), norm(f"h.{layer}.ln_2")] for layer in range(config.n_layer)]
    return Layers(
        wte=wte,
        head=wte if config.tie_word_embeddings else packed([weights["lm_head.weight"]], None, precision),
        wpe=np.array(weights["wpe.weight"], np.float32),
        norms=np.array(norms, np.float32),
        last_norm=np.array(norm("ln_f"), np.float32),
        c_attn=stacked("attn.c_attn"),
        attn_proj=stacked("attn.c_proj"),
        c_fc=stacked("mlp.c_fc"),
        mlp_proj=stacked("mlp.c_proj"),
    )


def quantized(
    config: GPTConfig, weights: Mapping[str, Array], precision: Precision
) -> tuple[GPTConfig, dict[str, Array]]:
    """The same model in int8 or int4, to be saved: its configuration and its parameters."""
    made = layers(config, weights, precision)
    arrays: dict[str, Array] = {"wpe": made.wpe, "norms": made.norms, "last_norm": made.last_norm}
    for name, matrix in zip(made._fields, made, strict=True):
        if isinstance(matrix, Matrix) and not (name == "head" and config.tie_word_embeddings):
            arrays |= {f"{name}.{part}": array for part, array in zip(matrix._fields, matrix, strict=True)}
    return replace(config, precision=precision), arrays


class CompiledDecoder:
    """GPT-2 with a cache for each text. As in the other engines, a full block goes on with its newest half."""

    def __init__(
        self,
        config: GPTConfig,
        weights: Mapping[str, Array] | Layers,
        precision: Precision | None = None,
        say: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Pack the weights in a precision, by default the one they are stored in, unless they are packed already."""
        self.config = config
        with announced(say):
            packed_now = (
                weights if isinstance(weights, Layers) else layers(config, weights, precision or config.precision)
            )
            self._layers = packed_now
            d, block = config.n_embd, config.block_size
            small = 12 * config.n_layer * d * d + config.vocab_size * d < _ALONE
            self._threads = 1 if small else team().threads
            wide, wider = -(-d // GROUP) * GROUP, -(-4 * d // GROUP) * GROUP
            threads = self._threads
            self._room = Room(
                x=aligned((_PIECE, d), np.float32),
                normed=aligned((_PIECE, wide), np.float32),
                qkv=aligned((_PIECE, 3 * wide), np.float32),
                hidden=aligned((_PIECE, wider), np.float32),
                codes=aligned((_PIECE, wide), np.int16),
                hidden_codes=aligned((_PIECE, wider), np.int16),
                steps=aligned((_PIECE,), np.float32),
                hidden_steps=aligned((_PIECE,), np.float32),
                tiles=tuple(make_tile(4 * d) for _ in range(MAX_THREADS)),
                scores=aligned((threads, -(-block // TILE) * TILE), np.float32),
                taken=aligned((4 * config.n_layer + 1,), np.int64),
            )
            self._largest = largest_code(self._layers.c_attn, d), largest_code(self._layers.mlp_proj, 4 * d)
            self._ids: list[list[int]] = []
            self._slots: list[int] = []
            self._keys, self._values = self._cache(1)
            threads, self._threads = self._threads, 1
            self._run([], many=False)  # compiled or loaded by one thread: an interrupt then leaves no other waiting
            self._threads = threads

    def fresh(self) -> CompiledDecoder:
        """An engine with the same weights and an empty context."""
        return CompiledDecoder(self.config, self._layers)

    def start(self, prompt: Sequence[int]) -> Array:
        """Forget everything, read `prompt` (one token at least), return the logits [V] of the token after it."""
        last: Array = self.start_batch([prompt])[0]
        return last

    def start_all(self, prompt: Sequence[int]) -> Array:
        """As `start`, with the logits [t, V] after each of the prompt's tokens, at most `block_size` of them."""
        self._begin([prompt])
        return self._read([0], all_logits=True)

    def step(self, token: int) -> Array:
        """Add one token, return the logits [V] of the one after it."""
        last: Array = self.step_batch([token])[0]
        return last

    def start_batch(self, prompts: Sequence[Sequence[int]]) -> Array:
        """Forget everything, read prompts of any lengths, return the logits [B, V] of the token after each."""
        self._begin(prompts)
        return self._read(range(len(prompts)))

    def step_batch(self, tokens: Sequence[int]) -> Array:
        """Add a token to each text, return the logits [B, V] of the ones after them."""
        if len(tokens) != len(self._ids):
            raise ValueError(f"{len(tokens)} tokens for {len(self._ids)} texts")
        self._check([tokens])
        block, half = self.config.block_size, self.config.block_size // 2
        logits = np.empty((len(tokens), self.config.vocab_size), np.float32)
        full = [row for row, ids in enumerate(self._ids) if len(ids) == block]
        for row, token in enumerate(tokens):
            kept = self._ids[row]
            self._ids[row] = [*kept[len(kept) - half :], token] if row in full else [*kept, token]
        if full:
            logits[full] = self._read(full)
        others = [row for row in range(len(tokens)) if row not in full]
        for start in range(0, len(others), _STEP):
            rows = others[start : start + _STEP]
            now = [(self._ids[row][-1], len(self._ids[row]) - 1, self._slots[row]) for row in rows]
            logits[rows] = self._run(now, many=False)
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these texts in this order; one that is named twice goes on in two ways."""
        taken: set[int] = set()
        slots = []
        used = {self._slots[row] for row in rows}
        free = [slot for slot in range(self._keys.shape[1]) if slot not in used]
        if len(rows) - len(set(rows)) > len(free):
            missing = len(rows) - len(set(rows)) - len(free)
            free += range(self._keys.shape[1], self._keys.shape[1] + missing)
            self._grow(self._keys.shape[1] + missing)
        for row in rows:
            slot, n = self._slots[row], len(self._ids[row])
            if slot in taken:
                copy = free.pop(0)
                tiles = -(-n // TILE)
                self._keys[:, copy, :, :tiles] = self._keys[:, slot, :, :tiles]
                self._values[:, copy, :, :n] = self._values[:, slot, :, :n]
                slot = copy
            taken.add(slot)
            slots.append(slot)
        self._ids, self._slots = [list(self._ids[row]) for row in rows], slots

    def most_rows(self, tokens: int) -> int:
        """How many texts that grow to so many tokens may be in a batch: `BATCH_BYTES` of memory, `MAX_ROWS`."""
        c = self.config
        places = -(-min(tokens, c.block_size) // TILE) * TILE
        text = 8 * c.n_layer * c.n_embd * places + 8 * c.vocab_size  # keys and values, and logits
        whole: int = self._keys.nbytes // self._keys.shape[1] * 2
        # What is reserved and not written takes no memory, but some systems do not reserve more than they have.
        return max(1, min(MAX_ROWS, BATCH_BYTES // text, 8 * BATCH_BYTES // whole))

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        size = self.config.vocab_size
        if not all(len(ids) and all(0 <= token < size for token in ids) for ids in prompts):
            raise ValueError(f"token ids must be 0 to {size - 1}, and one at least")

    def _begin(self, prompts: Sequence[Sequence[int]]) -> None:
        self._check(prompts)
        if not prompts:
            raise ValueError("there is no prompt")
        self._ids, self._slots = [], []
        if len(prompts) > self._keys.shape[1]:
            self._grow(len(prompts))
        self._ids = [list(ids[-self.config.block_size :]) for ids in prompts]
        self._slots = list(range(len(prompts)))

    def _cache(self, slots: int) -> tuple[Array, Array]:
        """Keys and values of so many texts; only what is written takes memory."""
        c = self.config
        keys = (c.n_layer, slots, c.n_head, -(-c.block_size // TILE), c.head_size, TILE)
        return reserved(keys), reserved((c.n_layer, slots, c.n_head, c.block_size, c.head_size))

    def _grow(self, slots: int) -> None:
        keys, values = self._keys, self._values
        self._keys, self._values = self._cache(slots)
        for ids, slot in zip(self._ids, self._slots, strict=True):
            n, tiles = len(ids), -(-len(ids) // TILE)
            self._keys[:, slot, :, :tiles], self._values[:, slot, :, :n] = (
                keys[:, slot, :, :tiles],
                values[:, slot, :, :n],
            )

    def _read(self, rows: Sequence[int], all_logits: bool = False) -> Array:
        """Run whole texts from their beginnings; the logits after the last token of each, or after every one."""
        tokens = [(token, place, self._slots[row]) for row in rows for place, token in enumerate(self._ids[row])]
        ends = set(np.cumsum([len(self._ids[row]) for row in rows]) - 1)
        parts = []
        for start in range(0, len(tokens), _PIECE):
            piece = tokens[start : start + _PIECE]
            wanted = [at for at in range(len(piece)) if all_logits or start + at in ends]
            parts.append(self._run(piece, many=True, wanted=wanted))
        return np.concatenate(parts)

    def _run(self, tokens: Sequence[tuple[int, int, int]], *, many: bool, wanted: Sequence[int] | None = None) -> Array:
        """The logits [R, V] after the wanted tokens, by default all of them."""
        these = np.arange(len(tokens)) if wanted is None else np.array(wanted, np.int64)
        logits = np.empty((len(these), self.config.vocab_size), np.float32)
        team().run(
            forward,
            self._layers,
            self._room,
            self._keys,
            self._values,
            np.array(tokens, np.int64).reshape(-1, 3).T.copy(),
            these,
            logits,
            self.config.layer_norm_epsilon,
            self._largest,
            many,
            threads=self._threads,
        )
        return logits
