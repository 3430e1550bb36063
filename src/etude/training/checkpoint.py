"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file that is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from etude.errors import EtudeError
from etude.files import atomic_write

CHECKPOINT = "checkpoint.safetensors"
_STATE = "state"


class CheckpointError(EtudeError):
    """A checkpoint that is missing, damaged or of another run."""


def save_checkpoint(directory: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write tensors and a JSON-able state."""
    copies = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = safetensors_bytes(copies, {_STATE: json.dumps(state, sort_keys=True)})
    with atomic_write(directory / CHECKPOINT) as file:
        file.write(content)


def load_checkpoint(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote. Raises `CheckpointError`."""
    path = directory / CHECKPOINT
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint to resume from; start the run without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            state = json.loads((file.metadata() or {})[_STATE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(state, dict) or not {"step", "recipe", "corpus", "metrics_bytes", "best"} <= state.keys():
            raise ValueError("its state is not that of a run")
        if tensors["random"].dtype != torch.uint8:
            raise ValueError("its random state is none")
        return tensors, state
    except (OSError, SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); start the run again in another folder") from error


def restore(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], directory: Path) -> None:
    """Copy checkpoint tensors into those of a run. Raises `CheckpointError` where names or shapes differ."""
    for name, target in targets.items():
        source = tensors.get(name)
        if source is None or source.shape != target.shape:
            raise CheckpointError(f"{directory / CHECKPOINT}: does not fit this recipe and corpus (at {name})")
        with torch.no_grad():
            target.copy_(source)
