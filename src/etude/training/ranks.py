"""One run in several processes, as `torchrun` starts them: who writes, what all agree on, how a fault is told once.

Every process takes the same steps, each on its own rows of the same batch, so what they decide must be decided alike:
a process that waits for one which does something else waits for ever. PyTorch is imported only where there are several.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.system import cores

if TYPE_CHECKING:
    from torch import Tensor

# What the messages of a broken connection have in common: gloo's transport, NCCL's errors, the store's.
_BROKEN = ("gloo", "nccl", "connection", "socket", "store")


class RanksError(EtudeError):
    """Processes of a run that do not fit together, or that lost each other."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process of how many this is; `local_rank` of `local_size` on its machine. Alone, every question is free."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, says and reports."""
        return self.rank == 0

    def own(self, rows: NDArray[Any]) -> NDArray[Any]:
        """This process's share of the rows of a batch, in their order."""
        share = len(rows) // self.size
        return rows[self.rank * share : (self.rank + 1) * share]

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether any process has it set."""
        if self.size == 1:
            return flags
        import torch
        import torch.distributed as dist

        found = torch.tensor(flags, dtype=torch.int32, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return tuple(map(bool, found.tolist()))

    def of_first(self, value: float) -> float:
        """What the first process has for `value`: a time, which each measures otherwise."""
        if self.size == 1:
            return value
        import torch
        import torch.distributed as dist

        found = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(found, 0)
        return found.item()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes, in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(value)
            value /= self.size
        return value

    def gathered(self, part: Tensor) -> Tensor:
        """The parts of all processes, which have one shape, one after another."""
        if self.size == 1:
            return part
        import torch
        import torch.distributed as dist

        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    def check_same(self, digest: str, what: str) -> None:
        """Wait for all; raise `RanksError` unless each process has the same hexadecimal `digest` of `what`."""
        if self.size == 1:
            return
        import torch

        own = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=self.device)
        other = (self.gathered(own[None]) != own).any(dim=1).cpu().numpy()  # [size]
        if other.any():
            raise RanksError(
                f"process {self.rank} and process {np.flatnonzero(other)[0]} differ in {what}: all need the same files,"
                " on a disk that they share or as copies"
            )

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)

    @property
    def device(self) -> str:
        """Where a number must lie to be sent: NCCL, which is taken where there are GPUs, sends from them alone."""
        import torch.distributed as dist

        return f"cuda:{self.local_rank}" if dist.get_backend() == "nccl" else "cpu"


ALONE = Ranks()
_joined: list[Ranks] = []


def started() -> Ranks:
    """What the environment says that `torchrun` sets; `ALONE` without it. Raises `RanksError`."""
    numbers = []
    for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1")):
        text = os.environ.get(name, default)
        if not text.isdecimal():
            raise RanksError(f"{name}={text} in the environment is no number; start the run with torchrun")
        numbers.append(int(text))
    return Ranks(*numbers) if numbers[1] > 1 else ALONE


@contextmanager
def joined(device: str | None = None) -> Iterator[Ranks]:
    """Meet the other processes of this run, where there are any; inside of it, this changes nothing.

    They exchange on the `device` cpu or cuda, by default on GPUs where there are any. A fault that several processes
    meet is told by one of them: the others leave in silence, with exit status 1. Raises `RanksError` where they cannot
    meet.
    """
    if _joined or (ranks := started()).size == 1:
        yield _joined[0] if _joined else ALONE
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    on_gpus = torch.cuda.is_available() and device != "cpu"
    if on_gpus:
        if ranks.local_rank >= torch.cuda.device_count():
            raise RanksError(
                f"process {ranks.rank} has no GPU: {ranks.local_size} processes on a machine with "
                f"{torch.cuda.device_count()}; start as many as there are GPUs"
            )
        torch.cuda.set_device(ranks.local_rank)
    elif os.environ.get("OMP_NUM_THREADS", "1") == "1":  # what torchrun sets where nobody did
        torch.set_num_threads(max(1, cores() // ranks.local_size))
    try:
        store, rank, size = next(rendezvous("env://"))
        backend = "nccl" if on_gpus else "gloo"
        # Long: while the first reads a large corpus, the others wait.
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timedelta(days=1))
    except (RuntimeError, ValueError, OSError) as error:
        raise RanksError(
            f"cannot meet the other processes of this run ({' '.join(str(error).split())[:200]})"
        ) from error
    _joined.append(ranks)
    try:
        yield ranks
    except (EtudeError, OSError) as error:
        told = False
        with suppress(RuntimeError):  # a store that is gone has been told nothing
            # The store outlives an attempt of torchrun's, and each is to tell its own fault.
            told = store.add(f"etude/told/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) > 1
        if told:
            raise SystemExit(1) from error
        raise
    else:
        dist.destroy_process_group()
    finally:
        _joined.clear()


@contextmanager
def lost_peers(ranks: Ranks, kept: str) -> Iterator[None]:
    """A connection to another process that breaks, as one clear line; `kept` says what is left to go on with."""
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1 or not any(word in str(error).lower() for word in _BROKEN):
            raise
        with suppress(ValueError):  # not in the main thread
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # torchrun sends one now: this process ends, but first says why
        raise RanksError(f"process {ranks.rank} lost another process of this run; {kept}") from error
