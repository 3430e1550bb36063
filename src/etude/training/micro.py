"""Training the smallest GPT on lines of text, in any engine that trains: stoppable, and resumable to the bit.

The run decides which documents each step takes, and an engine's trainer takes the steps, a few at a time: as many as
fit into a moment, so that progress is seen and signals are obeyed. How they were cut changes nothing in the result.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from etude.engines.array import ArrayEngine
from etude.engines.engine import EngineError, check_engine, is_installed
from etude.engines.scalar import GPT, Adam, initial_weights
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import save_model
from etude.tokens.characters import CharTokenizer

from .card import text_card
from .checkpoint import CHECKPOINT, CheckpointError, check_fit
from .evaluation import score_text
from .recipes import MicroRecipe, RecipeError
from .runs import (
    CHECKPOINT_SECONDS,
    Interrupted,
    NotFiniteError,
    Progress,
    Report,
    RunFolder,
    enough_memory,
    signals,
)

Ints = NDArray[np.int64]
Say = Callable[[str], None]

TRAINERS = ("compiled", "tensor", "scalar")
"""The engines that train, the fastest first."""

METRICS_STEPS = 100  # a line of metrics says the mean loss of so many steps
_GROUP = 16  # documents of about equal length that stay together in a batch, so that little is padded
_POOL = 64  # groups that are sorted by length together: what stands in a group changes from epoch to epoch
_MOMENT = 0.15  # seconds between reports
_SPEED_CHUNKS = 20  # chunks whose mean speed is told
_TIMED_SHARE, _TIMED_SECONDS = 0.1, 2.0  # a run in minutes is timed for this share of its budget, or so long


class Trainer(Protocol):
    """What takes the steps. Adam with bias correction, and a rate that falls linearly to 0 over `total_steps`.

    Every trainer is made from (config, weights, documents, *, batch_size, precision, learning_rate, beta1, beta2,
    epsilon, say): documents are ids from BOS to BOS, at most block_size + 1; `say` tells the person what takes long.
    """

    def run(self, order: Ints, first_step: int, total_steps: int) -> NDArray[np.float64]:
        """Take one step a row of `order` [count, batch_size]: document numbers, and -1 for none.

        `first_step` counts from 0. Returns the loss of each step [count] before it was taken: nats a token, the mean
        over all positions of its documents.
        """

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of `weights.NAME` and of Adam's moments, `first.NAME` and `second.NAME`, for every parameter."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""


class ScalarTrainer:
    """The scalar engine, whose weights are lists of numbers with a history, as a `Trainer`."""

    def __init__(
        self,
        config: GPTConfig,
        weights: Mapping[str, NDArray[Any]],
        documents: Sequence[Sequence[int]],
        *,
        batch_size: int,
        precision: str,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        say: Say,
    ) -> None:
        if precision != "float64":
            raise RecipeError(f"the engine scalar computes in float64, not in {precision}; choose another engine")
        self._shapes, self._documents = parameter_shapes(config), documents
        self._model = GPT({name: weights[name].tolist() for name in self._shapes}, config.n_head)
        self._adam = Adam(self._model.parameters(), learning_rate, beta1, beta2, epsilon)

    def run(self, order: Ints, first_step: int, total_steps: int) -> NDArray[np.float64]:
        losses = np.full(len(order), np.inf)
        with suppress(OverflowError):  # where numbers become infinite in other engines, Python's own power raises
            for index, row in enumerate(order):
                loss = self._model.loss([self._documents[number] for number in row if number >= 0])
                loss.backward()
                self._adam.step(first_step + index, total_steps)
                losses[index] = loss.data
        return losses

    def state(self) -> dict[str, NDArray[Any]]:
        weights = [parameter.data for parameter in self._adam.parameters]
        arrays: dict[str, NDArray[Any]] = {}
        for kind, numbers in (("weights", weights), ("first", self._adam.first), ("second", self._adam.second)):
            flat, start = np.array(numbers), 0
            for name, shape in self._shapes.items():
                arrays[f"{kind}.{name}"] = flat[start : start + math.prod(shape)].reshape(shape).copy()
                start += math.prod(shape)
        return arrays

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        def flat(kind: str) -> list[float]:
            return [number for name in self._shapes for number in state[f"{kind}.{name}"].ravel().tolist()]

        for parameter, number in zip(self._adam.parameters, flat("weights"), strict=True):
            parameter.data = number
        self._adam.first, self._adam.second = flat("first"), flat("second")


class Order:
    """Which documents a step takes: a pure function of seed and step, so there is nothing to save.

    One document a step: in their order, over and over. More: every document once an epoch, in batches that are made
    of groups of about equal length; the last batch of an epoch is filled up with -1.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = np.array(lengths), batch_size, seed
        self._steps = -(-len(lengths) // batch_size)  # an epoch
        self._epoch, self._batches = -1, np.zeros((0, batch_size), np.int64)

    def rows(self, first_step: int, count: int) -> Ints:
        """The document numbers [count, batch_size] of the steps from `first_step` on."""
        steps = np.arange(first_step, first_step + count)
        if self._batch_size == 1:
            return (steps % len(self._lengths))[:, None]
        epochs, index = np.divmod(steps, self._steps)
        return np.concatenate([self._of_epoch(int(epoch))[index[epochs == epoch]] for epoch in np.unique(epochs)])

    def _of_epoch(self, epoch: int) -> Ints:
        """[steps an epoch, batch_size]"""
        if epoch != self._epoch:
            n, group = len(self._lengths), min(_GROUP, self._batch_size)
            rng = np.random.default_rng((self._seed, epoch))
            order = rng.permutation(n)
            order = order[np.lexsort((self._lengths[order], np.arange(n) // (group * _POOL)))]
            whole = n - n % group
            order[:whole] = rng.permutation(order[:whole].reshape(-1, group)).ravel()
            batches = np.full(self._steps * self._batch_size, -1)
            batches[:n] = order
            self._epoch, self._batches = epoch, batches.reshape(self._steps, self._batch_size)
        return self._batches


def default_engine() -> str:
    """The fastest engine that is installed here and trains."""
    return next(name for name in TRAINERS if is_installed(name))


def train(
    documents: Sequence[str],
    validation: Sequence[str] | None,
    directory: Path,
    recipe: MicroRecipe,
    engine: str | None = None,
    resume: bool = False,
    report: Report = lambda progress: None,
    say: Say = lambda message: None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train on `documents`, write the model directory, return what came of it:

        {"engine", "documents", "characters", "steps", "seconds", "loss": of the last 100 steps, "validation"}

    where "validation" is the document of `evaluation.score_text`, or None. Without `engine` the fastest one is taken,
    or a resumed run's own. Raises `TrainingError`, `CheckpointError`, `RecipeError`, `EngineError`, `TokenizerError`,
    or `Interrupted` after a signal, with the state saved.
    """
    with signals() as stopped, enough_memory():
        return _Run(documents, validation, directory, recipe, engine, resume, say, tensorboard).go(stopped, report)


class _Run:
    """Everything that changes during a run, and how it is saved."""

    def __init__(
        self,
        documents: Sequence[str],
        validation: Sequence[str] | None,
        directory: Path,
        recipe: MicroRecipe,
        engine: str | None,
        resume: bool,
        say: Say,
        tensorboard: bool,
    ) -> None:
        self.directory = directory
        self.folder = RunFolder(directory, recipe, resume, tensorboard)
        self.state = self.folder.state
        self.engine = self._choose_engine(engine, resume, say)
        recipe = self.folder.recipe
        beginning = begin(documents, recipe)
        self.documents, self.tokenizer, self.config = beginning.documents, beginning.tokenizer, beginning.config
        self.validation = None if validation is None else [self.tokenizer.document(text) for text in validation]
        long = sum(len(text) > recipe.block_size for text in documents)
        if long:
            say(
                f"note: {long:,} of {len(documents):,} documents are longer than the block of {recipe.block_size} "
                "characters; what is beyond is not trained on (--set block_size=...)"
            )
        self.trainer = make_trainer(self.engine, beginning, recipe, say)
        self.order = Order([len(ids) for ids in beginning.ids], recipe.batch_size, recipe.seed)
        fingerprint = _fingerprint(documents, validation)
        if resume:
            self.folder.go_on(fingerprint)
            shapes = {name: array.shape for name, array in self.trainer.state().items()}
            check_fit(self.folder.arrays, shapes, directory)
            self.trainer.restore(self.folder.arrays)
        else:
            directory.mkdir(parents=True, exist_ok=True)
            self.state |= {"engine": self.engine, "losses": []}
            self.folder.create(self.trainer.state(), fingerprint)

    def _choose_engine(self, engine: str | None, resume: bool, say: Say) -> str:
        """The engine asked for, or the run's own, or the fastest. A run stays in one, as others round otherwise."""
        if engine is not None and engine not in TRAINERS:
            check_engine(engine)
            raise EngineError(f"the engine {engine} does not train; these do: {', '.join(TRAINERS)}")
        begun = self.state.get("engine")
        if resume and (begun not in TRAINERS or not isinstance(self.state.get("losses"), list)):
            raise CheckpointError(f"{self.directory / CHECKPOINT}: damaged; start the run again in another folder")
        if begun is not None and engine not in (None, begun):
            raise RecipeError(
                f"{self.directory} was begun in the engine {begun}, which rounds otherwise than {engine}; "
                "resume without --engine"
            )
        chosen = str(engine or begun or default_engine())
        check_engine(chosen)
        if engine is None:
            say(f"engine: {chosen}")
        return chosen

    def go(self, stopped: Callable[[], bool], report: Report) -> dict[str, Any]:
        folder, state = self.folder, self.state
        saved_at = time.monotonic()
        recent: deque[tuple[int, float]] = deque(maxlen=_SPEED_CHUNKS)  # steps and seconds of the last chunks
        chunks, timed, count = 0, 0.0, 1
        while state["step"] < folder.recipe.steps:
            began = time.monotonic()
            count = min(count, folder.recipe.steps - state["step"])
            self._steps(count)
            seconds = max(1e-9, time.monotonic() - began)
            state["seconds"] += seconds
            chunks += 1
            if chunks == 2:
                recent.clear()  # the first steps may have compiled the engine
            recent.append((count, seconds))
            timed += seconds if chunks > 1 else 0.0
            speed = sum(steps for steps, _ in recent) / sum(each for _, each in recent)  # steps a second
            budget = 60 * folder.recipe.minutes
            if not state["fitted"] and timed >= min(_TIMED_SECONDS, _TIMED_SHARE * budget):
                more = int((budget - state["seconds"]) * speed)
                folder.fit(state["step"] + max(1, more))
                folder.save(self.trainer.state())
            count = max(1, min(int(_MOMENT * count / seconds), 10 * count))
            step, steps = state["step"], folder.recipe.steps
            left = (steps - step) / speed if state["fitted"] else budget
            report(Progress(step, steps if state["fitted"] else None, self._mean_loss(), speed, left))
            stop = stopped()  # asked once: who stops must have been saved
            if stop or step == steps or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                folder.show()
                folder.save(self.trainer.state())
                saved_at = time.monotonic()
            if stop and step < steps:
                raise Interrupted(step)
        return self._finish()

    def _steps(self, count: int) -> None:
        """Take steps and record their losses; what is recorded does not depend on `count`."""
        state, first, total = self.state, self.state["step"], self.folder.recipe.steps
        losses = self.trainer.run(self.order.rows(first, count), first, total)
        if not np.isfinite(losses).all():
            step = first + int(np.isfinite(losses).argmin()) + 1
            raise NotFiniteError(f"the loss of step {step:,} is not finite")
        known = [*state["losses"], *losses.tolist()]
        lines, offset = [], first - len(state["losses"])  # known[i] is the loss of step offset + i + 1
        for step in range(first + 1, first + count + 1):
            if step % METRICS_STEPS == 0 or step == total:
                last = known[max(0, step - offset - METRICS_STEPS) : step - offset]
                rate = self.folder.recipe.learning_rate * (1 - (step - 1) / total)
                loss = round(float(np.mean(last)), 6)
                lines.append({"step": step, "loss": loss, "rate": float(f"{rate:.4g}")})
        self.folder.record(lines)
        state["step"], state["losses"] = first + count, known[-METRICS_STEPS:]

    def _mean_loss(self) -> float:
        return float(np.mean(self.state["losses"]))

    def _finish(self) -> dict[str, Any]:
        """Write the model directory; the result of the run."""
        recipe = self.folder.recipe
        state = self.trainer.state()
        weights = {name: state[f"weights.{name}"] for name in parameter_shapes(self.config)}
        if not all(np.isfinite(array).all() for array in weights.values()):
            raise NotFiniteError("the weights after the last step are not finite")
        validation = None
        if self.validation is not None:
            validation = score_text(self.validation, ArrayEngine(self.config, weights), recipe.block_size)
        result = {
            "engine": self.engine,
            "documents": len(self.documents),
            "characters": sum(map(len, self.documents)),
            "steps": recipe.steps,
            "seconds": self.state["seconds"],
            "loss": self._mean_loss(),
            "validation": validation,
        }
        card = text_card(recipe, self.engine, self.documents, result)
        save_model(self.directory, self.config, weights, self.tokenizer, card, recipe.precision)
        return result


@dataclass(frozen=True, slots=True)
class Beginning:
    """What every engine's run starts from. `rng` stands where the reference run goes on to draw its samples."""

    rng: random.Random
    documents: list[str]  # shuffled
    ids: list[list[int]]  # the same from BOS to BOS, at most block_size + 1
    tokenizer: CharTokenizer
    config: GPTConfig
    weights: dict[str, NDArray[np.float64]]


def begin(documents: Sequence[str], recipe: MicroRecipe) -> Beginning:
    """Shuffle the documents, make the tokenizer and draw the initial weights, in the reference's order."""
    rng = random.Random(recipe.seed)
    shuffled = list(documents)
    rng.shuffle(shuffled)
    tokenizer = CharTokenizer.train(shuffled)
    sizes = (tokenizer.vocab_size, recipe.block_size, recipe.n_layer)
    config = GPTConfig("micro", *sizes, recipe.n_head, recipe.n_embd)  # refused before anything large is drawn
    drawn = initial_weights(rng, *sizes, recipe.n_embd, recipe.init_std)
    return Beginning(
        rng,
        shuffled,
        [tokenizer.document(text)[: recipe.block_size + 1] for text in shuffled],
        tokenizer,
        config,
        {name: np.array(rows) for name, rows in drawn.items()},
    )


def make_trainer(engine: str, beginning: Beginning, recipe: MicroRecipe, say: Say = lambda message: None) -> Trainer:
    """The engine's trainer with the recipe's settings."""
    return trainer_class(engine)(
        beginning.config,
        beginning.weights,
        beginning.ids,
        batch_size=recipe.batch_size,
        precision=recipe.precision,
        learning_rate=recipe.learning_rate,
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        epsilon=recipe.epsilon,
        say=say,
    )


def trainer_class(engine: str) -> Callable[..., Trainer]:
    """The class, called as `Trainer` says."""
    try:
        if engine == "compiled":
            from etude.engines.compiled import CompiledTrainer

            return CompiledTrainer
        if engine == "tensor":
            from etude.engines.tensor_micro import TensorTrainer

            return TensorTrainer
    except ImportError as error:  # installed, but not to be loaded with the other libraries that are here
        raise EngineError(f"the engine {engine} cannot be loaded ({error}); choose another with --engine") from error
    return ScalarTrainer


def _fingerprint(documents: Sequence[str], validation: Sequence[str] | None) -> str:
    """A digest of what is trained and validated on, in its order; no document holds a NUL."""
    digest = hashlib.sha256()
    for side in (documents, validation or ()):
        for text in side:
            digest.update(text.encode() + b"\0")
        digest.update(b"\0")
    return digest.hexdigest()
