"""The training loop of chord models: corpus to model directory, stoppable at any moment and resumable to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from etude.corpus.progressions import read_progressions
from etude.corpus.songs import SongDocument
from etude.engines.tensor_modern import ChordGPT
from etude.gpt.config import GPTConfig
from etude.gpt.directory import NGRAMS, save_model
from etude.tokens.chords import ChordTokenizer

from . import evaluation
from .batches import IGNORE, SongBatches, collate
from .card import chord_card
from .checkpoint import CHECKPOINT, Arrays, CheckpointError, check_fit
from .device import product_type
from .optimizers import Muon, adamw
from .recipes import ChordRecipe
from .runs import Report, RunFolder, Validation, enough_memory, keep_freed_memory, signals, take_steps


def train(
    documents: Sequence[SongDocument],
    validation: Sequence[SongDocument],
    directory: Path,
    recipe: ChordRecipe,
    resume: bool = False,
    report: Report = lambda progress: None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train on `documents`, keep the model that is best on `validation`, return its validation document.

    The document has three more: the "step" of that model, how many "steps" were taken, and whether it "stopped_early".

    Raises `TrainingError`, `CheckpointError`, `RecipeError`, or `Interrupted` after a signal, with the state saved.
    To resume, `recipe` must be the one that the run was begun with (see `runs.saved_recipe`).
    """
    with signals() as stopped, enough_memory():
        return _Run(documents, validation, directory, recipe, resume, tensorboard).go(stopped, report)


