"""What all engines share: start with a prompt, step by one token, logits out; and how one is found by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.gpt.config import PRECISIONS, Architecture, GPTConfig, Precision

Array = NDArray[Any]  # float32 or float64

ENGINES: dict[str, tuple[Architecture, ...]] = {
    "scalar": ("micro",),
    "array": ("micro", "gpt2", "modern", "lesson"),
    "compiled": ("micro", "gpt2"),
    "tensor": ("micro", "gpt2", "modern", "lesson"),
}
"""Each engine's name, and the architectures that it runs."""

BATCH_BYTES, MAX_ROWS = 1 << 30, 256
"""The memory for the keys, values and logits of a batch, and the most texts that it holds (more gain nothing)."""

_NEEDS = {"compiled": ("numba", "Numba", "fast"), "tensor": ("torch", "PyTorch", "train")}


class Engine(Protocol):
    """V is the vocabulary, t the number of tokens read. A context beyond `block_size` goes on with its newest half."""

    def start(self, prompt: Sequence[int]) -> Array:
        """Forget everything, read `prompt` (one token at least), return the logits [V] of the token after it."""

    def start_all(self, prompt: Sequence[int]) -> Array:
        """As `start`, with the logits [t, V] after each of the prompt's tokens, at most `block_size` of them."""

    def step(self, token: int) -> Array:
        """Add one token, return the logits [V] of the one after it."""


class BatchEngine(Protocol):
    """An engine that goes on with B texts at once. Each gets the logits that it would get alone.

    The texts of a batch are numbered from 0; their lengths are their own, and so is the newest half that each goes on
    with beyond a block.
    """

    def start_batch(self, prompts: Sequence[Sequence[int]]) -> Array:
        """Forget everything, read the prompts (one at least), return the logits [B, V] of the token after each."""

    def step_batch(self, tokens: Sequence[int]) -> Array:
        """Add one token to each text, return the logits [B, V] of those after them."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with the texts of these numbers, in this order; one that is named twice goes on twice."""

    def most_rows(self, tokens: int) -> int:
        """How many texts that grow to so many tokens may be in a batch, for all they keep to stay in `BATCH_BYTES`."""


@runtime_checkable
class PackedEngine(BatchEngine, Protocol):
    """An engine whose weights were worth some work."""

    def fresh(self) -> PackedEngine:
        """An engine with the same weights and an empty context."""


class OneRow:
    """An engine without batches as one whose batches hold a single text."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def start_batch(self, prompts: Sequence[Sequence[int]]) -> Array:
        (prompt,) = prompts
        return np.asarray(self._engine.start(prompt))[None]

    def step_batch(self, tokens: Sequence[int]) -> Array:
        (token,) = tokens
        return np.asarray(self._engine.step(token))[None]

    def keep(self, rows: Sequence[int]) -> None:
        if list(rows) != [0]:
            raise ValueError(f"there is one text, number 0, to go on with once; not {list(rows)}")

    def most_rows(self, tokens: int) -> int:
        return 1


def in_batches(engine: Engine) -> BatchEngine:
    """The engine itself where it knows batches, else with batches of one."""
    return cast("BatchEngine", engine) if hasattr(engine, "start_batch") else OneRow(engine)


class EngineError(EtudeError):
    """An engine that does not exist, is not installed or does not run this model."""


def is_installed(name: str) -> bool:
    """Whether what the engine needs can be imported."""
    return name not in _NEEDS or find_spec(_NEEDS[name][0]) is not None


def check_engine(name: str, config: GPTConfig | None = None, precision: Precision | None = None) -> None:
    """Raise `EngineError` unless there is such an engine here, and it runs such a model, in that precision.

    By default the precision is the one that the model is stored in.
    """
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}; known: {', '.join(ENGINES)}")
    if config is not None and config.architecture not in ENGINES[name]:
        able = [engine for engine, architectures in ENGINES.items() if config.architecture in architectures]
        raise EngineError(f"the engine {name} does not run {config.architecture} models; these do: {', '.join(able)}")
    stored = config.precision if config is not None else "float32"
    precision = precision or stored
    if precision not in PRECISIONS:
        raise EngineError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if stored not in ("float32", precision):
        raise EngineError(f"the model is stored in {stored} and does not run in {precision}; use the original")
    if precision != "float32" and (name != "compiled" or (config is not None and config.architecture != "gpt2")):
        missing = "" if is_installed("compiled") else ", which needs Numba: pip install 'etude[fast]'"
        only = "" if config is None or config.architecture == "gpt2" else f", and not for a {config.architecture} model"
        raise EngineError(f"{precision} runs in the engine compiled alone{only}{missing}")
    if not is_installed(name):
        _, needed, extra = _NEEDS[name]
        raise EngineError(f"the engine {name} needs {needed}: pip install 'etude[{extra}]'")


def default_engine(config: GPTConfig) -> str:
    """The fastest engine here that is ready at once: compiled code for GPT-2, where Numba is installed."""
    return "compiled" if config.architecture == "gpt2" and is_installed("compiled") else "array"


def make_engine(
    name: str,
    config: GPTConfig,
    weights: Mapping[str, Array],
    say: Callable[[str], None] = lambda message: None,
    precision: Precision | None = None,
) -> Engine:
    """A new engine with these weights and an empty context; `say` tells what takes long. Raises `EngineError`."""
    check_engine(name, config, precision)
    if name == "scalar":
        return _ScalarEngine(config, weights)
    if name == "compiled" and config.architecture == "gpt2":
        from .decoder import CompiledDecoder

        return CompiledDecoder(config, weights, precision, say)
    if name == "compiled":
        from .compiled import CompiledEngine

        return CompiledEngine(config, weights, say)
    if name == "tensor":
        from .tensor_engine import TensorEngine

        return TensorEngine(config, weights)
    from .array import ArrayEngine

    return ArrayEngine(config, weights)


class _ScalarEngine:
    """The scalar GPT, whose logits are lists, behind the face of the others."""

    def __init__(self, config: GPTConfig, weights: Mapping[str, Array]) -> None:
        from .scalar import GPT

        self._gpt = GPT({name: array.tolist() for name, array in weights.items()}, config.n_head)
        self._vocab_size = config.vocab_size

    def start(self, prompt: Sequence[int]) -> Array:
        return np.array(self._gpt.start(self._checked(prompt)))

    def start_all(self, prompt: Sequence[int]) -> Array:
        return np.array(self._gpt.start_all(self._checked(prompt)))

    def step(self, token: int) -> Array:
        return np.array(self._gpt.step(*self._checked([token])))

    def _checked(self, ids: Sequence[int]) -> Sequence[int]:
        if not len(ids) or not all(0 <= token < self._vocab_size for token in ids):
            raise ValueError(f"token ids must be 0 to {self._vocab_size - 1}, one at least")
        return ids
