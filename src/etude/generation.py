"""The loop that writes: prompts into an engine, logits into tokens, tokens into text as they come.

Prompts, and the samples of each, go on together as the rows of a batch. What a row writes depends on its prompt, on the
seed and on the number of its sample, never on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from etude.engines.engine import BatchEngine
from etude.errors import EtudeError
from etude.sampling import Sampling, StopFilter, choose, log_probability

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a model wrote: `text` is the prompt and its continuation, `tokens` the ids of the continuation.

    `logprob` sums the natural logarithms of its tokens' probabilities, an end included, as the model itself has them:
    before temperature, penalty and cuts. `finish` says why it is no longer: the model ended it, a stop string came (the
    text ends before it, `tokens` with it), or as many tokens were written as were asked for.
    """

    text: str
    tokens: tuple[int, ...]
    logprob: float
    prompt: str = ""
    finish: Finish = "length"


class PromptError(EtudeError):
    """A prompt, number `index` from 0, that the model cannot read, and why."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(f"prompt {index + 1}: {reason}")
        self.index, self.reason = index, reason


class Voice:
    """Makes a row's text of its tokens, and hears a stop string in it.

    `decode` gives what a token adds and `rest` what is left at the end; `stops` end that, and `show` makes of it what
    people read.
    """

    def __init__(
        self,
        decode: Callable[[int], str],
        rest: Callable[[], str] = str,
        stops: Sequence[str] = (),
        show: Callable[[str], str] = str,
    ) -> None:
        self._decode, self._rest, self._show, self._filter = decode, rest, show, StopFilter(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._filter.stopped

    def feed(self, token: int) -> str:
        """What can be shown now that this token is there; sometimes nothing."""
        return self._show(self._filter.feed(self._decode(token)))

    def finish(self) -> str:
        """What is left to show where no more tokens come."""
        return self._show(self._filter.feed(self._rest()) + self._filter.finish())


@dataclass(frozen=True, slots=True)
class Task:
    """A prompt to go on with: as the text begins, as ids, and with a new voice for each sample."""

    prompt: str
    ids: tuple[int, ...]
    voice: Callable[[], Voice]


@dataclass(frozen=True, slots=True)
class Plan:
    """What holds for all prompts of a model.

    Tokens are the first `width` ids, and probabilities are over these. `allowed` gives a mask [width] of those that may
    follow a token, None for all; `end` ends a text.
    """

    max_tokens: int
    sampling: Sampling
    seed: int
    width: int
    allowed: Callable[[int], NDArray[np.bool_] | None]
    end: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise EtudeError(f"{self.max_tokens} tokens cannot be added; ask for 0 or more")


@dataclass(slots=True)
class _Row:
    task: Task
    rng: np.random.Generator
    voice: Voice
    pieces: list[str]
    tokens: list[int] = field(default_factory=list)
    logprob: float = 0.0
    finish: Finish | None = None

    def write(self, logits: NDArray[Any], plan: Plan) -> str:
        """Choose a token by logits [V], and give what it adds to the text."""
        logits, seen = logits[: plan.width], list[int]()
        if plan.sampling.repetition_penalty != 1:
            # What ends a text also begins it, and having begun should make no end less likely.
            seen = [token for token in (*self.task.ids, *self.tokens) if token < plan.width and token != plan.end]
        allowed = plan.allowed(self.tokens[-1] if self.tokens else self.task.ids[-1])
        token = choose(logits, plan.sampling, self.rng, allowed, seen)
        self.logprob += log_probability(logits, token)
        shown = ""
        if token == plan.end:
            self.finish = "end"
        else:
            self.tokens.append(token)
            shown = self.voice.feed(token)
            if len(self.tokens) == plan.max_tokens:
                self.finish = "length"
        if self.finish:
            shown += self.voice.finish()
        if self.voice.stopped:
            self.finish = "stop"
        self.pieces.append(shown)
        return shown

    def sample(self) -> Sample:
        assert self.finish is not None
        return Sample("".join(self.pieces), tuple(self.tokens), self.logprob, self.task.prompt, self.finish)


def read_prompts(prompts: Iterable[str], read: Callable[[str], Task]) -> list[Task]:
    """Every prompt as a task. Raises `PromptError` for the first that `read` refuses."""
    tasks = []
    for index, prompt in enumerate(prompts):
        try:
            tasks.append(read(prompt))
        except EtudeError as error:
            raise PromptError(index, str(error)) from error
    return tasks


def remark_on_length(tasks: Sequence[Task], block_size: int, say: Callable[[str], None]) -> None:
    """Say where a prompt is longer than what the model can look back on."""
    long = sum(len(task.ids) > block_size for task in tasks)
    if long:
        which = "the prompt is" if len(tasks) == 1 else f"{long:,} of {len(tasks):,} prompts are"
        say(f"note: {which} longer than the block of {block_size:,} tokens; the model reads the newest {block_size:,}")


def write(engine: BatchEngine, tasks: Sequence[Task], n: int, plan: Plan) -> Iterator[Sample]:
    """`n` samples of every task, in order, each batch of them when it is done.

    A batch is as wide as the memory for keys and values allows, whatever the number of tasks.
    """
    if n < 0:
        raise EtudeError(f"n must be 0 or more, not {n}")
    most = engine.most_rows(max((len(task.ids) for task in tasks), default=0) + plan.max_tokens)
    rows = (_begin(task, index, plan) for task in tasks for index in range(n))
    while batch := list(islice(rows, most)):
        for _ in _write(engine, batch, plan):
            pass
        yield from (row.sample() for row in batch)


def stream(engine: BatchEngine, task: Task, plan: Plan) -> Generator[str, None, Sample]:
    """The pieces of the text that `write` gives as the first sample, as they come; returns that sample."""
    row = _begin(task, 0, plan)
    if task.prompt:
        yield task.prompt
    yield from filter(None, _write(engine, [row], plan))
    return row.sample()


def _begin(task: Task, index: int, plan: Plan) -> _Row:
    row = _Row(task, np.random.default_rng((plan.seed, index)), task.voice(), [task.prompt])
    row.finish = None if plan.max_tokens else "length"
    return row


def _write(engine: BatchEngine, rows: Sequence[_Row], plan: Plan) -> Iterator[str]:
    """Write all rows to their ends; yield what each token adds to its text."""
    live = [row for row in rows if row.finish is None]
    if not live:
        return
    # Rows of one prompt read it once.
    prompts = list(dict.fromkeys(row.task.ids for row in live))
    numbers = {ids: number for number, ids in enumerate(prompts)}
    beginnings = [numbers[row.task.ids] for row in live]
    logits = engine.start_batch(prompts)[beginnings]  # [B, V]
    if len(live) > len(prompts):
        engine.keep(beginnings)
    while True:
        for row, its_logits in zip(live, logits, strict=True):
            yield row.write(its_logits, plan)
        going = [number for number, row in enumerate(live) if row.finish is None]
        if not going:
            return
        if len(going) < len(live):
            engine.keep(going)
            live = [live[number] for number in going]
        logits = engine.step_batch([row.tokens[-1] for row in live])
