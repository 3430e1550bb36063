"""Training on text as one stream, from nothing or from a model directory; resumable to the bit.

Each document is BOS and its tokens, one after another (`etude.corpus.stream`). Of characters and bytes, whose prompts
all begin with BOS, a window of each step has it in the place of its first token: seen once a file alone, it would stand
there unlearnt. The windows of a step and what dropout drops in it are a function of seed and step, so a checkpoint
holds weights and moments alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude.corpus.lines import STDIN, shown
from etude.corpus.stream import release
from etude.corpus.text import find_sources
from etude.engines.tensor_engine import initial_weights
from etude.errors import EtudeError
from etude.files import atomic_write
from etude.gpt.config import GPTConfig
from etude.gpt.directory import CARD, CONFIG, TOKENIZER, WEIGHTS, ModelError, Weights, load_model, save_model
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import Ids, TextTokenizer, find_tokenizer, read_tokenizer

from .card import stream_card
from .checkpoint import CHECKPOINT, Arrays, CheckpointError, check_fit
from .device import CPU, Device, choose, compiler, flops_per_token, product_type
from .distributed import all_finite, drop_shards, fill, load_shards, save_shards, whole
from .evaluation import score_stream
from .learner import Learner, repeated, schedule
from .ranks import Ranks, joined, lost_peers
from .reading import Parts, Reading
from .recipes import TOKENIZERS, RecipeError, TextRecipe
from .runs import (
    NotFiniteError,
    Report,
    RunFolder,
    Validation,
    enough_memory,
    keep_freed_memory,
    signals,
    take_steps,
)
from .samples import VERBATIM_CHARACTERS, VERBATIM_PIECES, verbatim_share, write_samples

LOSS_STEPS = 100  # whose mean loss a run tells at its end
RANDOM_BATCHES = 20  # nanoGPT's protocol of validation
_LONGEST = 256  # of the windows of a model's own block
_WORTH_COMPILING = 5.0  # minutes of a run


def train(
    corpus: Sequence[Path],
    validation: Path | None,
    directory: Path,
    recipe: TextRecipe,
    init: Path | None = None,
    resume: bool = False,
    report: Report = lambda progress: None,
    say: Callable[[str], None] = lambda message: None,
    tensorboard: bool = False,
    device: str | None = None,
    tokenizer: str | Path | None = None,
) -> dict[str, Any]:
    """Train on text (files, folders, JSON lines, standard input), write the model directory, return what came of it:

        {"engine", "tokens", "steps", "seconds", "loss": of the last `loss_steps` steps, "loss_steps", "validation",
         "best", "kept", "stopped_early", "verbatim"}

    where "validation" is {"tokens", "nats_per_token", "random": {"batches", "nats_per_token"}}, the last one, "best" is
    the best one with its "step", "kept" the step whose weights are the model, and "verbatim" the share of the last
    samples that stands in the training text (`samples.verbatim_share`), or None. `init` is the model directory to begin
    from, `tokenizer` that of a new model (char, plain, byte, or where one is; by default the recipe's), and a resumed
    run needs neither. `device` is cpu or cuda, by default a GPU where there is one. In a process that torchrun started
    this is one of several that train together. Raises `TrainingError`, `CheckpointError`, `RecipeError`, `CorpusError`,
    `TokenizerError`, `ModelError`, `DeviceError`, `RanksError`, or `Interrupted` after a signal, with the state saved.
    """
    kept = f"the last checkpoint in {directory} is kept: start them all again with --resume"
    with (
        joined(device) as ranks,
        enough_memory(),
        lost_peers(ranks, kept),
        signals(patient=ranks.size > 1) as stopped,
    ):
        if not ranks.first:
            report, say = (lambda progress: None), (lambda message: None)
        computes_on = choose(device, ranks.local_rank)
        if resume and init is not None and init.resolve().name != recipe.init:
            begun = f"the model {recipe.init}" if recipe.init else "nothing"
            raise RecipeError(f"{directory} was begun from {begun}, not {init}; resume without --init")
        if resume and tokenizer is not None and tokenizer_name(tokenizer) != recipe.tokenizer:
            raise RecipeError(
                f"{directory} was begun with the tokenizer {recipe.tokenizer or 'of its model'}, not {tokenizer}; "
                "resume without --tokenizer"
            )
        folder = RunFolder(directory, recipe, resume, tensorboard, writes=ranks.first)
        sources = find_sources(corpus, directory, say)
        kept_apart = [] if validation is None else find_sources([validation], directory, say)
        if ranks.size > 1 and any(source.once for source in (*sources, *kept_apart)):
            raise RecipeError("several processes cannot share standard input; save it as a file and name that")
        reading = Reading(directory, sources, kept_apart, say, stopped)

        def read(anew: bool) -> tuple[Beginning, Parts]:
            with reading.anew() if anew else nullcontext():
                if resume:
                    beginning = _resumed(directory, folder.recipe)
                    if tokenizer not in (None, *TOKENIZERS) and _new_tokenizer(tokenizer, ()) != beginning.tokenizer:
                        raise RecipeError(
                            f"{directory} was begun with another tokenizer than {tokenizer}; resume without --tokenizer"
                        )
                    if beginning.recipe.precision == "bfloat16" and product_type(computes_on.name) != torch.bfloat16:
                        say("the run computes in bfloat16, for which this processor has no instructions: it is slow")
                else:
                    beginning = begin(reading.texts(), folder.recipe, init, tokenizer, computes_on)
                _check_shares(beginning.recipe, ranks)
                if beginning.recipe.compile == "yes" and compiler() is None:
                    raise RecipeError(
                        f"{directory}: its step is compiled (compile=yes), and no C++ compiler is found here: install "
                        f"g++ or clang++, or name one in $CXX{'' if resume else ', or begin with --set compile=no'}"
                    )
                parts = reading.encode(beginning.tokenizer, beginning.bos_id, beginning.config.vocab_size)
                if len(parts.ids) <= beginning.recipe.block_size or len(parts.held_out) < 2:
                    raise RecipeError(
                        f"{', '.join(map(shown, corpus))}: {len(parts.ids):,} tokens to train on and "
                        f"{len(parts.held_out):,} to validate on are too few for windows of "
                        f"{beginning.recipe.block_size:,} and the token after them; give more text, "
                        "or --set block_size=..."
                    )
            return beginning, parts

        if ranks.first:
            beginning, parts = read(anew=not resume)
        ranks.wait()  # for the first, whose files of a large corpus the others use
        if not ranks.first:
            beginning, parts = read(anew=False)
        say(f"{len(parts.ids):,} tokens to train on, {len(parts.held_out):,} to validate on")
        names = list(map(_title, corpus)), None if validation is None else _title(validation)
        run = _Run(folder, beginning, parts, names, resume, ranks, computes_on)
        take_steps(run, stopped, run.with_peak_share(report), ranks)
        result = run.finish()
        ranks.wait()  # until nobody needs the ids
        if ranks.first:
            reading.close()
        return result


def _title(path: Path) -> str:
    """What a card calls a corpus: it travels, so without the folders that lead there."""
    return shown(path) if path == STDIN else path.resolve().name


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a run starts from. `weights` is empty where a checkpoint has them; `recipe` has all sizes."""

    config: GPTConfig
    tokenizer: TextTokenizer
    weights: Weights
    recipe: TextRecipe

    @property
    def bos_id(self) -> int | None:
        """What stands before a document."""
        bos = self.config.bos_token_id
        return self.tokenizer.bos_id if bos is None else bos


def begin(
    texts: Iterable[str],
    recipe: TextRecipe,
    init: Path | None = None,
    tokenizer: str | Path | None = None,
    device: Device = CPU,
) -> Beginning:
    """A new model of the recipe's sizes, or the model of a directory as it is.

    A new one has a tokenizer of the characters of `texts`, which are read for it alone, or another, as `train` takes
    it. Its recipe says all that was left open: sizes, precision, and whether the step is compiled. Raises
    `RecipeError`, `ConfigError`, `TokenizerError` or `ModelError`.
    """
    if recipe.compile == "auto":
        worth = recipe.minutes >= _WORTH_COMPILING and compiler() is not None
        recipe = replace(recipe, compile="yes" if worth else "no")
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=str(product_type(device.name)).removeprefix("torch."))
    if init is None:
        if recipe.name == "finetune":
            raise RecipeError("the recipe finetune begins from a model: name its directory with --init")
        sizes = (recipe.block_size, recipe.n_layer, recipe.n_head)
        if width := recipe.n_embd:  # what no vocabulary makes right is refused before anything is read
            GPTConfig(recipe.architecture, width, *sizes, width, ngram_rows=recipe.ngram_rows, rung=recipe.rung)
        chosen = tokenizer or recipe.tokenizer
        if not chosen:
            raise RecipeError(
                f"the recipe {recipe.name} has no tokenizer of its own: name one with --tokenizer, such as the folder "
                "of GPT-2's vocab.json and merges.txt"
            )
        found = _new_tokenizer(chosen, texts)
        bos, end = found.bos_id, found.end_id
        if recipe.architecture != "gpt2":  # others do not say so themselves
            bos = end = None
        config = GPTConfig(
            recipe.architecture, found.vocab_size, *sizes, width or found.vocab_size, bos_token_id=bos,
            eos_token_id=end, ngram_rows=recipe.ngram_rows, rung=recipe.rung,
        )  # fmt: skip
        recipe = replace(recipe, tokenizer=tokenizer_name(chosen))
        return Beginning(config, found, initial_weights(config, recipe.seed), recipe)
    if tokenizer is not None:
        raise RecipeError(f"--init {init} has its own tokenizer; leave --tokenizer out")
    if recipe.architecture != "gpt2":
        raise RecipeError(f"the recipe {recipe.name} begins from nothing; with --init take finetune, or none")
    model = load_model(init)
    config = model.config
    if config.architecture != "gpt2" or config.precision != "float32" or isinstance(model.tokenizer, ChordTokenizer):
        raise ModelError(
            f"{init}: is {config.architecture} in {config.precision} with tokens of the kind {model.tokenizer.kind}; "
            "training begins from gpt2 in float32 with tokens of text"
        )
    for name in ("n_layer", "n_head", "n_embd"):
        if getattr(recipe, name) not in (0, getattr(config, name)):
            raise RecipeError(
                f"{name} is {getattr(config, name)} in {init}, not {getattr(recipe, name)} as in the recipe; take "
                "finetune without a size of its own, or none"
            )
    if recipe.block_size > config.block_size:
        raise RecipeError(f"block_size is at most {config.block_size:,} in {init}, not {recipe.block_size:,}")
    recipe = replace(
        recipe,
        init=init.resolve().name,
        tokenizer="",
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        block_size=recipe.block_size or min(_LONGEST, config.block_size),
    )
    return Beginning(config, model.tokenizer, model.weights, recipe)


