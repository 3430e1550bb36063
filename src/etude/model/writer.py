"""What every loaded model does to write: read prompts, and hand them with an engine and a plan to the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etude.engines.engine import BatchEngine
from etude.generation import Plan, Sample, Task, read_prompts, remark_on_length, write
from etude.gpt.config import GPTConfig
from etude.sampling import Sampling

from .prompts import unsaid


class Writer(ABC):
    """A model that writes; what a prompt, a stop string and a plan are to it, each kind says itself."""

    config: GPTConfig

    @abstractmethod
    def _batches(self, say: Callable[[str], None]) -> BatchEngine:
        """An engine for one call."""

    @abstractmethod
    def _task(self, prompt: str, stops: Sequence[Any]) -> Task:
        """A prompt as the loop takes it."""

    @abstractmethod
    def _stops(self, stop: Sequence[str]) -> Sequence[Any]:
        """Stop strings as `_task` takes them. Raises `EtudeError` for what is none."""

    @abstractmethod
    def _plan(self, max_tokens: int | None, sampling: Sampling | None, seed: int) -> Plan:
        """What holds for all prompts."""

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
        """`n` samples of each prompt, in order, written in batches; a batch's samples come when it is done.

        All prompts are read before the first batch: `PromptError` tells the first that cannot be.
        """
        stops = self._stops(stop)
        tasks = read_prompts(prompts, lambda prompt: self._task(prompt, stops))
        return self._write(tasks, n, max_tokens, sampling, seed, say)

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