class _Run:
    """Everything that changes during a run, and how it is saved."""

    def __init__(
        self,
        documents: Sequence[SongDocument],
        validation: Sequence[SongDocument],
        directory: Path,
        recipe: ChordRecipe,
        resume: bool,
        tensorboard: bool,
    ) -> None:
        keep_freed_memory()
        self.directory = directory
        self.validation = validation
        self.folder = RunFolder(directory, recipe, resume, tensorboard)
        self.state, recipe = self.folder.state, self.folder.recipe
        progressions = read_progressions() if recipe.progressions else []
        self.sources = [*documents, *progressions]
        shown = [*documents, *progressions * recipe.progressions]
        self.tokenizer = ChordTokenizer.train((d.changes for d in shown), recipe.min_count)
        self.batches = SongBatches(shown, self.tokenizer, recipe)
        torch.manual_seed(recipe.seed)
        config = GPTConfig(
            "modern", self.tokenizer.vocab_size, recipe.block_size, recipe.n_layer, recipe.n_head, recipe.n_embd
        )
        self.model = ChordGPT(config, self.tokenizer.features(), recipe.dropout, product_type())
        matrices = self.model.matrices()
        muon_ids = {id(matrix) for matrix in matrices}
        self.muon = Muon(matrices, recipe.matrix_weight_decay, product_type())
        others = [p for p in self.model.parameters() if id(p) not in muon_ids]
        self.adam = adamw([(others, recipe.weight_decay)], (0.9, 0.98))
        self.average = [parameter.detach().clone() for parameter in self.model.parameters()]
        corpora = [[(document.changes, document.song) for document in side] for side in (documents, validation)]
        fingerprint = hashlib.sha256(repr(corpora).encode()).hexdigest()
        if resume:
            self.folder.go_on(fingerprint)
            self._restore()
        else:
            directory.mkdir(parents=True, exist_ok=True)
            evaluation.fit_ngrams(documents, self.tokenizer).save(directory / NGRAMS)
            self.folder.create(self.arrays(), fingerprint)

    @property
    def recipe(self) -> ChordRecipe:
        """With the number of steps as fitted."""
        return self.folder.recipe

    def go(self, stopped: Callable[[], bool], report: Report) -> dict[str, Any]:
        take_steps(self, stopped, report)
        best: dict[str, Any] = self.state["best"]
        steps = self.state["step"]
        return best | {"steps": steps, "stopped_early": steps < self.recipe.steps}

    def step(self, step: int) -> float:
        """One optimiser step; returns the loss in nats a token."""
        recipe, batch = self.recipe, self.batches.batch(step)
        self.model.train()
        logits = self.model(*map(torch.from_numpy, (batch.ids, batch.found, batch.lengths)))  # [b, t, V]
        targets = torch.from_numpy(batch.targets).flatten()  # [b t]
        total = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=IGNORE, reduction="sum")
        loss = total / max(1, int((batch.targets != IGNORE).sum()))
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        for group in self.adam.param_groups:
            group["lr"] = self.rate(step)
        self.adam.step()
        self.muon.step(recipe.matrix_learning_rate * self._share(step))
        self.adam.zero_grad()
        self.muon.zero_grad()
        # The average forgets its random beginning first and smooths later.
        decay = min(recipe.averaging, (step + 1) / (step + 20))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - decay)
        return loss.item()

    def rate(self, step: int) -> float:
        """AdamW's; Muon's rises and falls alike."""
        return self.recipe.learning_rate * self._share(step)

    def _share(self, step: int) -> float:
        """Of the full rates, at a step."""
        return min(1.0, (step + 1) / max(1, self.recipe.warmup)) * (1 - step / self.recipe.steps)

    def validate(self) -> Validation:
        """Score the averaged weights on the validation songs."""
        with self._averaged():
            document = evaluation.summarize(evaluation.score(self.validation, self.tokenizer, self._predict))
        return Validation(document, document["nats_per_chord"]["value"], document["top1"]["value"])

    def keep(self, directory: Path | None = None) -> None:
        """Write the averaged weights: to the run's folder with the scores of the best validation, which it is."""
        scores = self.state["best"] if directory is None else None
        card = chord_card(self.recipe, self.sources, self.state["step"], scores)
        with self._averaged():
            weights, to = self.model.export(), directory or self.directory
            save_model(to, self.model.config, weights, self.tokenizer, card, self.recipe.weights)

    @torch.no_grad()
    def _predict(self, ids: evaluation.Ints, said: NDArray[np.bool_]) -> evaluation.Floats:
        self.model.eval()
        windows = evaluation.windows(len(ids) - 1, self.model.config.block_size)
        parts = []
        for start, scored, end in windows:
            batch = collate([(ids[start:end], ids[start + 1 : end + 1])], self.tokenizer.song_id, end - start)
            logits = self.model(*map(torch.from_numpy, (batch.ids, batch.found, batch.lengths)))[0]  # [t, V]
            parts.append(logits[scored - start :, : self.tokenizer.n_chords].double().numpy())
        return np.concatenate(parts)[1:]

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the averaged weights, for a while."""
        own = [parameter.detach().clone() for parameter in self.model.parameters()]
        with torch.no_grad():
            for parameter, average in zip(self.model.parameters(), self.average, strict=True):
                parameter.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, kept in zip(self.model.parameters(), own, strict=True):
                    parameter.copy_(kept)

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, but the random state."""
        tensors: dict[str, Tensor] = {}
        for (name, parameter), average in zip(self.model.named_parameters(), self.average, strict=True):
            tensors[f"model.{name}"], tensors[f"average.{name}"] = parameter, average
            tensors |= {f"adam.{key}.{name}": tensor for key, tensor in self.adam.state.get(parameter, {}).items()}
        return tensors | {f"muon.{i}": buffer for i, buffer in enumerate(self.muon.buffers)}

    def arrays(self) -> Arrays:
        """What a checkpoint holds: the tensors, and the random state."""
        arrays = {name: tensor.detach().numpy() for name, tensor in self._tensors().items()}
        return arrays | {"random": torch.get_rng_state().numpy()}

    def _restore(self) -> None:
        tensors, arrays = self._tensors(), self.folder.arrays
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        check_fit(arrays, shapes | {"random": tuple(torch.get_rng_state().shape)}, self.directory)
        if arrays["random"].dtype != np.uint8:
            raise CheckpointError(f"{self.directory / CHECKPOINT}: damaged; start the run again in another folder")
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(arrays[name]))
        torch.set_rng_state(torch.from_numpy(arrays["random"]))
