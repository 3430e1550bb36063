"""A model of chords, loaded and ready: what it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etude.engines.array import ArrayEngine
from etude.errors import EtudeError
from etude.explain import Trace, check_length, record
from etude.explain.words import chord_words
from etude.generation import Plan, Sample, Task, Voice, remark_on_length, stream, write
from etude.gpt.config import GPTConfig
from etude.gpt.directory import NGRAMS, ModelError, ModelFiles
from etude.music.theory import Chord, Key, describe
from etude.sampling import GREEDY, Sampling, probabilities
from etude.tokens.chords import ChordTokenizer
from etude.training.evaluation import Ints, Predict, baseline_predictors, windows
from etude.training.ngram import NGramModel

from .prompts import Candidate, Prompt, Suggestions, detect_key, read_prompt, unsaid
from .writer import Writer

CHORDS = 8  # that are added, unless it is told


class ChordModel(Writer):
    """`etude.load("chords")`. Asking it changes nothing in it; the same question gets the same answer."""

    def __init__(self, model: ModelFiles, tokenizer: ChordTokenizer, directory: Path) -> None:
        self.directory = directory
        self.config: GPTConfig = model.config
        self.tokenizer = tokenizer
        self.card = model.card
        self._weights = model.weights

    def engine(self) -> ArrayEngine:
        """A new engine with this model's weights and an empty context."""
        return ArrayEngine(self.config, self._weights)

    @cached_property
    def chord_mask(self) -> NDArray[np.bool_]:
        """[V]: which ids are chords."""
        return np.arange(self.config.vocab_size) < self.tokenizer.n_chords

    def suggest(self, prompt: Prompt, top: int = 5, key: Key | str | None = None) -> Suggestions:
        """The likeliest next chords. Raises `ChordError` for a prompt that cannot be read."""
        chords = read_prompt(prompt)
        key = Key.parse(key) if isinstance(key, str) else key or detect_key(prompt, chords)
        encoded = self.tokenizer.encode_changes(chords, key.pitch_class)
        logits = self.engine().start(encoded.ids)[: self.tokenizer.n_chords]  # [n_chords]
        p = probabilities(logits)
        candidates = []
        for token in np.argsort(-p, kind="stable")[:top]:
            chord = self.tokenizer.chord(int(token), encoded.anchor)
            reason = describe(chord, chords[-1], key)
            candidates.append(Candidate(chord, key.name(chord), float(p[token]), key.numeral(chord), reason))
        return Suggestions(chords, key, tuple(candidates), self.unfamiliar(chords))

    def generate(
        self, prompt: Prompt, chords: int = CHORDS, sampling: Sampling | None = None, seed: int = 0
    ) -> tuple[Chord, ...]:
        """The next `chords` changes, each other than the one before it. Raises `ChordError`."""
        changes = read_prompt(prompt)
        (sample,) = self.samples(changes, 1, chords, sampling, seed)
        anchor = self.tokenizer.encode_changes(changes).anchor
        return tuple(self.tokenizer.chord(token, anchor) for token in sample.tokens)

    def samples(
        self,
        prompt: Prompt,
        n: int = 1,
        chords: int = CHORDS,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        say: Callable[[str], None] = unsaid,
    ) -> list[Sample]:
        """`n` progressions as text, in the spelling of the prompt's key. Sample i does not depend on `n`.

        A stop string is a chord or several, after which, if they come in a row, nothing is added; the text ends before
        them. Raises `ChordError`, also for a stop that cannot be read.
        """
        return list(self._write([self._task(prompt, self._stops(stop))], n, chords, sampling, seed, say))

    def stream(
        self,
        prompt: Prompt,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        say: Callable[[str], None] = unsaid,
    ) -> Generator[str, None, Sample]:
        """The text of `samples(prompt)[0]` chord by chord as they come, the prompt first; returns that sample."""
        task = self._task(prompt, self._stops(stop))
        remark_on_length([task], self.config.block_size, say)
        return stream(self._batches(say), task, self._plan(max_tokens, sampling, seed))

    def _batches(self, say: Callable[[str], None]) -> ArrayEngine:
        return self.engine()

    def _task(self, prompt: Prompt, stops: Sequence[Sequence[Chord]]) -> Task:
        changes = read_prompt(prompt)
        key, encoded = detect_key(prompt, changes), self.tokenizer.encode_changes(changes)
        # For the stop strings a chord is a character, the one whose number is the chord's id.
        said = ["".join(chr(self.tokenizer.chord_id(chord, encoded.anchor)) for chord in chords) for chords in stops]

        def show(chords: str) -> str:
            return "".join(f" {key.name(self.tokenizer.chord(ord(each), encoded.anchor))}" for each in chords)

        return Task(" ".join(map(key.name, changes)), encoded.ids, lambda: Voice(chr, stops=said, show=show))

    def _stops(self, stop: Sequence[str]) -> list[tuple[Chord, ...]]:
        """The changes of each stop string. Raises `EtudeError` for one that cannot be read or will never come."""
        found = []
        for text in stop:
            try:
                found.append(read_prompt(text))
            except EtudeError as error:
                raise EtudeError(f"to stop at {text!r}: {error}") from error
            for chord in self.unfamiliar(found[-1]):
                raise EtudeError(f"to stop at {text!r}: the model never writes {chord}; choose another chord")
        return found

    def _plan(self, max_tokens: int | None, sampling: Sampling | None, seed: int) -> Plan:
        chords = self.tokenizer.n_chords

        def allowed(last: int) -> NDArray[np.bool_]:
            others: NDArray[np.bool_] = np.arange(chords) != last
            return others

        return Plan(CHORDS if max_tokens is None else max_tokens, sampling or Sampling(), seed, chords, allowed)

    def trace(
        self, prompt: Prompt, top: int = 10, steps: int = 0, key: Key | str | None = None, keep: Sequence[str] = ("*",)
    ) -> Trace:
        """Every number of a pass over `<song>`, the prompt and `steps` likeliest changes after it.

        Probabilities are over all chords, as in `suggest`; of the numbers those are kept whose names match `keep`.
        Raises `ChordError`, or `EtudeError` for a prompt longer than the model's block.
        """
        changes = read_prompt(prompt)
        key = Key.parse(key) if isinstance(key, str) else key or detect_key(prompt, changes)
        encoded, n_chords = self.tokenizer.encode_changes(changes, key.pitch_class), self.tokenizer.n_chords
        check_length(self.config, encoded.ids, steps)
        task = Task("", encoded.ids, lambda: Voice(lambda token: ""))
        (added,) = write(self.engine(), [task], 1, self._plan(steps, GREEDY, 0))
        ids, words = (*encoded.ids, *added.tokens), chord_words(self.tokenizer, key, encoded.anchor)
        name = self.directory.resolve().name
        return record(name, self.config, self._weights, ids, len(encoded.ids), words, n_chords, top, keep)

    def predictor(self) -> Predict:
        """How this model says the chords of a song, as `training.evaluation.score` asks for it."""

        def predict(ids: Ints, said: NDArray[np.bool_]) -> NDArray[np.float32]:
            engine, parts = self.engine(), []
            for start, scored, end in windows(len(ids) - 1, self.config.block_size):
                parts.append(engine.start_all(ids[start:end].tolist())[scored - start :, : self.tokenizer.n_chords])
            return np.concatenate(parts)[1:]

        return predict

    def baselines(self) -> dict[str, Predict]:
        """The n-gram models of the songs this model was trained on. Raises `ModelError` where they were not kept."""
        path = self.directory / NGRAMS
        try:
            return baseline_predictors(NGramModel.load(path), self.tokenizer)
        except FileNotFoundError:
            raise ModelError(f"{path}: missing, so there are no baselines; evaluate with --no-baselines") from None
        except ValueError as error:
            raise ModelError(str(error)) from error

    def unfamiliar(self, chords: Sequence[Chord]) -> tuple[Chord, ...]:
        """The chords that the tokenizer cannot say, each once."""
        return tuple(dict.fromkeys(chord for chord in chords if not self.tokenizer.can_say(chord)))