def _resumed(directory: Path, recipe: TextRecipe) -> Beginning:
    """What the run in a folder was begun with, from the two files that it wrote first."""
    try:
        config = GPTConfig.from_dict(json.loads((directory / CONFIG).read_bytes()))
        tokenizer = read_tokenizer((directory / TOKENIZER).read_text(encoding="utf-8"))
        if isinstance(tokenizer, ChordTokenizer):
            raise ValueError("its tokenizer is of chords")
    except (OSError, ValueError, TypeError, RecursionError, EtudeError) as error:
        raise CheckpointError(
            f"{directory}: its {CONFIG} or {TOKENIZER} is damaged ({error}); start the run again in another folder"
        ) from error
    return Beginning(config, tokenizer, {}, recipe)


def tokenizer_name(tokenizer: str | Path) -> str:
    """How a recipe has it: char, plain, byte, or the name of a file or folder."""
    return str(tokenizer) if tokenizer in TOKENIZERS else Path(tokenizer).resolve().name


def _new_tokenizer(tokenizer: str | Path, texts: Iterable[str]) -> TextTokenizer:
    if tokenizer in ("char", "plain"):
        return CharTokenizer.train(texts, byte_fallback=tokenizer == "char")
    if tokenizer == "byte":
        return ByteTokenizer()
    if not Path(tokenizer).exists():
        raise RecipeError(
            f"{tokenizer}: no such tokenizer; take {', '.join(TOKENIZERS)}, or the path of a tokenizer.json, or of a "
            "folder with it or with GPT-2's vocab.json and merges.txt"
        )
    found = find_tokenizer(Path(tokenizer))
    if isinstance(found, ChordTokenizer):
        raise RecipeError(f"{tokenizer}: its tokens are chords, not text; take another tokenizer")
    return found


