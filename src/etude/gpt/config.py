"""What a GPT is made of: its sizes, and from them the name and shape of every parameter.

All engines use these names; they are nanoGPT's and Hugging Face's where those have one. A `gpt2` model keeps Hugging
Face's own configuration document and parameter names, so that its directory is theirs as well as ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from etude.errors import EtudeError

Architecture = Literal["micro", "gpt2", "modern", "lesson"]
Precision = Literal["float32", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

RUNGS = ("bigram", "average", "head", "heads", "mlp", "residual", "norm")
"""The rungs of `lesson`, from a table of pairs to a transformer: each has what those before it add, and one thing more
(but for the table itself, which makes way for embeddings)."""

# `modern` looks up how the context went on after the longest earlier occurrences of what it ends with: this many
# different continuations, with match lengths counted up to this one.
N_MATCH = 2
MAX_MATCH = 12

# Or it knows the last tokens by sight: for each of these lengths there is a table of rows, of which the last so many
# tokens have one, found by hashing them. Row 0 is zero and stands for an n-gram that begins before the context does.
NGRAMS = (2, 3, 4, 5)

# How a matrix in fewer bits is stored: rows and the numbers in them are rounded up with zeros to multiples of these. In
# int4 a group of so many numbers of a row has a scale of its own, in int8 the row has.
ROWS = 16
GROUP = 64

_LARGEST = {"vocab_size": 1 << 20, "block_size": 1 << 20, "n_layer": 1 << 10, "n_head": 1 << 10, "n_embd": 1 << 16}
_MOST_ROWS = 1 << 24

# What a `gpt2` document of Hugging Face may say, with its default, and the values with which it is GPT-2 as OpenAI
# released it, the one that the engines compute. (`transformers.GPT2Config`; the two GELUs are the same tanh formula.)
_COMPUTED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "activation_function": ("gelu_new", ("gelu_new", "gelu_pytorch_tanh")),
    "scale_attn_weights": (True, (True,)),
    "scale_attn_by_inverse_layer_idx": (False, (False,)),
    "reorder_and_upcast_attn": (False, (False,)),
    "add_cross_attention": (False, (False,)),
    "is_encoder_decoder": (False, (False,)),
    "quantization_config": (None, (None,)),
}


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
    layer_norm_epsilon: float = 1e-5
    """Only `gpt2`, as are all below: what LayerNorm adds to the variance."""
    tie_word_embeddings: bool = True
    """Whether the head is the table of token embeddings, or a matrix of its own."""
    bos_token_id: int | None = None
    """Stands before a text; the whole prompt where that is empty."""
    eos_token_id: int | None = None
    """Ends a text."""
    precision: Precision = "float32"
    """What the matrices are stored in. Fewer bits run in the `compiled` engine alone."""
    ngram_rows: int = 0
    """Only `modern`: rows of the table for each length of n-gram, or 0 for a model that looks up matches instead."""
    rung: str = ""
    """Only `lesson`, and there one of `RUNGS`."""

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
        rows = self.ngram_rows
        if type(rows) is not int or not 0 <= rows <= _MOST_ROWS or (rows and self.architecture != "modern"):
            raise ConfigError(f"ngram_rows must be from 0 to {_MOST_ROWS:,}, and 0 but for modern, not {rows!r}")
        epsilon = self.layer_norm_epsilon
        if not isinstance(epsilon, float) or not 0 < epsilon < 1:
            raise ConfigError(f"layer_norm_epsilon must be a number between 0 and 1, not {epsilon!r}")
        if not isinstance(self.tie_word_embeddings, bool):
            raise ConfigError(f"tie_word_embeddings must be true or false, not {self.tie_word_embeddings!r}")
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(self, name)
            if token is not None and (type(token) is not int or not 0 <= token < self.vocab_size):
                raise ConfigError(f"{name} must be a token id below {self.vocab_size:,}, not {token!r}")

        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}; known: {', '.join(PRECISIONS)}")
        if self.precision != "float32" and self.architecture != "gpt2":
            raise ConfigError(f"only gpt2 is stored in {self.precision}, not {self.architecture}")
        if self.architecture == "lesson":
            self._check_rung()
        elif self.rung != "":
            raise ConfigError(f"only lesson has a rung, not {self.architecture}")

    def _check_rung(self) -> None:
        if self.rung not in RUNGS:
            raise ConfigError(f"unknown rung {self.rung!r}; known: {', '.join(RUNGS)}")
        for name, rung in (("n_head", "heads"), ("n_layer", "residual")):
            if getattr(self, name) > 1 and not self.climbed(rung):
                raise ConfigError(
                    f"{name} is 1 before the rung {rung}, so on {self.rung} it is not {getattr(self, name)}"
                )
        if self.rung == "bigram" and self.n_embd != self.vocab_size:
            raise ConfigError(
                f"the rows of bigram are logits: n_embd is vocab_size, {self.vocab_size:,}, not {self.n_embd}"
            )

    def climbed(self, rung: str) -> bool:
        """Whether a `lesson` has what this rung adds."""
        return RUNGS.index(self.rung) >= RUNGS.index(rung)

    @property
    def head_size(self) -> int:
        return self.n_embd // self.n_head

    @property
    def head(self) -> str:
        """The parameter [V, d] that logits are products with in float32, a matrix of its own or the embeddings.

        The first rung of `lesson` has none: its rows are logits.
        """
        if self.architecture == "gpt2":
            return "wte.weight" if self.tie_word_embeddings else "lm_head.weight"
        return "wte" if self.ngram_rows else "lm_head"

    def to_dict(self) -> dict[str, Any]:
        """The document of `config.json`; for `gpt2` in float32 it is one that `transformers` reads."""
        if self.architecture != "gpt2":
            names = _names(self.architecture) + (["ngram_rows"] if self.ngram_rows else [])
            return {name: getattr(self, name) for name in names}
        if self.precision != "float32":  # what `transformers` would fill with random numbers must not look like its own
            return {name: value for name, value in asdict(self).items() if name not in ("ngram_rows", "rung")}
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": self.vocab_size,
            "n_positions": self.block_size,
            "n_ctx": self.block_size,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_embd": self.n_embd,
            "n_inner": None,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "tie_word_embeddings": self.tie_word_embeddings,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
        }

    @staticmethod
    def from_dict(document: dict[str, Any]) -> GPTConfig:
        """Read what `to_dict` wrote, or a `gpt2` document of Hugging Face. Raises `ConfigError`."""
        if "model_type" in document:
            return _from_hugging_face(document)
        names = _names(document.get("architecture"))
        if document.get("precision", "float32") != "float32":
            names = [field.name for field in fields(GPTConfig) if field.name not in ("ngram_rows", "rung")]
        if "ngram_rows" in document and "ngram_rows" not in names:
            names.append("ngram_rows")
        _require(document, names)
        return GPTConfig(**{name: document[name] for name in names})


def _names(architecture: object) -> list[str]:
    """The fields that the document of an architecture other than `gpt2` has."""
    return ["architecture", *(["rung"] if architecture == "lesson" else []), *_LARGEST]


def _require(document: dict[str, Any], names: Iterable[str]) -> None:
    missing = [name for name in names if name not in document]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")


def _from_hugging_face(document: dict[str, Any]) -> GPTConfig:
    """A `gpt2` document as `transformers` writes it. What would need other formulas is refused, not ignored."""
    if document["model_type"] != "gpt2":
        raise ConfigError(f"model_type {document['model_type']!r} is not one that runs here; gpt2 is")
    for name, (default, computed) in _COMPUTED.items():
        value = document.get(name, default)
        if value not in computed:
            raise ConfigError(f"{name} {value!r} is not computed here; {' or '.join(map(repr, computed))} is")
    # GPT-2's first documents called the block n_ctx alone.
    positions = "n_positions" if "n_positions" in document or "n_ctx" not in document else "n_ctx"
    _require(document, ("vocab_size", positions, "n_layer", "n_head", "n_embd"))
    config = GPTConfig(
        "gpt2",
        document["vocab_size"],
        document[positions],
        document["n_layer"],
        document["n_head"],
        document["n_embd"],
        document.get("layer_norm_epsilon", 1e-5),
        document.get("tie_word_embeddings", True),
        _token(document, "bos_token_id"),
        _token(document, "eos_token_id"),
    )
    inner = document.get("n_inner")
    if inner is not None and inner != 4 * config.n_embd:
        raise ConfigError(f"n_inner {inner!r} is not computed here; four times n_embd ({4 * config.n_embd}) is")
    return config


def _token(document: dict[str, Any], name: str) -> int | None:
    """A token's id; None where the document names several, or one that the vocabulary does not have.

    `transformers` writes GPT-2's own 50256 for a model of any vocabulary that was told no other.
    """
    token, size = document.get(name), document["vocab_size"]
    return token if type(token) is int and type(size) is int and 0 <= token < size else None


def parameter_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter, for `micro` in the order of its initial random draws.

    A matrix of `micro`, `modern` or `lesson` is stored [out, in] and used as `x @ W.T`; one of `gpt2` [in, out], used
    as `x @ W + b`. Embeddings and heads are [V, d] in all. `c_attn` stacks q, k, v along its outputs. In fewer bits the
    layers are stacked and a matrix is three arrays, numbers, scales and bias, whose rows are outputs.
    """
    if config.architecture == "gpt2":
        return _gpt2_shapes(config) if config.precision == "float32" else _packed_shapes(config)
    if config.architecture == "lesson":
        return _lesson_shapes(config)
    return _micro_shapes(config) if config.architecture == "micro" else _modern_shapes(config)


