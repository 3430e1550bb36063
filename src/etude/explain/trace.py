"""One pass of a model, every number of it told in order, and what the model made of each token.

The `array` engine computes; this file listens (`Recorder`) and asks the head what it would say at every layer (the
logit lens of nostalgebraist 2020). docs/explain.md has the names, shapes and formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from etude.engines.array import Array, ArrayEngine
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig
from etude.sampling import probabilities

from .words import Word, Words

_ALWAYS = ("resid_pre", "*.resid_post", "*.attn.weights", "lm_head")  # kept, as pages and the lens need them

_FIRST = 6  # values that a summary quotes
_ROWS = 64  # positions whose logits [V] are made at once


@dataclass(frozen=True, slots=True)
class Choice:
    """A possible next token: its logit, and its share of the softmax in percent."""

    id: int
    text: str
    logit: float
    percent: float


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was read. Probability and rank (1 is the likeliest) are those given it after the ones before it."""

    id: int
    word: Word
    probability: float | None
    rank: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """An intermediate: its summary, its first values, and all of them where they were kept."""

    name: str
    shape: tuple[int, ...]
    mean: float
    std: float
    smallest: float
    largest: float
    first: tuple[float, ...]
    values: Array | None = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What a model computed from some tokens, t of them. In a notebook it shows its page.

    `steps` has the likeliest next tokens after each of the t tokens. The first `n_prompt` tokens are the prompt, the
    others the model's own. `trace["h.0.attn.weights"]` is an array by its name.
    """

    model: str
    config: GPTConfig
    n_parameters: int
    n_prompt: int
    tokens: tuple[Token, ...] = field(repr=False)
    steps: tuple[tuple[Choice, ...], ...] = field(repr=False)
    operations: tuple[Operation, ...] = field(repr=False)
    _logits: Array = field(repr=False)
    _choices: Callable[[Array], list[tuple[Choice, ...]]] = field(repr=False)
    _engine: ArrayEngine = field(repr=False)

    @property
    def facts(self) -> str:
        """The model's architecture and sizes, to be read."""
        c = self.config
        sizes = ((c.n_layer, "layer"), (c.n_head, "head"))
        counts = ", ".join(f"{n} {what}{'s' * (n != 1)}" for n, what in sizes)
        name = " ".join(filter(None, (c.architecture, c.rung)))
        return f"{name}: {counts}, {c.n_embd} wide, {self.n_parameters:,} parameters"

    def __getitem__(self, name: str) -> Array:
        """The values of an intermediate. Raises `KeyError` for a name that is none or was not kept."""
        for operation in self.operations:
            if operation.name == name and operation.values is not None:
                return operation.values
        raise KeyError(name)

    def lens(self, positions: slice = slice(None)) -> dict[str, tuple[tuple[Choice, ...], ...]]:
        """What each layer would say next after some positions, were it the last, by the name of its residual stream.

        The last norm and the head read the stream after the embeddings and after every layer; the last is `steps`.
        """
        # What `modern` adds to the logits of the tokens that it looked up does not depend on a layer.
        logits = self._logits[positions]  # [p, V]
        without = self["lm_head"][positions] if self.config.architecture == "modern" else logits  # [p, V]
        found = {}
        for name in ("resid_pre", *(f"h.{layer}.resid_post" for layer in range(self.config.n_layer - 1))):
            x, choices = self[name][positions], list[tuple[Choice, ...]]()  # [p, d]
            for start in range(0, len(x), _ROWS):
                rows = slice(start, start + _ROWS)
                choices += self._choices(self._engine.head(x[rows]) + (logits[rows] - without[rows]))
            found[name] = tuple(choices)
        return found | {f"h.{self.config.n_layer - 1}.resid_post": self.steps[positions]}

    def only(self, patterns: Sequence[str]) -> tuple[Operation, ...]:
        """The operations whose names match one of these, such as `h.0.attn.*`. Raises `EtudeError` where none does."""
        for pattern in patterns:
            if not any(fnmatchcase(operation.name, pattern) for operation in self.operations):
                example = self.operations[len(self.operations) // 2].name
                raise EtudeError(f"{pattern}: no intermediate has such a name; names are like {example} or h.0.*")
        return tuple(each for each in self.operations if matches(each.name, patterns))

    def _repr_html_(self) -> str:
        from .page import frame

        return frame(self)


def check_length(config: GPTConfig, ids: Sequence[int], steps: int) -> None:
    """Refuse what does not fit into one pass: each number belongs to one position."""
    if steps < 0:
        raise EtudeError(f"steps must be 0 or more, not {steps}")
    if len(ids) + steps > config.block_size:
        more = f" and {steps:,} steps more" if steps else ""
        raise EtudeError(
            f"the prompt is {len(ids):,} tokens{more}, and the model reads at most {config.block_size:,} at once; "
            f"shorten it"
        )


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is one of these, where `*` stands for anything."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Recorder:
    """A `Note` that keeps a summary of all it is told, and a copy of what it was asked to keep."""

    def __init__(self, keep: Sequence[str]) -> None:
        self.operations: list[Operation] = []
        self._keep = (*keep, *_ALWAYS)

    def __call__(self, name: str, value: Array) -> Array:
        if not np.isfinite(value).all():
            raise EtudeError(f"{name}: not all of its numbers are finite, so the weights are damaged or too large")
        self.operations.append(
            Operation(
                name,
                value.shape,
                float(value.mean(dtype=np.float64)),
                float(value.std(dtype=np.float64)),
                float(value.min()),
                float(value.max()),
                tuple(value.flat[:_FIRST].tolist()),
                value.copy() if matches(name, self._keep) else None,
            )
        )
        return value


def record(
    model: str,
    config: GPTConfig,
    weights: Mapping[str, Array],
    ids: Sequence[int],
    n_prompt: int,
    words: Words,
    counted: int,
    top: int,
    keep: Sequence[str],
) -> Trace:
    """Run the model on `ids`, as many as a block at most, and tell all.

    Probabilities are over the ids below `counted`; `top` next tokens are listed; values are kept of the names that
    match `keep`. Raises `EtudeError` where numbers overflow.
    """
    check_length(config, ids, 0)
    if top < 1:
        raise EtudeError(f"top must be 1 or more, not {top}")
    recorder = Recorder(keep)
    with np.errstate(over="ignore", invalid="ignore"):  # the recorder says where
        logits = ArrayEngine(config, weights, recorder).start_all(ids)  # [t, V]
    said = [_said(row, token) for row, token in zip(logits[:, :counted], ids[1:], strict=False)]
    tokens = [Token(token, words(token), *judged) for token, judged in zip(ids, [(None, None), *said], strict=True)]
    size = sum(array.size for array in weights.values())

    def choices(rows: Array) -> list[tuple[Choice, ...]]:
        return _choices(rows[:, :counted], top, words)

    steps, engine = tuple(choices(logits)), ArrayEngine(config, weights)
    operations = tuple(recorder.operations)
    return Trace(model, config, size, n_prompt, tuple(tokens), steps, operations, logits, choices, engine)


def _said(logits: Array, token: int) -> tuple[float, int] | tuple[None, None]:
    """The probability of a token by the logits [V] before it, and its rank; nothing for one that is not counted."""
    if token >= len(logits):
        return None, None
    return float(probabilities(logits)[token]), int((logits > logits[token]).sum()) + 1


def _choices(logits: Array, top: int, words: Words) -> list[tuple[Choice, ...]]:
    """The `top` likeliest tokens of each row of logits [t, V], likeliest first, then smallest id."""
    found = []
    for row in logits:
        p = probabilities(row)  # [V]
        edge = np.partition(row, -top)[-top] if top < len(row) else row.min()
        ids = np.flatnonzero(row >= edge)
        ids = ids[np.argsort(-row[ids], kind="stable")][:top]
        found.append(tuple(Choice(int(i), words(int(i)).text, float(row[i]), float(100 * p[i])) for i in ids))
    return found
