"""How well a model says a text: the cost of every token but the first, by token, by character and by byte.

A text is a stream, in the same windows as when a model is validated on it in training, or documents a line, as `micro`
reads them. What tokens begin or end a text with is scored too, and adds neither a character nor a byte.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.engines.engine import Engine
from etude.tokens.tokenizer import TextTokenizer

from .evaluation import ratio, windows

Floats = NDArray[np.float64]
Costs = Callable[[NDArray[Any]], NDArray[Any]]
"""Rows of ids [b, t + 1] -> what each but the first costs, in nats, [b, t]."""

_LOGITS = 1 << 24  # that a batch has at most, if it is of more rows than one
_ROWS = 64
_PIECE = 128  # rows of logits that are made probabilities together


def costs(engine: Engine) -> Costs:
    """How an engine scores rows: all at once where it can, else one by one."""
    batched: Costs | None = getattr(engine, "nats", None)
    return batched or (lambda rows: np.stack([_row_costs(engine, row) for row in rows]))


def _row_costs(engine: Engine, row: NDArray[Any]) -> Floats:
    logits, parts = engine.start_all(row[:-1].tolist()), []  # [t, V]
    for start in range(0, len(logits), _PIECE):
        piece = np.asarray(logits[start : start + _PIECE], np.float64)
        piece = piece - piece.max(axis=1, keepdims=True)
        right = piece[np.arange(len(piece)), row[start + 1 : start + 1 + len(piece)]]
        parts.append(np.log(np.exp(piece).sum(axis=1)) - right)
    return np.concatenate(parts)


def score(
    documents: Sequence[NDArray[Any]],
    nats: Costs,
    tokenizer: TextTokenizer,
    block_size: int,
    by_window: bool,
    watch: Callable[[Sequence[Any]], Iterable[Any]] = lambda batches: batches,
) -> dict[str, Any]:
    """The document of `etude eval` for documents of ids, every one of which is scored but each document's first:

        {"tokens", "characters", "bytes", "units", and, each {"value", "se"}, "nats_per_token", "bits_per_token",
         "bits_per_character", "bits_per_byte", "perplexity"}

    The unit of the standard errors is the document, or with `by_window` the window of `evaluation.windows`; then they
    are too small where neighbours are alike. `watch` sees the batches as they are taken.
    """
    cut = [(d, *window) for d, ids in enumerate(documents) for window in windows(len(ids) - 1, block_size)]
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, (_, start, _, end) in enumerate(cut):
        by_length[end - start].append(number)
    vocab_size = max(1, tokenizer.vocab_size)
    batches = []
    for length, numbers in by_length.items():
        rows = max(1, min(_ROWS, _LOGITS // (length * vocab_size)))
        batches += [numbers[at : at + rows] for at in range(0, len(numbers), rows)]
    said = said_by(tokenizer)  # [V, 2]
    totals = np.zeros((len(cut) if by_window else len(documents), 4))  # nats, tokens, characters and bytes of each unit
    for batch in watch(batches):
        ids = np.stack([documents[d][start : end + 1] for d, start, _, end in (cut[number] for number in batch)])
        found = np.asarray(nats(ids), np.float64)  # [b, t]
        for number, row, cost in zip(batch, ids, found, strict=True):
            d, start, scored, _ = cut[number]
            new = scored - start  # what is before was scored in the window before
            sizes = said[row[1 + new :]].sum(axis=0)
            totals[number if by_window else d] += (cost[new:].sum(), len(cost) - new, *sizes)
    return _summary(totals)


def said_by(tokenizer: TextTokenizer) -> NDArray[np.int64]:
    """How many characters and bytes of a text each id says, [V, 2]; of a character in several tokens, the first."""
    pieces, end = tokenizer.pieces(range(tokenizer.vocab_size)), tokenizer.end_id
    pieces = [b"" if id_ == end else piece for id_, piece in enumerate(pieces)]
    return np.array([(sum(byte & 0xC0 != 0x80 for byte in piece), len(piece)) for piece in pieces])


def _summary(totals: Floats) -> dict[str, Any]:
    """From nats, tokens, characters and bytes of each unit [n, 4]."""
    nats, bits = totals[:, 0], totals[:, 0] / math.log(2)
    _, tokens, characters, count = totals.sum(axis=0)
    per_token = ratio(nats, totals[:, 1])
    value, error = per_token["value"], per_token["se"]
    perplexity = None if value is None else math.exp(min(value, 700.0))
    return {
        "tokens": int(tokens),
        "characters": int(characters),
        "bytes": int(count),
        "units": len(totals),
        "nats_per_token": per_token,
        "bits_per_token": ratio(bits, totals[:, 1]),
        "bits_per_character": ratio(bits, totals[:, 2]),
        "bits_per_byte": ratio(bits, totals[:, 3]),
        # To first order: the slope of e^x is e^x.
        "perplexity": {
            "value": perplexity,
            "se": None if perplexity is None or error is None else perplexity * error,
        },
    }
