"""`etude bench ablations`: `modern` of text with one part taken out or replaced at a time, each with the same seeds.

What is left out costs as much to read as what is kept, so what does not pay is not in the engine: the alternatives live
here alone, as changes of a recipe (`change`), of the course of its steps (`course`) or of a learner (`alter`). Runs of
one seed begin with the same weights and see the same windows, so a difference is taken seed by seed. Losses are of full
passes over the held-out tenth, on which the parts were also chosen. It takes hours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from etude.corpus.text import find_sources
from etude.engines.tensor_modern import Block, TextGPT, attend, rms_norm, rotate
from etude.errors import EtudeError
from etude.training.evaluation import score_stream
from etude.training.learner import Learner, repeated
from etude.training.optimizers import Muon, adamw
from etude.training.reading import Parts, Reading
from etude.training.recipes import TextRecipe, recipe
from etude.training.runs import keep_freed_memory
from etude.training.text import Beginning, begin, draw

from .learning import SEEDS

STEPS = (60, 150)  # of short runs: 0.12 and 0.3 million tokens, so that tiny Shakespeare is not seen twice

Row = dict[str, Any]
Report = Callable[[str], None]
Norm = Callable[[Tensor], Tensor]


def _same(settings: TextRecipe) -> TextRecipe:
    return settings


def _as_planned(settings: TextRecipe, step: int) -> TextRecipe:
    return settings


def _nothing(learner: Learner, settings: TextRecipe) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Variant:
    """`modern` with one thing changed."""

    name: str
    change: Callable[[TextRecipe], TextRecipe] = _same
    """Of the recipe."""
    course: Callable[[TextRecipe, int], TextRecipe] = _as_planned
    """The recipe as it is in a step."""
    alter: Callable[[Learner, TextRecipe], None] = _nothing
    """Of the learner, before its first step."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to: nats a token of the held-out text, and seconds of processor time a step."""

    nats: float
    seconds: float


def setting(name: str, **changes: Any) -> Variant:
    """A variant that the recipe has a setting for."""
    return Variant(name, lambda settings: replace(settings, **changes))


# Optimisers.


class AdamMatrices:
    """AdamW where Muon was."""

    def __init__(self, matrices: Sequence[nn.Parameter], settings: TextRecipe) -> None:
        self.adam = adamw([(matrices, settings.matrix_weight_decay)], (settings.beta1, settings.beta2))

    def step(self, learning_rate: float) -> None:
        self.adam.param_groups[0]["lr"] = learning_rate
        self.adam.step()

    def zero_grad(self) -> None:
        self.adam.zero_grad()


def _adam(learner: Learner, settings: TextRecipe) -> None:
    assert learner.muon is not None
    learner.muon = cast(Muon, AdamMatrices(learner.muon.matrices, settings))  # it is asked for no more than this


def _schedule(shape: Callable[[float], float], settings: TextRecipe, step: int) -> TextRecipe:
    """Rates with another shape after the warm-up: `shape` of the share of the run that is done."""
    warmup = int(settings.warmup)
    done = (step - warmup) / max(1, settings.steps - warmup)
    share = (step + 1) / (warmup + 1) if step < warmup else shape(done)
    rates = ("learning_rate", "matrix_learning_rate", "ngram_learning_rate")
    now: dict[str, Any] = {name: getattr(settings, name) * share for name in rates}
    # A rate that ends where it begins is constant, so this step's share is all that changes it.
    return replace(settings, warmup=0, final_learning_rate=now["learning_rate"], **now)


def _growing(settings: TextRecipe, step: int) -> TextRecipe:
    """A third of the tokens in batches half as large, a third in the recipe's, a third in twice as large ones."""
    thirds = settings.steps * 4 // 7, settings.steps * 6 // 7
    half = settings.batch_size // 2
    return replace(settings, batch_size=half if step < thirds[0] else 2 * half if step < thirds[1] else 4 * half)


