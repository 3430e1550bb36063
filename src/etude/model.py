"""A model that is loaded and ready: an engine, its tokenizer, and what they can be asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.corpus.songs import SongDocument
from etude.corpus.stream import read_ids
from etude.corpus.text import find_sources, read_documents
from etude.engines.array import ArrayEngine
from etude.engines.branches import BranchEngine
from etude.engines.engine import (
    ENGINES,
    BatchEngine,
    EngineError,
    PackedEngine,
    check_engine,
    default_engine,
    in_batches,
    is_installed,
    make_engine,
)
from etude.errors import EtudeError
from etude.explain import Trace, check_length, record
from etude.explain.words import chord_words, text_words
from etude.generation import Plan, Sample, Task, Voice, read_prompts, remark_on_length, stream, write
from etude.gpt.config import GPTConfig, Precision
from etude.gpt.directory import NGRAMS, ModelError, ModelFiles, load_model
from etude.gpt.importing import fetch_tokenizer
from etude.music.chart import parse_progression
from etude.music.theory import Chord, Key, describe
from etude.sampling import GREEDY, Sampling, StopFilter, probabilities
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import StreamDecoder, TextTokenizer, find_tokenizer
from etude.training import text_scores
from etude.training.chord_scores import next_chords, score_songs
from etude.training.evaluation import Ints, Predict, baseline_predictors, windows
from etude.training.ngram import NGramModel
from etude.training.recipes import RECIPE

BUNDLED = ("chords",)
TOKENS = 100  # that GPT-2 adds, unless it is told
CHORDS = 8  # that a model of chords adds, unless it is told
Prompt = str | Sequence[Chord | str]


def unsaid(message: str) -> None:
    """Where nobody listens to remarks."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible next chord. `symbol` and `numeral` are as the key has them; `probability` is over all chords."""

    chord: Chord
    symbol: str
    probability: float
    numeral: str
    reason: str


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Ranked next chords after `prompt`; `unfamiliar` are chords the model had to read as a simpler one."""

    prompt: tuple[Chord, ...]
    key: Key
    candidates: tuple[Candidate, ...]
    unfamiliar: tuple[Chord, ...]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{c.symbol}</b></td><td>{c.numeral}</td><td>{c.probability:.1%}</td><td>{c.reason}</td></tr>"
            for c in self.candidates
        )
        heads = "".join(f"<th>{head}</th>" for head in ("chord", "numeral", "probability", "reason"))
        return f"<table><caption>{self.key}</caption><tr>{heads}</tr>{rows}</table>"


class ChordModel:
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

    def generate_all(
        self,
        prompts: Iterable[str],
        n: int = 1,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        say: Callable[[str], None] = unsaid,
    ) -> Iterator[Sample]:
        """What `samples` gives for each prompt, in order; see `TextModel.generate_all`."""
        stops = self._stops(stop)
        tasks = read_prompts(prompts, lambda prompt: self._task(prompt, stops))
        return self._write(tasks, n, max_tokens, sampling, seed, say)

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
        return stream(self.engine(), task, self._plan(max_tokens, sampling, seed))

    def _write(
        self,
        tasks: Sequence[Task],
        n: int,
        max_tokens: int | None,
        sampling: Sampling | None,
        seed: int,
        say: Callable[[str], None],
    ) -> Iterator[Sample]:
        remark_on_length(tasks, self.config.block_size, say)
        return write(self.engine(), tasks, n, self._plan(max_tokens, sampling, seed))

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


class TextModel:
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

    def generate_all(
        self,
        prompts: Iterable[str],
        n: int = 1,
        max_tokens: int | None = None,
        sampling: Sampling | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        say: Callable[[str], None] = unsaid,
    ) -> Iterator[Sample]:
        """What `generate` gives for each prompt, in order, written in batches; a batch's samples come when it is done.

        All prompts are read before the first batch: `PromptError` tells the first that cannot be.
        """
        stops = self._stops(stop)
        tasks = read_prompts(prompts, lambda prompt: self._task(prompt, stops))
        return self._write(tasks, n, max_tokens, sampling, seed, say)

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

    def _write(
        self,
        tasks: Sequence[Task],
        n: int,
        max_tokens: int | None,
        sampling: Sampling | None,
        seed: int,
        say: Callable[[str], None],
    ) -> Iterator[Sample]:
        remark_on_length(tasks, self.config.block_size, say)
        return write(self._batches(say), tasks, n, self._plan(max_tokens, sampling, seed))

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


def load(name: str | Path, engine: str | None = None, precision: Precision | None = None) -> ChordModel | TextModel:
    """A bundled model by name, or a model directory. Raises `ModelError`, or `EngineError` for another engine.

    By default GPT-2 runs in the engine compiled where that is installed, in the precision that it is stored in, and all
    else in array.
    """
    path = model_directory(name)
    model = load_model(path)
    if not isinstance(model.tokenizer, ChordTokenizer):
        return TextModel(model, model.tokenizer, engine, path.resolve().name, precision, _window(path))
    if engine in ENGINES and engine != "array":
        raise EngineError(f"{name} is a chord model, which runs in the engine array, not in {engine}")
    check_engine(engine or "array", model.config, precision)
    return ChordModel(model, model.tokenizer, path)


def _window(path: Path) -> int | None:
    """The windows that the run in a folder was validated in, which may be shorter than the model's block."""
    try:
        window = json.loads((path / RECIPE).read_bytes()).get("block_size")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return window if isinstance(window, int) and window >= 2 else None


