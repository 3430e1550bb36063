"""How fast this machine reads memory: the limit of every decoder that reads all its weights for each token."""

from __future__ import annotations

import time

import numpy as np

from etude.engines.kernels import Array, aligned, kernel
from etude.engines.team import barrier, share, team

_BYTES = 1 << 28  # more than any cache holds


@kernel
def _read(numbers: Array, sums: Array, meeting: Array, thread: int, threads: int) -> None:
    """Add up a thread's share of the numbers."""
    start, stop = share(len(numbers), 16, thread, threads)
    part, total = numbers[start : min(stop, len(numbers))], np.float32(0)
    for i in range(len(part)):
        total += part[i]
    sums[thread] = total
    barrier(meeting, threads)


class Memory:
    """A stretch of memory, and the time that all cores together take to read it."""

    def __init__(self) -> None:
        self._numbers = aligned((_BYTES // 4,), np.float32)
        self._numbers[:] = 1  # pages that were never written to are not there
        self._sums = np.zeros(team().threads, np.float32)
        team().run(_read, self._numbers[:1], self._sums, threads=1)  # compiled here

    def bandwidth(self, repeats: int = 5) -> float:
        """Bytes a second, the most of some tries."""
        best = np.inf
        for _ in range(repeats):
            began = time.perf_counter()
            team().run(_read, self._numbers, self._sums)
            best = min(best, time.perf_counter() - began)
        return _BYTES / float(best)