def _more_steps(settings: TextRecipe) -> TextRecipe:
    """As many as `_growing` needs for the same tokens."""
    return replace(settings, steps=settings.steps * 7 // 6)


def _resized(settings: TextRecipe, block: float = 1, batch: float = 1, steps: float = 1) -> TextRecipe:
    """Sizes of a step, and how many of them, times these."""
    times = {"block_size": block, "batch_size": batch, "steps": steps}
    sizes: dict[str, Any] = {name: int(getattr(settings, name) * factor) for name, factor in times.items()}
    return replace(settings, **sizes)


# The model.


@dataclass(frozen=True, slots=True)
class Choices:
    """Where `forward` may differ from `modern`'s own."""

    embedding_norm: Norm = rms_norm
    norm: Norm = rms_norm
    """Before each branch, and before the head."""
    head_norm: Norm = rms_norm
    """Of queries and keys."""
    activation: Norm = lambda x: F.relu(x).square()
    head: Callable[[TextGPT], Tensor] = lambda model: model.wte
    """The matrix [V, d] that logits are products with."""


def forward(model: TextGPT, choices: Choices, ids: Tensor, known: Tensor | None = None) -> Tensor:
    """`TextGPT.forward`, written out with choices: logits [b, t, V] from ids [b, t]."""
    known = model.known(model.rows(ids)) if known is None else known
    x = model.dropout(choices.embedding_norm(F.embedding(ids, model.wte) + known))  # [b, t, d]
    trunk, (b, t, d) = model.trunk, x.shape
    dtype = trunk.compute if model.training else torch.float32
    cos, sin = trunk.cos[:t].to(dtype), trunk.sin[:t].to(dtype)
    for module in trunk.blocks:
        block = cast(Block, module)
        qkv = choices.norm(x).to(dtype) @ block.c_attn.to(dtype).T
        q, k, v = qkv.view(b, t, 3, block.n_head, block.head_size).permute(2, 0, 3, 1, 4)  # [b, h, t, k] each
        q, k = rotate(choices.head_norm(q), cos, sin), rotate(choices.head_norm(k), cos, sin)
        y = attend(q * block.scale.to(dtype)[:, None, None], k, v)
        x = x + block.dropout(y.transpose(1, 2).reshape(b, t, d) @ block.attn_proj.to(dtype).T)
        hidden = choices.activation(choices.norm(x).to(dtype) @ block.c_fc.to(dtype).T)  # [b, t, 4d]
        x = x + block.dropout(hidden @ block.mlp_proj.to(dtype).T)
    logits: Tensor = (choices.norm(x).to(dtype) @ choices.head(model).to(dtype).T).float() + model.lm_bias
    return logits


def _chosen(learner: Learner, settings: TextRecipe, choices: Choices) -> None:
    model = _model(learner)
    model.forward = partial(forward, model, choices)  # type: ignore[method-assign]


def computed(name: str, choices: Choices) -> Variant:
    """A variant that computes otherwise, with the same parameters."""
    return Variant(name, alter=partial(_chosen, choices=choices))


def _model(learner: Learner) -> TextGPT:
    assert isinstance(learner.model, TextGPT)
    return learner.model


def _blocks(learner: Learner) -> list[Block]:
    return [cast(Block, module) for module in _model(learner).trunk.blocks]


def _layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, (x.shape[-1],))


def _no_positions(learner: Learner, settings: TextRecipe) -> None:
    trunk = _model(learner).trunk
    trunk.cos.fill_(1)
    trunk.sin.zero_()


def _learned_positions(learner: Learner, settings: TextRecipe) -> None:
    """A row for each position, added to the embeddings, instead of rotation."""
    _no_positions(learner, settings)
    model = _model(learner)
    wpe = nn.Parameter(0.02 * torch.randn(settings.block_size, settings.n_embd))
    model.register_parameter("wpe", wpe)
    learner.adam.add_param_group({"params": [wpe], "weight_decay": 0.0})
    model.trunk.register_forward_pre_hook(lambda trunk, inputs: (inputs[0] + wpe[: inputs[0].shape[1]],))


