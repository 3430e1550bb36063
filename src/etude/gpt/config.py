"""What a GPT is made of: its sizes, and from them the name and shape of every parameter.

All engines use these names; they are nanoGPT's and Hugging Face's where those have one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from etude.errors import EtudeError

Architecture = Literal["micro", "modern"]

# `modern` looks up how the context went on after the longest earlier occurrences of what it ends with: this many
# different continuations, with match lengths counted up to this one.
N_MATCH = 2
MAX_MATCH = 12


_LARGEST = {"vocab_size": 1 << 20, "block_size": 1 << 20, "n_layer": 1 << 10, "n_head": 1 << 10, "n_embd": 1 << 16}


class ConfigError(EtudeError):
    """A configuration that describes no model."""


@dataclass(frozen=True, slots=True)
class GPTConfig:
    """Sizes of a model. Impossible ones raise `ConfigError` before anything is loaded."""

    architecture: Architecture
    vocab_size: int
    """Ids run from 0 to vocab_size - 1."""
    block_size: int
    """The longest context, in tokens."""
    n_layer: int
    n_head: int
    n_embd: int
    """Width of the residual stream; a multiple of `n_head`."""

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            raise ConfigError(f"unknown architecture {self.architecture!r}; known: {', '.join(get_args(Architecture))}")
        for name, largest in _LARGEST.items():
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= largest:
                raise ConfigError(f"{name} must be a whole number from 1 to {largest:,}, not {size!r}")
        if self.n_embd % self.n_head:
            raise ConfigError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if self.architecture == "modern" and self.head_size % 2:
            raise ConfigError(f"rotary positions need an even head size, not {self.head_size}")

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(document: dict[str, Any]) -> GPTConfig:
        names = [field.name for field in fields(GPTConfig)]
        missing = [name for name in names if name not in document]
        if missing:
            raise ConfigError(f"missing: {', '.join(missing)}")
        return GPTConfig(**{name: document[name] for name in names})


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter. A matrix is stored [out, in] and used as `x @ W.T`; `c_attn` stacks q, k, v.

    The order is that of `micro`'s initial random draws.
    """
    return _micro_shapes(config) if config.architecture == "micro" else _modern_shapes(config)


def _micro_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    v, d = config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wte": (v, d), "wpe": (config.block_size, d), "lm_head": (v, d)}
    for layer in range(config.n_layer):
        shapes[f"h.{layer}.attn.c_attn"] = (3 * d, d)
        shapes[f"h.{layer}.attn.c_proj"] = (d, d)
        shapes[f"h.{layer}.mlp.c_fc"] = (4 * d, d)
        shapes[f"h.{layer}.mlp.c_proj"] = (d, 4 * d)
    return shapes


def _modern_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    v, d = config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {
        "wte": (v, d),
        "previous": (d, d),
        "match": (N_MATCH, d, d),
        "match_length": (N_MATCH, MAX_MATCH + 1, d),
        "match_gate": (N_MATCH, MAX_MATCH + 1),
        "lm_head": (v, d),
        "lm_bias": (v,),
    }
    for layer in range(config.n_layer):
        shapes[f"h.{layer}.attn.c_attn"] = (3 * d, d)
        shapes[f"h.{layer}.attn.c_proj"] = (d, d)
        shapes[f"h.{layer}.attn.scale"] = (config.n_head,)
        shapes[f"h.{layer}.mlp.c_fc"] = (4 * d, d)
        shapes[f"h.{layer}.mlp.c_proj"] = (d, 4 * d)
    return shapes
