"""Threads that compute one thing together: each runs the same compiled function and waits for the others at barriers.

A step of a small GPT has about a hundred stages of some microseconds. Starting threads for each, or waking them, would
cost more than the work; threads that are awake and look at a number in memory meet within a tenth of a microsecond.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import call
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types

from .kernels import Array, aligned, instructions, kernel

MAX_THREADS = 16  # a product of one token is bound by memory, which few cores use up
_SPINS = 1 << 15  # looks at the number, about a millisecond, before another program may have the core
_LINE = 8  # int64 in a cache line: two numbers that are written often lie apart
_I64 = ir.IntType(64)


@instructions
def _atomic_add(context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address in one step; returns what was there."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@instructions
def _atomic_load(context: Any, address: Any) -> Any:
    """The int64 at an address, as other threads left it."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64), generate


@instructions
def _pause(context: Any) -> Any:
    """A breath between two looks at memory, which leaves the core's other half and the bus to the others."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if binding.get_process_triple().startswith(("x86_64", "i386", "i686")):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", fnty=kind), [])
        return ir.Constant(_I64, 0)

    return types.int64(), generate


@kernel
def _no_yield() -> int:
    return 0


# The C library's function, where it has one.
_yield_core: Any = types.ExternalFunction("sched_yield", types.int32()) if hasattr(os, "sched_yield") else _no_yield


@kernel
def barrier(meeting: Array, threads: int) -> None:
    """Wait until all threads are here. meeting [2 * 8] int64: how many have come, and a line further the round."""
    if threads == 1:
        return
    come, rounds = meeting.ctypes.data, meeting.ctypes.data + 64
    now = _atomic_load(rounds)
    if _atomic_add(come, 1) == threads - 1:
        _atomic_add(come, -threads)
        _atomic_add(rounds, 1)
        return
    spins = 0
    while _atomic_load(rounds) == now:
        spins += 1
        _pause()
        if spins > _SPINS:
            _yield_core()


@kernel
def share(count: int, step: int, thread: int, threads: int) -> tuple[int, int]:
    """The part of range(count) that a thread takes, in whole steps: start and stop."""
    steps = (count + step - 1) // step
    return steps * thread // threads * step, steps * (thread + 1) // threads * step


@kernel
def take(taken: Array, stage: int) -> int:
    """The number of the next piece of a stage's work, for whoever is free: a core may be slower than the others.

    taken [stages] int64 must be zeros when a stage begins.
    """
    number: int = _atomic_add(taken.ctypes.data + 8 * stage, 1)
    return number


class Team:
    """`threads` threads of which the caller is the first. Use `team()`; one is enough for a process."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = Lock()
        self._meeting = aligned((2 * _LINE,), np.int64)
        self._process = os.getpid()
        self._jobs: list[SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]]] = []

    def run(self, function: Callable[..., None], *arguments: Any, threads: int | None = None) -> None:
        """Call function(*arguments, meeting, thread, threads) in each thread; it must end with a barrier."""
        count = min(self.threads, threads or self.threads)
        with self._lock:
            if self._process != os.getpid():  # a fork takes no threads along
                self._process, self._jobs = os.getpid(), []
                self._meeting[:] = 0
            while len(self._jobs) < count - 1:
                jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
                Thread(target=_work, args=(jobs,), name="etude", daemon=True).start()
                self._jobs.append(jobs)
            calls: list[Callable[[], None]] = [
                partial(jobs.put, (function, (*arguments, self._meeting, thread, count)))
                for thread, jobs in enumerate(self._jobs[: count - 1], 1)
            ]
            calls.append(partial(function, *arguments, self._meeting, 0, count))
            # Within one call into C an interrupt has to wait: threads that met nobody would wait for ever.
            deque(map(call, calls), maxlen=0)


def _work(jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    while True:
        function, arguments = jobs.get()
        function(*arguments)
        del function, arguments  # else what they hold lives until the next job


_TEAM: list[Team] = []


def team() -> Team:
    """The threads of this process: as many as Numba's own setting NUMBA_NUM_THREADS says, at most 16."""
    if not _TEAM:
        _TEAM.append(Team(min(MAX_THREADS, int(vars(config)["NUMBA_NUM_THREADS"]))))
    return _TEAM[0]