def draw(ids: Ids, rng: np.random.Generator, batch_size: int, block_size: int) -> Ids:
    """Windows of a stream from random places, each with the token after it: [b, t + 1]."""
    starts = rng.integers(len(ids) - block_size, size=batch_size)
    rows: Ids = ids[starts[:, None] + np.arange(block_size + 1)]
    return rows


def _check_shares(recipe: TextRecipe, ranks: Ranks) -> None:
    """Raise `RecipeError` unless processes and micro-batches divide a batch."""
    share, rest = divmod(recipe.batch_size, ranks.size)
    if rest:
        raise RecipeError(
            f"batch_size {recipe.batch_size:,} cannot be divided among {ranks.size:,} processes; start a number of "
            "processes that divides it, or begin with another batch_size"
        )
    if recipe.micro_batch_size and share % min(share, recipe.micro_batch_size):
        raise RecipeError(
            f"micro_batch_size {recipe.micro_batch_size:,} does not divide the {share:,} windows of a process; choose "
            "one that does"
        )


class _Run:
    """Everything that changes during a run, and how it is saved."""

    def __init__(
        self,
        folder: RunFolder[TextRecipe],
        beginning: Beginning,
        parts: Parts,
        names: tuple[Sequence[str], str | None],
        resume: bool,
        ranks: Ranks,
        device: Device,
    ) -> None:
        keep_freed_memory()
        self.names = names  # of the corpus and of what it is validated on, for the card
        self.ranks, self.device = ranks, device
        self.drawn: tuple[int, Ids, int] | None = None
        self.folder, self.config, self.tokenizer = folder, beginning.config, beginning.tokenizer
        self.bos_id = beginning.bos_id
        folder.recipe = recipe = beginning.recipe
        self.ids, self.held_out, self.state = parts.ids, parts.held_out, folder.state
        self.learner = Learner(self.config, recipe, ranks, device)
        digest = hashlib.sha256(json.dumps(self.config.to_dict(), sort_keys=True).encode())
        for part in (self.tokenizer.to_json(), parts.digest):
            digest.update(hashlib.sha256(part.encode()).digest())
        ranks.check_same(digest.hexdigest(), "corpus or model")
        if resume:
            folder.go_on(digest.hexdigest())
            self._restore()
            return
        self.learner.adopt(beginning.weights)
        self.state |= {"losses": [], "verbatim": None, "shards": None}
        if ranks.first:
            folder.directory.mkdir(parents=True, exist_ok=True)
            config_text = (json.dumps(self.config.to_dict(), indent=2) + "\n").encode()
            for name, content in ((CONFIG, config_text), (TOKENIZER, self.tokenizer.to_json().encode())):
                with atomic_write(folder.directory / name) as file:
                    file.write(content)
        folder.create(self.arrays(), digest.hexdigest())

    def step(self, step: int) -> float:
        """One optimiser step; returns the loss in nats a token."""
        recipe, drawn = self.folder.recipe, self.drawn
        _, rows, dropped = drawn if drawn and drawn[0] == step else self._draw(step)
        # What repeats is learnt by heart unless some of it is hidden.
        recipe = replace(recipe, ngram_dropout=recipe.ngram_dropout * repeated(recipe, len(self.ids)))
        if recipe.dropout or recipe.ngram_dropout:
            torch.manual_seed((dropped + self.ranks.rank) % (1 << 63))  # each process has other rows
        loss = self.learner.step(rows, recipe, step)
        if self.device.on_gpu:  # while it computes; the number below waits for it
            self.drawn = self._draw(step + 1)
        found = loss.item()
        self.state["losses"] = [*self.state["losses"], found][-LOSS_STEPS:]
        return found

    def _draw(self, step: int) -> tuple[int, Ids, int]:
        """A step, its windows [b, t + 1], and what seeds its dropout."""
        recipe = self.folder.recipe
        rng = np.random.default_rng((recipe.seed, 1, step))
        rows = draw(self.ids, rng, recipe.batch_size, recipe.block_size)
        release(self.ids)
        if self.tokenizer.bos_first and self.tokenizer.bos_id is not None:
            rows[0, 0] = self.tokenizer.bos_id  # it stands before every prompt, so it must be known there
        return step, rows, int(rng.integers(1 << 63))

    def validate(self) -> Validation:
        """Score the held-out stream in full, and beside it by nanoGPT's protocol: always the same random batches."""
        recipe = self.folder.recipe
        score = partial(self.learner.score, at_once=recipe.micro_batch_size)
        document = score_stream(self.held_out, score, recipe.block_size, recipe.batch_size)
        rng, block_size = np.random.default_rng((recipe.seed, 2)), min(recipe.block_size, len(self.held_out) - 1)
        drawn = [draw(self.held_out, rng, recipe.batch_size, block_size) for _ in range(RANDOM_BATCHES)]
        means = [float(score(rows).mean()) for rows in drawn]
        document["random"] = {"batches": RANDOM_BATCHES, "nats_per_token": float(np.mean(means))}
        return Validation(document, document["nats_per_token"]["value"], samples=self._samples())

    def _samples(self) -> dict[str, Any] | None:
        """A few texts of the model as it is, and the share of them that stands in the training text.

        The first process writes them, and the others wait for their share.
        """
        recipe, tokenizer, bos = self.folder.recipe, self.tokenizer, self.bos_id
        if not recipe.samples or not recipe.sample_tokens:
            return None
        weights, written, share = self.learner.weights(), list[list[int]](), 0.0
        if self.ranks.first:
            beginning = int(self.held_out[0]) if bos is None else bos
            sizes = (recipe.samples, recipe.sample_tokens)
            end = tokenizer.end_id if self.config.eos_token_id is None else self.config.eos_token_id
            written = write_samples(self.config, weights, tokenizer.n_writable, beginning, *sizes, recipe.seed, end)
            window = VERBATIM_CHARACTERS if tokenizer.bos_first else VERBATIM_PIECES
            share = verbatim_share(written, self.ids, window)
            release(self.ids)
        self.state["verbatim"] = share = self.ranks.of_first(share)
        return {"texts": [tokenizer.decode(ids) for ids in written], "verbatim": share}

    def rate(self, step: int) -> float:
        return self.folder.recipe.learning_rate * schedule(self.folder.recipe, step)

    def keep(self, directory: Path | None = None) -> None:
        """Write the weights as they are. The card of the run's own folder is written again at the end."""
        if directory is not None or self.folder.recipe.keep == "best":
            self._save(directory or self.folder.directory, self._result(self.state["step"]))

    def finish(self) -> dict[str, Any]:
        """Write the model directory, or its card where the best model is there already; the result of the run."""
        best, directory, step = self.state["best"], self.folder.directory, self.state["step"]
        if self.folder.recipe.keep == "last" or best["step"] == step:
            result = self._result(step)
            self._save(directory, result)
        else:
            result = self._result(best["step"])
            if self.ranks.first:
                if not (directory / WEIGHTS).exists():
                    raise CheckpointError(
                        f"{directory / WEIGHTS}: missing; it was the best model, of step {best['step']:,}; "
                        "start the run again in another folder"
                    )
                with atomic_write(directory / CARD) as file:
                    file.write(stream_card(self.folder.recipe, *self.names, result).encode())
        if self.ranks.first:
            drop_shards(directory, self.state["shards"])
        return result

    def _result(self, kept: int) -> dict[str, Any]:
        state, losses = self.state, self.state["losses"]
        return {
            "engine": "tensor",
            "tokens": len(self.ids),
            "steps": state["step"],
            "seconds": state["seconds"],
            "loss": float(np.mean(losses)),
            "loss_steps": len(losses),
            "validation": state["validation"],
            "best": state["best"],
            "kept": kept,
            "stopped_early": state["step"] < self.folder.recipe.steps,
            "verbatim": state["verbatim"],
        }

    def _save(self, directory: Path, result: dict[str, Any]) -> None:
        weights = self.learner.weights()  # of a sharded model, which every process has to help with
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise NotFiniteError(f"the weights after step {self.state['step']:,} are not finite")
        if self.ranks.first:
            card = stream_card(self.folder.recipe, *self.names, result)
            save_model(directory, self.config, weights, self.tokenizer, card)

    def with_peak_share(self, report: Report) -> Report:
        """A report that also tells what share of the peak of all GPUs is used, where it is known."""
        recipe, peak = self.folder.recipe, self.device.peak
        if peak is None:
            return report
        flops = flops_per_token(self.config, recipe.block_size) * recipe.batch_size * recipe.block_size
        share = flops / (peak * self.ranks.size)  # at one step a second
        return lambda progress: report(replace(progress, peak_share=share * progress.steps_per_second))

    def arrays(self) -> Arrays:
        """What a checkpoint holds. A sharded model's tensors are written here, in a folder that its state names."""
        tensors = self.learner.tensors()
        if self.folder.recipe.shard and self.ranks.size > 1:
            step, shards = self.state["step"], self.state["shards"]
            if self.ranks.any(not all_finite(tensors))[0]:  # the last good shards are kept
                raise NotFiniteError(f"after step {step:,} a shard of the model is not finite")
            self.state["shards"] = save_shards(self.folder.directory, tensors, step, shards, self.ranks)
            return {}
        self.state["shards"] = None
        return {name: whole(tensor) for name, tensor in tensors.items()} if self.ranks.first else {}

    def _restore(self) -> None:
        tensors, directory = self.learner.tensors(), self.folder.directory
        if not isinstance(self.state.get("losses"), list) or not {"verbatim", "shards"} <= self.state.keys():
            raise CheckpointError(f"{directory / CHECKPOINT}: damaged; start the run again in another folder")
        if isinstance(self.state["shards"], str):
            load_shards(directory, self.state["shards"], tensors, self.ranks)
            return
        check_fit(self.folder.arrays, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, directory)
        for name, tensor in tensors.items():
            fill(tensor, torch.from_numpy(self.folder.arrays.pop(name)))  # no second copy stays in memory
