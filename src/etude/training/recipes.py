"""Recipes as data: everything that decides a run, with a sentence a field."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from etude.errors import EtudeError
from etude.gpt.config import Architecture

RECIPE = "recipe.json"  # in the folder of a run
TOKENIZERS = ("char", "plain", "byte")
"""Of a new model: the characters of the corpus and a byte fallback for others, these characters alone, or bytes."""
_NAMES = ("name", "architecture", "rung", "init", "tokenizer")  # fields that say which run it is, and are no settings


class RecipeError(EtudeError):
    """A setting that does not exist or cannot be."""


def _check(recipe: Recipe, at_least_one: Iterable[str]) -> None:
    """What holds for every recipe: no number is negative or endless, and some are at least 1."""
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if isinstance(value, (int, float)) and not value >= 0:
            raise RecipeError(f"{field.name} must not be negative: {value}")
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{field.name} must be finite")
        if isinstance(value, int) and value >= 1 << 63:
            raise RecipeError(f"{field.name} must be below 2^63")
    for name in at_least_one:
        if getattr(recipe, name) < 1:
            raise RecipeError(f"{name} must be at least 1")


@dataclass(frozen=True, slots=True)
class ChordRecipe:
    """One run of a chord model; `config.json` in the run's folder gets the sizes, `recipe.json` all of them."""

    name: str = "chords"
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 192
    block_size: int = 512
    """Longest context in tokens; longer songs are cut at a random place each time."""
    dropout: float = 0.25
    """Share of residual channels dropped from each branch; the embeddings lose half as many."""
    batch_size: int = 16
    """Songs a step."""
    steps: int = 5000
    """Optimiser steps, unless `minutes` sets them."""
    minutes: float = 0.0
    """Wall-clock budget; when not 0, `steps` is set from the speed of the first steps."""
    warmup: int = 50
    """Steps over which the rates rise from 0; after it they fall linearly to 0."""
    learning_rate: float = 2e-3
    """AdamW's rate, for embeddings, gates and the head."""
    matrix_learning_rate: float = 2e-2
    """Muon's rate, for the matrices of the layers."""
    weight_decay: float = 0.01
    """AdamW's decoupled decay."""
    matrix_weight_decay: float = 0.1
    """Muon's decoupled decay."""
    averaging: float = 0.998
    """Decay a step of the running average of the weights; the average is what is validated and kept."""
    plain_share: float = 0.6
    """Share of songs shown in the plain form (changes alone); the others carry tags and lengths."""
    crop_share: float = 0.5
    """Share of the plain songs that begin at a random change, with the anchor that this gives them."""
    tag_dropout: float = 0.3
    """Chance that a full song loses its genre, its key, or all its section tags: prompts seldom have them."""
    min_count: int = 1
    """A chord shape must occur this often in the corpus to become a token."""
    validate_every: int = 500
    """Steps between validations."""
    patience: int = 0
    """The run ends after so many validations in a row that are no better than the best before; 0 for never."""
    checkpoint_every: int = 0
    """Steps between models that stay, each in a folder `step-...` of the run's; 0 for none."""
    progressions: int = 10
    """Times an epoch that each of the bundled standard progressions is shown."""
    seed: int = 1
    """Decides initial weights, order, augmentation and dropout."""
    weights: str = "float16"
    """How the model directory stores weights: float32 or float16."""

    def __post_init__(self) -> None:
        _check(self, ("n_layer", "n_head", "n_embd", "batch_size", "steps", "validate_every"))
        if self.block_size < 16:
            raise RecipeError(f"block_size must be at least 16, not {self.block_size}")
        for name in ("plain_share", "crop_share", "tag_dropout"):
            if getattr(self, name) > 1:
                raise RecipeError(f"{name} is a share and must be at most 1")
        for name in ("dropout", "averaging"):
            if getattr(self, name) >= 1:
                raise RecipeError(f"{name} is a share and must be below 1")
        if self.weights not in ("float32", "float16"):
            raise RecipeError(f"weights must be float32 or float16, not {self.weights!r}")


