"""The corpus of a run on text, read: what it is trained on and what it is validated on, as ids.

What is too large for memory lies in the run's folder until its end, so that a resumed run need not read it again.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from etude.corpus.lines import CorpusError
from etude.corpus.stream import Stream, read_stream, spool
from etude.corpus.text import Source, documents
from etude.tokens.tokenizer import Ids, TextTokenizer

from .runs import TrainingError

TOKENS = ".etude-tokens"  # no folder of anybody else, since it is deleted
HELD_OUT = 0.1  # share of the stream, at its end, that is kept for validation
MOST_HELD_OUT = 1 << 20  # tokens of it at most, so that a validation stays short
_SAY_SECONDS = 5.0  # between remarks on a long reading


@dataclass(frozen=True, slots=True)
class Parts:
    """Ids to train on and to validate on, [n] each, not to be written to; the digest of both."""

    ids: Ids
    held_out: Ids
    digest: str


class Reading:
    """Reads the sources of a run in `directory`, and of its validation: without any, of the end of the corpus.

    `say` tells how it goes where that is long; where `stopped` says so, it ends with a `TrainingError`.
    """

    def __init__(
        self,
        directory: Path,
        sources: Sequence[Source],
        kept_apart: Sequence[Source],
        say: Callable[[str], None],
        stopped: Callable[[], bool],
    ) -> None:
        if any(source.once for source in sources) and any(source.once for source in kept_apart):
            raise CorpusError("the corpus and --validation cannot both be standard input; name a file for one")
        self._directory, self._folder = directory, directory / TOKENS
        self._sources, self._kept_apart = sources, kept_apart
        self._say, self._stopped = say, stopped

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Begin with no files of an earlier run, which was killed before its first step; after an error leave none."""
        shutil.rmtree(self._folder, ignore_errors=True)
        was_there = self._directory.exists()
        try:
            yield
        except BaseException:
            self.close()
            if not was_there:
                with suppress(OSError):
                    self._directory.rmdir()
            raise

    def texts(self) -> Iterator[str]:
        """All that is trained on, in pieces, for who must know it before it is encoded."""
        watch = self._watch("reading", ())
        self._sources = [
            spool(source, self._folder, watch, number) for number, source in enumerate(self._sources, start=1)
        ]
        watch = self._watch("looking for characters", self._sources)
        for source in self._sources:
            for _, pieces in documents(source, watch):
                yield from pieces

    def encode(self, tokenizer: TextTokenizer, bos: int | None, vocab_size: int) -> Parts:
        """The ids, with `bos` before each document. Raises as `read_stream`."""

        def stream(sources: Sequence[Source], name: str) -> Stream:
            watch = self._watch("tokenizing", sources)
            found = read_stream(sources, tokenizer, bos, vocab_size, self._folder / name, watch)
            watch.finish()
            return found

        corpus = stream(self._sources, "corpus")
        if self._kept_apart:
            other = stream(self._kept_apart, "validation")
            parts = Parts(corpus.ids, other.ids, f"{corpus.digest} {other.digest}")
        else:
            n = len(corpus.ids)
            cut = max(int((1 - HELD_OUT) * n), n - MOST_HELD_OUT)
            parts = Parts(corpus.ids[:cut], corpus.ids[cut:], corpus.digest)
        for source in self._sources:
            if source.path.parent == self._folder:  # spooled, and of no more use
                source.path.unlink(missing_ok=True)
        return parts

    def close(self) -> None:
        """Take away what lies in the run's folder. The ids are not to be used any more."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self, doing: str, sources: Iterable[Source]) -> _Watch:
        return _Watch(doing, sources, self._say, self._stopped)


class _Watch:
    """Says now and then how far a reading is, with its rate and the time left; ends it where the person wants that."""

    def __init__(
        self, doing: str, sources: Iterable[Source], say: Callable[[str], None], stopped: Callable[[], bool]
    ) -> None:
        self._doing, self._say, self._stopped = doing, say, stopped
        self._total = sum(source.path.stat().st_size for source in sources if source.path.is_file())
        self._done, self._begun = 0, time.monotonic()
        self._told = self._begun

    def __call__(self, count: int) -> None:
        if self._stopped():
            raise TrainingError(f"stopped while {self._doing}; no step was taken")
        self._done += count
        now = time.monotonic()
        if now - self._told < _SAY_SECONDS:
            return
        self._told, rate = now, self._done / (now - self._begun)
        of = ""
        if self._total >= self._done:  # else some of it comes from standard input, and nobody knows how much
            minutes, seconds = divmod(round((self._total - self._done) / max(rate, 1)), 60)
            of = f" of {self._total / 1e6:,.0f} MB, {minutes}:{seconds:02d} left"
        self._say(f"{self._doing}: {self._done / 1e6:,.0f}{of or ' MB'}, {rate / 1e6:,.1f} MB/s")

    def finish(self) -> None:
        """Say what came of it, where it was long enough to be told of."""
        if self._told > self._begun:
            seconds = time.monotonic() - self._begun
            rate = self._done / seconds / 1e6
            self._say(f"{self._doing}: {self._done / 1e6:,.0f} MB in {seconds:,.1f} s, {rate:,.1f} MB/s")