@torch.no_grad()
def _random_projections(learner: Learner, settings: TextRecipe) -> None:
    """As the other matrices begin, less for each branch that is added, as GPT-2 has it."""
    bound = (3 / settings.n_embd) ** 0.5 / (2 * settings.n_layer) ** 0.5
    for block in _blocks(learner):
        block.attn_proj.uniform_(-bound, bound)
        block.mlp_proj.uniform_(-bound / 2, bound / 2)  # of 4 d numbers


@torch.no_grad()
def _own_head(learner: Learner, settings: TextRecipe) -> None:
    """A matrix of its own, zero at first; the embeddings then need not begin as small as logits do."""
    model = _model(learner)
    model.wte.mul_(10)
    head = nn.Parameter(torch.zeros_like(model.wte))
    model.register_parameter("lm_head", head)
    learner.adam.add_param_group({"params": [head], "weight_decay": settings.weight_decay})
    _chosen(learner, settings, Choices(head=lambda model: head))


def _no_head_bias(learner: Learner, settings: TextRecipe) -> None:
    _model(learner).lm_bias.requires_grad_(False)


@torch.no_grad()
def _sharp(learner: Learner, settings: TextRecipe) -> None:
    for block in _blocks(learner):
        block.scale.fill_(1.2)  # as `modern` of chords begins


def _fixed_scale(learner: Learner, settings: TextRecipe) -> None:
    for block in _blocks(learner):
        block.scale.requires_grad_(False)


def _ngrams(learner: Learner, settings: TextRecipe, lengths: int) -> None:
    """Only so many of the lengths of n-grams; the others stand on row 0, which is zero."""
    model = _model(learner)
    rows, kept = model.rows, (torch.arange(model.rows(torch.zeros(1, 1, dtype=torch.long)).shape[-1]) < lengths).long()
    model.rows = lambda ids: rows(ids) * kept  # type: ignore[method-assign]


BASE = Variant("modern")
SHORT = (
    BASE,
    *(
        replace(setting(f"AdamW for the matrices too, rate {rate:g}", matrix_learning_rate=rate), alter=_adam)
        for rate in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    ),
    setting("Muon without decay", matrix_weight_decay=0.0),
    Variant("no n-grams", alter=partial(_ngrams, lengths=0)),
    Variant("n-grams of 2 alone", alter=partial(_ngrams, lengths=1)),
    Variant("n-grams of 2 and 3", alter=partial(_ngrams, lengths=2)),
    Variant("n-grams of 2 to 4", alter=partial(_ngrams, lengths=3)),
    Variant("no positions", alter=_no_positions),
    Variant("learned positions", alter=_learned_positions),
    computed("queries and keys not normed", Choices(head_norm=lambda x: x)),
    computed("LayerNorm", Choices(norm=_layer_norm, embedding_norm=_layer_norm)),
    computed("embeddings not normed", Choices(embedding_norm=lambda x: x)),
    computed("GELU", Choices(activation=F.gelu)),
    computed("ReLU", Choices(activation=F.relu)),
    Variant("projections random at first", alter=_random_projections),
    Variant("a head of its own", alter=_own_head),
    Variant("head without bias", alter=_no_head_bias),
    Variant("attention sharp at first (1.2)", alter=_sharp),
    Variant("attention's scale not learnt", alter=_fixed_scale),
    Variant("rates fall in a line", course=partial(_schedule, lambda done: 1 - done)),
    Variant("rates stay, then fall in a line in the second half",
            course=partial(_schedule, lambda done: min(1.0, 2 - 2 * done))),
    setting("no warm-up", warmup=0),
    setting("warm-up of 50 steps", warmup=50),
    Variant("batches of 8, then 16, then 32 windows, as many tokens", _more_steps, _growing),
    Variant("batches of 8 windows, twice the steps", partial(_resized, batch=0.5, steps=2)),
    Variant("windows of 64, twice as many", partial(_resized, block=0.5, batch=2)),
    Variant("windows of 256, half as many", partial(_resized, block=2, batch=0.5)),
    setting("no dropout", dropout=0.0),
)  # fmt: skip
"""In runs of each of `STEPS`."""

