"""Checkpoints: all that a run needs to go on as if it had never stopped, in one file that is whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from etude.errors import EtudeError
from etude.files import atomic_write
from etude.gpt.tensors import write_tensors

CHECKPOINT = "checkpoint.safetensors"
_STATE = "state"

Arrays = dict[str, NDArray[Any]]


class CheckpointError(EtudeError):
    """A checkpoint that is missing, damaged or of another run."""


def save_checkpoint(directory: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write arrays, one after another without a copy of them, and a JSON-able state."""
    with atomic_write(directory / CHECKPOINT) as file:
        write_tensors(file, arrays, {_STATE: json.dumps(state, sort_keys=True)}, dtype=None)


def load_checkpoint(directory: Path) -> tuple[Arrays, dict[str, Any]]:
    """Read what `save_checkpoint` wrote; the arrays may be changed. Raises `CheckpointError`."""
    with _opened(directory) as (file, state):
        return {name: np.array(file.get_tensor(name)) for name in file.keys()}, state  # noqa: SIM118


def load_state(directory: Path) -> dict[str, Any]:
    """The state of a checkpoint without its arrays. Raises `CheckpointError`."""
    with _opened(directory) as (_, state):
        return state


@contextmanager
def _opened(directory: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The checkpoint's file and its state; faults of reading in the block are `CheckpointError`s."""
    path = directory / CHECKPOINT
    if not path.exists():
        raise CheckpointError(f"{path}: no checkpoint to resume from; start the run without --resume")
    try:
        with safe_open(path, framework="numpy") as file:
            state = json.loads((file.metadata() or {})[_STATE])
            wanted = {"step", "recipe", "corpus", "metrics_bytes", "seconds", "fitted"}
            if not isinstance(state, dict) or not wanted <= state.keys() or not _is_state(state):
                raise ValueError("its state is not that of a run")
            yield file, state
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); start the run again in another folder") from error


def _is_state(state: Mapping[str, Any]) -> bool:
    """Whether the values that every run has are of their kinds."""
    counts = [state["step"], state["metrics_bytes"]]
    return (
        isinstance(state["recipe"], dict)
        and isinstance(state["corpus"], str)
        and isinstance(state["fitted"], bool)
        and all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
        and all(_is_number(each) for each in (state["seconds"], *_losses(state)))
        and isinstance(state.get("validation", {}), (dict, NoneType))
        and _is_best(state)
    )


def _is_best(state: Mapping[str, Any]) -> bool:
    """Whether what is said of the best validation is whole, or nothing is."""
    best = state.get("best")
    whole = isinstance(best, dict) and "step" in best and _is_number(state.get("best_nats"))
    return (best is None or whole) and _is_number(state.get("worse", 0))


def _losses(state: Mapping[str, Any]) -> list[Any]:
    losses = state.get("losses", [])
    return losses if isinstance(losses, list) else [None]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def saved_step(directory: Path) -> int | None:
    """After which step the checkpoint in a folder was written; None where there is none that can be read."""
    try:
        step: int = load_state(directory)["step"]
    except CheckpointError:
        return None
    return step


def check_fit(arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]], directory: Path) -> None:
    """Raise `CheckpointError` unless there are arrays of these names and shapes, and no others."""
    for name in sorted(arrays.keys() | shapes.keys()):
        if name not in arrays or name not in shapes or arrays[name].shape != shapes[name]:
            raise CheckpointError(
                f"{directory / CHECKPOINT}: does not fit this recipe and corpus (at {name}); start the run again in "
                "another folder"
            )