def model_directory(name: str | Path) -> Path:
    """Where a bundled model is, or the directory that is named. Raises `ModelError` where there is none."""
    path = Path(str(files("etude.assets").joinpath(str(name)))) if name in BUNDLED else Path(name)
    if not path.is_dir():
        raise ModelError(f"{name}: no such model directory, and no bundled model; bundled: {', '.join(BUNDLED)}")
    return path


def load_tokenizer(
    name: str | Path, hub: bool = False, say: Callable[[str], None] = unsaid
) -> TextTokenizer | ChordTokenizer:
    """That of a bundled model, a tokenizer.json of any kind, or a folder with one or with vocab.json and merges.txt.

    With `hub` a name that is none of these is looked up on the Hugging Face hub. Raises `TokenizerError`,
    `ImportingError`, or `ModelError` where there is none.
    """
    path = Path(name)
    if name in BUNDLED:
        path = model_directory(name)
    elif not path.exists():
        if not hub:
            raise ModelError(
                f"{name}: no such tokenizer file or folder, and no bundled model ({', '.join(BUNDLED)}); "
                "with --hub it is looked up on the Hugging Face hub"
            )
        path = fetch_tokenizer(str(name), say)
    return find_tokenizer(path)


def load_chords(name: str | Path) -> ChordModel:
    """As `load`, where it must be a model of chords. Raises `ModelError`."""
    model = load(name)
    if isinstance(model, ChordModel):
        return model
    raise ModelError(f"{name}: writes text, not chords; try etude generate, or a chord model such as {BUNDLED[0]}")


def read_prompt(prompt: Prompt) -> tuple[Chord, ...]:
    """The changes of a prompt: chords in order, immediate repeats merged."""
    chords = parse_progression(prompt).chords if isinstance(prompt, str) else tuple(map(as_chord, prompt))
    if not chords:
        raise EtudeError("the prompt has no chords; give one at least, such as C")
    return tuple(chord for i, chord in enumerate(chords) if i == 0 or chord != chords[i - 1])


def as_chord(chord: Chord | str) -> Chord:
    """A chord, or the chord that a symbol says."""
    return Chord.parse(chord) if isinstance(chord, str) else chord


def detect_key(prompt: Prompt, chords: Sequence[Chord]) -> Key:
    """The progression's key, spelled with flats where the prompt writes more of them than sharps."""
    flats = None
    if isinstance(prompt, str):
        signs = re.findall(r"(?:^|[\s|,/])[A-G]([b#♭♯])", prompt)
        n_flats = sum(sign in "b♭" for sign in signs)
        flats = 2 * n_flats > len(signs) if signs else None
    return Key.detect(chords, prefer_flats=flats)