@dataclass(frozen=True, slots=True)
class MicroRecipe:
    """One run of the smallest GPT on lines of text; with these settings, the reference run."""

    name: str = "micro"
    n_layer: int = 1
    n_head: int = 4
    n_embd: int = 16
    block_size: int = 16
    """Longest context in characters; what a document has beyond it is not trained on."""
    batch_size: int = 1
    """Documents a step."""
    steps: int = 1000
    """Optimiser steps, unless `minutes` sets them."""
    minutes: float = 0.0
    """Wall-clock budget; when not 0, `steps` is set from the speed of the first steps."""
    learning_rate: float = 0.01
    """Adam's rate, falling linearly to 0."""
    beta1: float = 0.85
    """Adam's decay a step of the running mean of gradients."""
    beta2: float = 0.99
    """Adam's decay a step of the running mean of squared gradients."""
    epsilon: float = 1e-8
    """Added to the root of that mean, so that nothing is divided by 0."""
    init_std: float = 0.08
    """Standard deviation of the initial weights."""
    seed: int = 42
    """Decides the order of the documents and the initial weights."""
    precision: str = "float64"
    """Numbers while training and in the model directory: float64 or float32."""

    def __post_init__(self) -> None:
        _check(self, ("n_layer", "n_head", "n_embd", "batch_size", "steps"))
        if self.block_size < 2:
            raise RecipeError(f"block_size must be at least 2, not {self.block_size}")
        for name in ("beta1", "beta2"):
            if getattr(self, name) >= 1:
                raise RecipeError(f"{name} is a decay and must be below 1")
        if self.epsilon == 0:
            raise RecipeError("epsilon must be above 0")
        if self.precision not in ("float64", "float32"):
            raise RecipeError(f"precision must be float64 or float32, not {self.precision!r}")


