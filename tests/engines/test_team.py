"""Threads that meet."""

from __future__ import annotations

import multiprocessing
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("numba")

from etude.engines.kernels import Array, kernel
from etude.engines.team import Team, barrier, share, team


@kernel
def count_rounds(rounds: int, seen: Array, wrong: Array, meeting: Array, thread: int, threads: int) -> None:
    """Each thread says how far it is; after a meeting no other may be behind."""
    for number in range(rounds):
        seen[thread * 8] = number + 1
        barrier(meeting, threads)
        for other in range(threads):
            if seen[other * 8] != number + 1:
                wrong[thread] += 1
        barrier(meeting, threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_nobody_passes_a_barrier_before_all_are_there(threads: int) -> None:
    crew = Team(threads)
    for rounds in (0, 1, 300):
        seen, wrong = np.zeros(8 * threads, np.int64), np.zeros(threads, np.int64)
        crew.run(count_rounds, 0, seen, wrong, threads=1)  # compiled by one
        crew.run(count_rounds, rounds, seen, wrong)
        assert not wrong.any()
        assert (seen[::8] == rounds).all()


def test_several_callers_take_turns() -> None:
    def call(_: int) -> int:
        seen, wrong = np.zeros(16, np.int64), np.zeros(2, np.int64)
        crew.run(count_rounds, 50, seen, wrong)
        return int(wrong.sum())

    crew = Team(2)
    crew.run(count_rounds, 0, np.zeros(16, np.int64), np.zeros(2, np.int64), threads=1)
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(call, range(20))) == 0


def test_shares_are_all_of_it_and_no_more() -> None:
    for count in (0, 1, 15, 16, 17, 100):
        for threads in (1, 2, 3):
            parts = [share(count, 16, thread, threads) for thread in range(threads)]
            assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
            assert count <= parts[-1][1] < count + 16
            assert all(start % 16 == 0 for start, _ in parts)


def _in_a_child(rounds: int) -> int:
    seen, wrong = np.zeros(8 * team().threads, np.int64), np.zeros(team().threads, np.int64)
    team().run(count_rounds, rounds, seen, wrong)
    return int(seen[0])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_process_gets_threads_of_its_own() -> None:
    assert _in_a_child(3) == 3
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_in_a_child, (5,)).get(timeout=60) == 5


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_an_interrupt_leaves_nobody_waiting() -> None:
    crew = Team(2)
    seen, wrong = np.zeros(16, np.int64), np.zeros(2, np.int64)
    crew.run(count_rounds, 1, seen, wrong)
    before = signal.signal(signal.SIGALRM, lambda *_: interrupt())
    caught = 0
    try:
        for attempt in range(3000):
            with suppress(KeyboardInterrupt):
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (attempt % 100 + 1))
                    crew.run(count_rounds, 20, seen, wrong)
                    time.sleep(2e-4)
                except KeyboardInterrupt:
                    caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught
    fresh = np.zeros(16, np.int64)  # who is still at an earlier job writes elsewhere
    crew.run(count_rounds, 20, fresh, wrong)
    assert fresh[::8].tolist() == [20, 20]


def interrupt() -> None:
    raise KeyboardInterrupt