def _gpt2_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    v, d = config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (v, d), "wpe.weight": (config.block_size, d)}

    def norm(name: str) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (d,), (d,)

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (inputs, outputs), (outputs,)

    for layer in range(config.n_layer):
        norm(f"h.{layer}.ln_1")
        linear(f"h.{layer}.attn.c_attn", d, 3 * d)
        linear(f"h.{layer}.attn.c_proj", d, d)
        norm(f"h.{layer}.ln_2")
        linear(f"h.{layer}.mlp.c_fc", d, 4 * d)
        linear(f"h.{layer}.mlp.c_proj", 4 * d, d)
    norm("ln_f")
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (v, d)
    return shapes


def _packed_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    n, v, d = config.n_layer, config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wpe": (config.block_size, d), "norms": (n, 2, 2, d), "last_norm": (2, d)}
    matrices = {"c_attn": (n, 3 * d, d), "attn_proj": (n, d, d), "c_fc": (n, 4 * d, d), "mlp_proj": (n, d, 4 * d)}
    matrices |= dict.fromkeys(("wte",) if config.tie_word_embeddings else ("wte", "head"), (1, v, d))
    for name, (count, outputs, inputs) in matrices.items():
        rows, groups = -(-outputs // ROWS) * ROWS, -(-inputs // GROUP)
        shapes[f"{name}.numbers"] = (count, rows, groups * GROUP // (1 if config.precision == "int8" else 2))
        shapes[f"{name}.scales"] = (count, rows, 1 if config.precision == "int8" else groups)
        shapes[f"{name}.bias"] = (count, rows)
    return shapes


def _micro_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    v, d = config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wte": (v, d), "wpe": (config.block_size, d), "lm_head": (v, d)}
    for layer in range(config.n_layer):
        shapes[f"h.{layer}.attn.c_attn"] = (3 * d, d)
        shapes[f"h.{layer}.attn.c_proj"] = (d, d)
        shapes[f"h.{layer}.mlp.c_fc"] = (4 * d, d)
        shapes[f"h.{layer}.mlp.c_proj"] = (d, 4 * d)
    return shapes


def _lesson_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    v, d = config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wte": (v, d)}
    if config.rung == "bigram":
        return shapes
    shapes |= {"wpe": (config.block_size, d), "lm_head": (v, d)}

    def norm(name: str) -> None:
        if config.climbed("norm"):
            shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (d,), (d,)

    for layer in range(config.n_layer):
        norm(f"h.{layer}.ln_1")
        if config.climbed("head"):
            shapes[f"h.{layer}.attn.c_attn"] = (3 * d, d)
        if config.climbed("heads"):
            shapes[f"h.{layer}.attn.c_proj"] = (d, d)
        norm(f"h.{layer}.ln_2")
        if config.climbed("mlp"):
            shapes[f"h.{layer}.mlp.c_fc"] = (4 * d, d)
            shapes[f"h.{layer}.mlp.c_proj"] = (d, 4 * d)
    norm("ln_f")
    return shapes


def _modern_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    v, d = config.vocab_size, config.n_embd
    shapes: dict[str, tuple[int, ...]] = {"wte": (v, d)}
    if config.ngram_rows:
        shapes["ngrams"] = (1 + len(NGRAMS) * config.ngram_rows, d)
    else:
        shapes["previous"] = (d, d)
        shapes["match"] = (N_MATCH, d, d)
        shapes["match_length"] = (N_MATCH, MAX_MATCH + 1, d)
        shapes["match_gate"] = (N_MATCH, MAX_MATCH + 1)
        shapes["lm_head"] = (v, d)
    shapes["lm_bias"] = (v,)
    for layer in range(config.n_layer):
        shapes[f"h.{layer}.attn.c_attn"] = (3 * d, d)
        shapes[f"h.{layer}.attn.c_proj"] = (d, d)
        shapes[f"h.{layer}.attn.scale"] = (config.n_head,)
        shapes[f"h.{layer}.mlp.c_fc"] = (4 * d, d)
        shapes[f"h.{layer}.mlp.c_proj"] = (d, 4 * d)
    return shapes