@dataclass(frozen=True, slots=True)
class TextRecipe:
    """One run of a GPT-2 on a stream of text; with these settings, the small run on a CPU that nanoGPT made known.

    nanoGPT's run leaves out biases; this is GPT-2's own form, which has them.
    """

    name: str = "classic"
    architecture: Architecture = "gpt2"
    rung: str = ""
    """How far up the ladder of docs/ladder, of the architecture `lesson`; empty for others."""
    init: str = ""
    """The model that it began from, by the name of its directory; empty for none."""
    tokenizer: str = "char"
    """Of a new model: one of `TOKENIZERS`, or the name of the file or folder that it is from. Empty: that of the
    model it begins from."""
    n_layer: int = 4
    """0, as in `finetune`: the model's that it begins from. The same holds for the next two."""
    n_head: int = 4
    n_embd: int = 128
    """0 in a recipe that begins from nothing: as wide as the vocabulary, as `bigram` is."""
    block_size: int = 64
    """Tokens in a window of the text, and of a new model the longest context; 0: the model's, but at most 256."""
    dropout: float = 0.0
    """Share that is dropped from embeddings, attention and each branch."""
    batch_size: int = 12
    """Windows a step, each from a random place; of all processes together."""
    micro_batch_size: int = 0
    """Windows that a process computes at once, their gradients summed: less memory for the same step. 0: all."""
    shard: bool = False
    """Whether each of several processes keeps a part of the model and of AdamW's means, instead of all (FSDP2)."""
    steps: int = 2000
    """Optimiser steps, unless `minutes` sets them."""
    minutes: float = 0.0
    """Wall-clock budget; when not 0, `steps` is set from the speed of the first steps."""
    warmup: float = 100.0
    """Steps over which the rate rises from 0; below 1, the share of the run's steps."""
    learning_rate: float = 1e-3
    """AdamW's rate after that, from which it falls along half a cosine."""
    final_learning_rate: float = 1e-4
    """What it falls to at the last step."""
    beta1: float = 0.9
    """AdamW's decay a step of the running mean of gradients."""
    beta2: float = 0.99
    """AdamW's decay a step of the running mean of squared gradients."""
    weight_decay: float = 0.1
    """AdamW's decoupled decay of matrices and embeddings; norms and biases have none."""
    clip: float = 1.0
    """A gradient longer than this is shortened to it; 0 for never."""
    matrix_learning_rate: float = 0.0
    """Muon's rate for the matrices of the layers, `modern` alone; in others AdamW trains them too."""
    ngram_rows: int = 0
    """Rows of the table for each length of n-gram, `modern` alone."""
    ngram_learning_rate: float = 0.0
    """RMSProp's rate for those rows."""
    ngram_dropout: float = 0.0
    """Share of n-grams that are hidden while training, if all of it repeats; less as more of the text is new."""
    matrix_weight_decay: float = 0.0
    """Muon's decoupled decay."""
    precision: str = "float32"
    """What products are computed in while training: float32 or bfloat16; or `auto`, bfloat16 where the device has
    instructions for it. A run keeps what that came to."""
    compile: str = "no"
    """Whether the step is compiled on a processor too, which takes half a minute: `yes` or `no`; or `auto`, in runs of
    `minutes` from 5 on where there is a C++ compiler. A run keeps what that came to."""
    validate_every: int = 500
    """Steps between validations."""
    patience: int = 0
    """The run ends after so many validations in a row that are no better than the best before; 0 for never."""
    checkpoint_every: int = 0
    """Steps between models that stay, each in a folder `step-...` of the run's; 0 for none."""
    keep: str = "last"
    """Which weights become the model: `last`, as in nanoGPT's run, or those of the `best` validation."""
    samples: int = 3
    """Texts that the model writes at every validation."""
    sample_tokens: int = 160
    """The longest that each of them becomes."""
    seed: int = 1337
    """Decides initial weights, windows and dropout."""

    def __post_init__(self) -> None:
        _check(self, ("batch_size", "steps", "validate_every"))
        if self.block_size == 1:
            raise RecipeError("block_size must be at least 2, not 1")
        for name in ("beta1", "beta2", "dropout", "ngram_dropout"):
            if getattr(self, name) >= 1:
                raise RecipeError(f"{name} must be below 1")
        if self.warmup > 1 and self.warmup != int(self.warmup):
            raise RecipeError(f"warmup is a number of steps, or a share below 1, not {self.warmup:g}")
        if (self.architecture == "modern") != bool(self.ngram_rows):
            raise RecipeError(
                f"ngram_rows must be {'at least 1' if self.architecture == 'modern' else '0'} in {self.name}"
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise RecipeError(f"precision must be auto, float32 or bfloat16, not {self.precision!r}")
        if self.compile not in ("auto", "yes", "no"):
            raise RecipeError(f"compile must be auto, yes or no, not {self.compile!r}")
        if self.keep not in ("best", "last"):
            raise RecipeError(f"keep must be best or last, not {self.keep!r}")
        if self.shard and self.architecture != "gpt2":
            raise RecipeError(f"shard is for gpt2, which AdamW trains, not for {self.architecture}")
        if self.final_learning_rate > self.learning_rate:
            raise RecipeError(f"final_learning_rate must be at most learning_rate, {self.learning_rate:g}")
        if self.rung and self.dropout:
            raise RecipeError(f"dropout is 0 in the lesson {self.rung}, not {self.dropout:g}")


def _lesson(rung: str, n_layer: int = 1, n_head: int = 1, n_embd: int = 32, steps: int = 5000) -> TextRecipe:
    """The run of a rung of docs/ladder: a short block, many windows a step, one rate from first to last."""
    return TextRecipe(
        name=rung, architecture="lesson", rung=rung, tokenizer="plain", n_layer=n_layer, n_head=n_head, n_embd=n_embd,
        block_size=8, batch_size=32, steps=steps, warmup=0.0, learning_rate=1e-3, final_learning_rate=1e-3, beta2=0.999,
        weight_decay=0.01, clip=0.0, validate_every=1000,
    )  # fmt: skip


Recipe = ChordRecipe | MicroRecipe | TextRecipe
_R = TypeVar("_R", bound=Recipe)
RECIPES: dict[str, Recipe] = {
    "chords": ChordRecipe(),
    "micro": MicroRecipe(),
    "classic": TextRecipe(),
    "modern": TextRecipe(
        name="modern", architecture="modern", block_size=128, batch_size=16, steps=750, dropout=0.1, warmup=10.0,
        learning_rate=1e-2, final_learning_rate=0.0, beta2=0.95, weight_decay=0.0, clip=0.0, matrix_learning_rate=0.02,
        matrix_weight_decay=0.1, ngram_rows=1 << 14, ngram_learning_rate=0.02, ngram_dropout=0.6, precision="auto",
        compile="auto", validate_every=250, keep="best",
    ),
    "finetune": TextRecipe(
        name="finetune", tokenizer="", n_layer=0, n_head=0, n_embd=0, block_size=0, dropout=0.1, batch_size=4,
        steps=200, warmup=20.0, learning_rate=3e-5, final_learning_rate=3e-6, validate_every=100, keep="best",
        sample_tokens=64,
    ),
    # GPT-2 124M on 10 billion tokens, 2^19 a step: rates and batch are GPT-3's for this size (Brown et al. 2020).
    "gpt2-124m": TextRecipe(
        name="gpt2-124m", tokenizer="", n_layer=12, n_head=12, n_embd=768, block_size=1024, batch_size=512,
        micro_batch_size=32, steps=19_073, warmup=0.05, learning_rate=6e-4, final_learning_rate=6e-5, beta2=0.95,
        validate_every=250,
    ),
    "bigram": _lesson("bigram", n_embd=0, steps=10_000),
    "average": _lesson("average"),
    "head": _lesson("head"),
    "heads": _lesson("heads", n_head=4),
    "mlp": _lesson("mlp", n_head=4),
    "residual": _lesson("residual", n_head=4, n_layer=3),
    "norm": _lesson("norm", n_head=4, n_layer=3),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises `RecipeError`."""
    if name not in RECIPES:
        raise RecipeError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def sized(recipe: _R, size: int) -> _R:
    """The recipe with `size` layers, and the rest to match: width in the same proportion, heads as wide as before.

    AdamW's rates fall with the root of the width; Muon's, whose steps have a size of their own, stays, as do steps and
    batch. Raises `RecipeError`.
    """
    if not recipe.n_layer:
        raise RecipeError(
            f"the recipe {recipe.name} takes its sizes from the model that it begins from, not from --size"
        )
    if not recipe.n_embd:
        raise RecipeError(f"the recipe {recipe.name} is as wide as the vocabulary and has no other size")
    if size < 1:
        raise RecipeError(f"size is a number of layers and at least 1, not {size}")
    head_size = recipe.n_embd // recipe.n_head
    heads = max(1, round(recipe.n_embd * size / recipe.n_layer / head_size))
    share = math.sqrt(recipe.n_embd / (heads * head_size))
    rates = ("learning_rate", "final_learning_rate")
    changes: dict[str, Any] = {name: getattr(recipe, name) * share for name in rates if hasattr(recipe, name)}
    return replace(recipe, n_layer=size, n_head=heads, n_embd=heads * head_size, **changes)


def with_settings(recipe: _R, settings: Iterable[str]) -> _R:
    """Apply `key=value` settings. Raises `RecipeError`, with the nearest key where one is unknown."""
    known = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe) if field.name not in _NAMES}
    changes: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set takes key=value, not {setting!r}")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise RecipeError(f"recipe {recipe.name!r} has no setting {key!r}{hint}")
        try:
            changes[key] = {"true": True, "false": False}[value.lower()] if known[key] is bool else known[key](value)
        except KeyError:
            raise RecipeError(f"{key} takes true or false, not {value!r}") from None
        except ValueError:
            wanted = "a whole number" if known[key] is int else "a number"
            raise RecipeError(f"{key} takes {wanted}, not {value!r}") from None
    return replace(recipe, **changes)
