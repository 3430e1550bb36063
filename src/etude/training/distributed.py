"""A model in several processes: each has all of it and they share gradients (DDP), or each has a shard (FSDP2).

The checkpoint of a sharded model is a folder in PyTorch's distributed format, a safetensors file a process, which any
number of processes can read again. (The format's other form has an index that is a pickle; this one needs none.)
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from etude.engines.tensor_gpt2 import GPT2
from etude.engines.tensor_lesson import Lesson
from etude.engines.tensor_modern import TextGPT

from .checkpoint import CheckpointError
from .ranks import Ranks, RanksError

_SHARDS = "shards-"


class Objective(nn.Module):
    """What is minimised, as a module: the wrappers that share gradients or parameters act when one is called.

    `fused`: by the loss that is faster on a GPU (`engines.tensor_loss`), equal to rounding.
    """

    def __init__(self, model: GPT2 | Lesson | TextGPT, fused: bool) -> None:
        super().__init__()
        self.model, self.fused = model, fused

    def forward(self, ids: Tensor, targets: Tensor, known: Tensor | None = None) -> Tensor:
        """Mean nats of targets [b, t] after ids [b, t]; while it does not train those of each, [b, t].

        `known` is what `modern` has for ids while it trains.
        """
        if isinstance(self.model, TextGPT):
            nats = self.model.nats(ids, targets, known)
        elif isinstance(self.model, GPT2) and self.fused and self.training:
            return self.model.mean_nats(ids, targets)
        else:
            nats = self.model.nats(ids, targets)
        return nats.mean() if self.training else nats


def share(objective: Objective, ranks: Ranks, shard: bool) -> nn.Module:
    """The objective of one process as that of all, with gradients that are the mean of theirs.

    Of a sharded one every process keeps its part of each parameter, and gets a layer's whole when that is computed.
    """
    if ranks.size == 1:
        return objective
    if not shard:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the newer name of this option is not in PyTorch 2.6
            return DistributedDataParallel(objective, broadcast_buffers=False)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(ranks.device.partition(":")[0], (ranks.size,))
    for layer in objective.model.h if isinstance(objective.model, GPT2) else ():
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


@contextmanager
def gradients_of(objective: nn.Module, last: bool) -> Iterator[None]:
    """Around a micro-batch, forward and backward: only after the last one of a step the processes share gradients."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(objective, DistributedDataParallel) and not last:
        with objective.no_sync():
            yield
        return
    if isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(last)
    yield


def reshard(objective: nn.Module) -> None:
    """After a forward pass that no backward one follows: each process keeps its part alone again, as after a step.

    Layers do so by themselves. What is outside of them would stay whole, in the place of the parameters that the
    optimiser knows.
    """
    from torch.distributed.fsdp import FSDPModule

    if isinstance(objective, FSDPModule):
        objective.reshard()


@torch.no_grad()
def fill(tensor: Tensor, values: Tensor) -> None:
    """Copy whole values into a tensor, of a sharded one into the own shard."""
    if isinstance(tensor, DTensor):
        values = values.to(tensor.to_local().device)
        values = distribute_tensor(values, tensor.device_mesh, tensor.placements, src_data_rank=None)
    tensor.copy_(values)


def whole(tensor: Tensor) -> NDArray[Any]:
    """A tensor's values; the own memory where it lies here. Of a sharded tensor all processes must ask."""
    found = tensor.detach()
    found = found.full_tensor() if isinstance(found, DTensor) else found
    values: NDArray[Any] = found.cpu().numpy()
    return values


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether what this process has of the tensors is finite."""
    parts = (tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors.values())
    return all(bool(part.isfinite().all()) for part in parts)


def save_shards(directory: Path, tensors: Mapping[str, Tensor], step: int, kept: str | None, ranks: Ranks) -> str:
    """Write what each process has of the tensors; the name of the folder, which is whole when this returns.

    The folder `kept`, of the last checkpoint, is left until the next one is written: a run may be killed before that.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    name = f"{_SHARDS}{step:08d}"
    if name == kept:  # the same step again: nothing has changed
        return name
    if ranks.first:
        drop_shards(directory, kept)
    ranks.wait()
    temporary = directory / f".{name}.tmp"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(
                {name: tensor.detach() for name, tensor in tensors.items()},
                storage_writer=HuggingFaceStorageWriter(str(temporary), save_distributed=True),
            )
    except CheckpointException as error:
        raise RanksError(f"{directory / name}: cannot be written ({_cause(error)})") from error
    if ranks.first:
        os.rename(temporary, directory / name)  # synced with the checkpoint that names it
    return name


def load_shards(directory: Path, name: str, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    """Read the own part of every tensor, whatever the number of processes that wrote. Raises `CheckpointError`."""
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    folder = directory / name
    try:
        if not folder.is_dir():
            raise FileNotFoundError("no such folder")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load(
                {name: tensor.detach() for name, tensor in tensors.items()},
                storage_reader=HuggingFaceStorageReader(str(folder)),
                no_dist=ranks.size == 1,
            )
    except (CheckpointException, OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: damaged ({_cause(error)}); start the run again in another folder") from error


def drop_shards(directory: Path, kept: str | None) -> None:
    """Remove all folders of shards but one, and what a run that was killed left half written."""
    for folder in (*directory.glob(f"{_SHARDS}*"), *directory.glob(f".{_SHARDS}*.tmp")):
        if folder.name != kept:
            shutil.rmtree(folder, ignore_errors=True)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong, of a fault that PyTorch gathered from several processes that of the first."""
    from torch.distributed.checkpoint.api import CheckpointException

    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return next(iter(str(error).splitlines()), type(error).__name__)
