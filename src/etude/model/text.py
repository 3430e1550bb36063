"""A model of text, loaded and ready: what it can be asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.corpus.songs import SongDocument
from etude.corpus.stream import read_ids
from etude.corpus.text import find_sources, read_documents
from etude.engines.array import ArrayEngine
from etude.engines.branches import BranchEngine
from etude.engines.engine import (
    ENGINES,
    BatchEngine,
    PackedEngine,
    check_engine,
    default_engine,
    in_batches,
    is_installed,
    make_engine,
)
from etude.errors import EtudeError
from etude.explain import Trace, check_length, record
from etude.explain.words import text_words
from etude.generation import Plan, Sample, Task, Voice, remark_on_length, stream, write
from etude.gpt.config import GPTConfig, Precision
from etude.gpt.directory import ModelFiles
from etude.music.theory import Key, describe
from etude.sampling import GREEDY, Sampling, StopFilter
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import StreamDecoder, TextTokenizer
from etude.training import text_scores
from etude.training.chord_scores import next_chords, score_songs

from .prompts import Candidate, Prompt, Suggestions, detect_key, read_prompt, unsaid
from .writer import Writer

TOKENS = 100  # that GPT-2 adds, unless it is told


class TextModel(Writer):
    """A model of text. Asking it changes nothing in it; the same question gets the same answer."""

    def __init__(
        self,
        model: ModelFiles,
        tokenizer: TextTokenizer,
        engine: str | None = None,
        name: str = "model",
        precision: Precision | None = None,
        window: int | None = None,
    ) -> None:
        self.config: GPTConfig = model.config
        self.window = window or self.config.block_size
        self.engine_name, self.precision = engine or default_engine(model.config), precision or model.config.precision
        self._asked = engine
        check_engine(self.engine_name, model.config, self.precision)
        self.tokenizer, self.name = tokenizer, name
        self.card = model.card
        self._weights = model.weights
        self._packed: PackedEngine | None = None

    @property
    def end_id(self) -> int | None:
        """The token that ends a text, where there is one."""
        return self.config.eos_token_id

    @property
    def default_max_tokens(self) -> int:
        """How far a text goes on unless it is told: a block of characters, or some lines of GPT-2's larger tokens."""
        return self.config.block_size if self.tokenizer.bos_first else TOKENS

    def generate(
        self,
        prompt: str = "",
        n: int = 1,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        say: Callable[[str], None] = unsaid,
        stop: Sequence[str] = (),
    ) -> list[Sample]:
        """`n` texts that begin with `prompt`, each going on for at most `max_tokens` tokens to its end.

        What is added ends before the first of the `stop` strings in it. Sample i does not depend on `n`; `say` tells
        what takes long. Raises `TokenizerError` for a prompt that the model's tokenizer cannot say.
        """
        return list(self._write([self._task(prompt, self._stops(stop))], n, max_tokens, sampling, seed, say))

    def stream(
        self,
        prompt: str = "",
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        say: Callable[[str], None] = unsaid,
    ) -> Generator[str, None, Sample]:
        """The text of `generate(prompt)[0]` in pieces as its tokens come, the prompt first; returns that sample.

        Pieces are whole characters, and never part of a stop string.
        """
        task = self._task(prompt, self._stops(stop))
        remark_on_length([task], self.config.block_size, say)
        return stream(self._batches(say), task, self._plan(max_tokens, sampling, seed))

    def _batches(self, say: Callable[[str], None]) -> BatchEngine:
        """An engine of its own for every call, so that two texts may be streamed at once; packed weights are shared."""
        if self._packed is not None:
            return self._packed.fresh()
        engine = make_engine(self.engine_name, self.config, self._weights, say, self.precision)
        if isinstance(engine, PackedEngine):
            self._packed = engine
            return engine.fresh()
        return in_batches(engine)

    def _task(self, prompt: str, stop: Sequence[str]) -> Task:
        return Task(prompt, tuple(self._ids(prompt)), lambda: self._voice(stop))

    def _stops(self, stop: Sequence[str]) -> Sequence[str]:
        StopFilter(stop)  # refuses what is no stop string before any work
        return stop

    def _voice(self, stop: Sequence[str]) -> Voice:
        decoder = StreamDecoder(self.tokenizer)
        return Voice(decoder.feed, decoder.finish, stop)

    def _plan(self, max_tokens: int | None, sampling: Sampling | None, seed: int) -> Plan:
        writable, size = self.tokenizer.n_writable, self.config.vocab_size
        allowed = None if writable == size else np.arange(size) < writable  # [V]
        most = self.default_max_tokens if max_tokens is None else max_tokens
        return Plan(most, sampling or Sampling(), seed, size, lambda last: allowed, self.end_id)

    @property
    def scorer(self) -> str:
        """The engine that `evaluate` takes: the one asked for, else tensor where it is installed and runs the model."""
        batched = self.config.architecture in ENGINES["tensor"] and is_installed("tensor")
        return self._asked or ("tensor" if batched and self.precision == "float32" else self.engine_name)

    def evaluate(
        self,
        corpus: str | Path | Sequence[str | Path],
        block_size: int | None = None,
        say: Callable[[str], None] = unsaid,
        watch: Callable[[Sequence[int]], Iterable[int]] = lambda batches: batches,
    ) -> dict[str, Any]:
        """What text costs this model: `training.text_scores.score` says what is in the document.

        The corpus is what `etude.train` takes: a stream, each document beginning with BOS, in windows of `block_size`
        tokens; for `micro` documents a line. By default the windows are those that the run which made the model was
        validated in, else its block. Raises `CorpusError`, `TokenizerError`, or `EtudeError` for another block.
        """
        config, tokenizer = self.config, self.tokenizer
        paths = [Path(path) for path in ([corpus] if isinstance(corpus, (str, Path)) else corpus)]
        block_size = self._block(block_size)
        if config.architecture == "micro" and isinstance(tokenizer, CharTokenizer):
            documents = [np.array(tokenizer.document(text)) for text in read_documents(paths, say=say)]
        else:
            documents = [read_ids(find_sources(paths, say=say), tokenizer, config.bos_token_id, config.vocab_size)]
        if max(map(len, documents), default=0) < 2:
            raise EtudeError(f"{', '.join(map(str, paths))}: no two tokens in it, so there is nothing to score")
        engine = make_engine(self.scorer, config, self._weights, say, self.precision)
        by_window, nats = config.architecture != "micro", text_scores.costs(engine)
        return text_scores.score(documents, nats, tokenizer, block_size, by_window, watch)

    def evaluate_songs(self, songs: Iterable[SongDocument], block_size: int | None = None) -> dict[str, Any]:
        """How well this model says the next chord of songs written as text: `training.chord_scores` says how.

        It is asked what a model of chords is asked, in the windows of `evaluate`. Raises `EtudeError`, also for a model
        that is stored, or asked for, in less than float32.
        """
        block_size = self._block(block_size)
        check_engine("array", self.config, self.precision)
        engine = BranchEngine(self.config, self._weights)
        return score_songs(songs, engine, self.tokenizer, self.config.bos_token_id, block_size).summary()

    def suggest(self, prompt: Prompt, top: int = 5, key: Key | str | None = None) -> Suggestions:
        """The likeliest next chords, as `ChordModel.suggest` has them, of a model that has learnt chords as text.

        Raises `ChordError` for a prompt that cannot be read, or `EtudeError` where the model says no chord.
        """
        chords = read_prompt(prompt)
        key = Key.parse(key) if isinstance(key, str) else key or detect_key(prompt, chords)
        check_engine("array", self.config, self.precision)
        engine, text = BranchEngine(self.config, self._weights), " ".join(map(key.name, chords))
        found = next_chords(text, engine, self.tokenizer, self.config.bos_token_id, top)
        if not found:
            raise EtudeError(f"{self.name}: after {text} it says no chord that can be read; train it on chords")
        likeliest = sorted(found.items(), key=lambda each: -each[1])[:top]
        candidates = [
            Candidate(chord, key.name(chord), p, key.numeral(chord), describe(chord, chords[-1], key))
            for chord, p in likeliest
        ]
        return Suggestions(chords, key, tuple(candidates), ())

    def _block(self, block_size: int | None) -> int:
        """The windows to evaluate in."""
        block_size, most = block_size or self.window, self.config.block_size
        if not 2 <= block_size <= most:
            raise EtudeError(f"the block must be 2 to {most:,} tokens in this model, not {block_size:,}")
        return block_size

    def trace(self, prompt: str = "", top: int = 10, steps: int = 0, keep: Sequence[str] = ("*",)) -> Trace:
        """Every number of a pass of the `array` engine over the prompt and at most `steps` likeliest tokens after it.

        An empty prompt is the token that begins a text. Of the numbers those are kept whose names match `keep`. Raises
        `TokenizerError`, or `EtudeError` for a prompt longer than the model's block.
        """
        check_engine("array", self.config)
        ids = self._ids(prompt)
        check_length(self.config, ids, steps)
        engine = ArrayEngine(self.config, self._weights)
        (added,) = write(engine, [self._task(prompt, ())], 1, self._plan(steps, GREEDY, 0))
        words, size = text_words(self.tokenizer), self.config.vocab_size
        return record(self.name, self.config, self._weights, (*ids, *added.tokens), len(ids), words, size, top, keep)

    def _ids(self, prompt: str) -> list[int]:
        """The ids of a prompt, one at least. BOS stands before all characters, but for GPT-2 before an empty text."""
        ids = self.tokenizer.encode(prompt)
        if ids and not self.tokenizer.bos_first:
            return ids
        if self.config.bos_token_id is None:
            raise EtudeError("the prompt is empty, and this model has no token that begins a text; give it one")
        return [self.config.bos_token_id, *ids]