LONG = (
    BASE,
    setting("no dropout", dropout=0.0),
    setting("no n-grams hidden", ngram_dropout=0.0),
    setting("Muon without decay", matrix_weight_decay=0.0),
)
"""In runs as long as the recipe's, which are longer than the text: what is there against learning by heart."""


def read(corpus: Path, settings: TextRecipe, seed: int, folder: Path) -> tuple[Beginning, Parts]:
    """What `etude train` would begin with; what is too large for memory goes to `folder`. Raises `EtudeError`."""
    reading = Reading(folder, find_sources([corpus]), [], lambda message: None, lambda: False)
    beginning = begin(reading.texts(), replace(settings, seed=seed))
    parts = reading.encode(beginning.tokenizer, beginning.bos_id, beginning.config.vocab_size)
    if len(parts.ids) <= settings.block_size or len(parts.held_out) < 2:
        raise EtudeError(f"{corpus}: too short for windows of {settings.block_size:,} tokens; name tiny Shakespeare")
    return beginning, parts


def train(corpus: Path, variant: Variant, settings: TextRecipe, seed: int) -> Outcome:
    """A run as `etude train` does it, with the variant's changes, validated after the last step.

    Raises `EtudeError`.
    """
    keep_freed_memory()
    settings = variant.change(settings)
    with TemporaryDirectory() as folder:
        beginning, parts = read(corpus, settings, seed, Path(folder))
        settings, ids, bos = beginning.recipe, parts.ids, beginning.bos_id
        assert bos is not None  # as of all characters
        learner = Learner(beginning.config, settings)
        learner.adopt(beginning.weights)
        torch.manual_seed(seed)
        variant.alter(learner, settings)
        hidden = settings.ngram_dropout * repeated(settings, len(ids))
        began = time.process_time()
        for step in range(settings.steps):
            now = replace(variant.course(settings, step), ngram_dropout=hidden)
            rng = np.random.default_rng((seed, 1, step))
            rows = draw(ids, rng, now.batch_size, now.block_size)
            rows[0, 0] = bos
            torch.manual_seed(int(rng.integers(1 << 63)))
            learner.step(rows, now, step)
        seconds = (time.process_time() - began) / settings.steps
        found = score_stream(parts.held_out, learner.score, settings.block_size, settings.batch_size)
        return Outcome(found["nats_per_token"]["value"], seconds)


def compare(outcomes: Sequence[Outcome], base: Sequence[Outcome]) -> tuple[float, float]:
    """How much more a variant costs than the base, seed by seed: the mean in nats, and its standard error."""
    more = [own.nats - other.nats for own, other in zip(outcomes, base, strict=True)]
    return fmean(more), stdev(more) / math.sqrt(len(more))


def bench(corpus: Path, report: Report = lambda remark: None) -> list[Row]:
    """The rows of `etude bench ablations`; `report` hears what is being measured. Raises `EtudeError`."""
    whole = cast(TextRecipe, recipe("modern"))
    rows: list[Row] = []
    for settings, variants in (*((replace(whole, steps=steps), SHORT) for steps in STEPS), (whole, LONG)):
        base: list[Outcome] = []
        for variant in variants:
            report(f"{settings.steps:,} steps, {len(SEEDS)} seeds: {variant.name}")
            outcomes = [train(corpus, variant, settings, seed) for seed in SEEDS]
            base = base or outcomes
            subject = f"{variant.name}, {settings.steps:,} steps"
            nats = fmean(outcome.nats for outcome in outcomes)
            if not math.isfinite(nats):
                report(f"{variant.name}: its loss did not stay finite")
                continue
            rows.append({"subject": subject, "metric": "validation", "value": nats, "unit": "nats a character"})
            seconds = min(outcome.seconds for outcome in outcomes)
            rows.append({"subject": subject, "metric": "processor time a step", "value": 1e3 * seconds, "unit": "ms"})
            if variant is not BASE:
                more, error = compare(outcomes, base)
                rows.append(
                    {"subject": subject, "metric": "more than modern", "value": more, "unit": "nats a character"}
                )
                rows.append(
                    {"subject": subject, "metric": "standard error", "value": error, "unit": "nats a character"}
                )
    return rows
