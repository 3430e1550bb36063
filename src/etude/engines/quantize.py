"""A GPT-2 model directory with int8 or int4 weights: a quarter or less of the size, for the compiled engine."""

from __future__ import annotations

import os
from pathlib import Path

from etude.errors import EtudeError
from etude.files import atomic_directory
from etude.gpt.config import Precision
from etude.gpt.directory import load_model, save_model

from .engine import check_engine


def quantize_model(source: Path, destination: Path, precision: Precision) -> None:
    """Write the model directory `source` as `destination`, which must not exist, with weights in `precision`.

    Raises `ModelError` or `EngineError` for a model that cannot be; then nothing is left behind.
    """
    if os.path.lexists(destination):
        raise EtudeError(f"{destination}: exists already; name a new folder, or take that one away")
    model = load_model(source)
    check_engine("compiled", model.config, precision)
    if model.config.precision != "float32":
        raise EtudeError(f"{source}: is stored in {model.config.precision} already; quantize the original")
    from .decoder import quantized

    config, arrays = quantized(model.config, model.weights, precision)
    card = f"{model.card.rstrip()}\n\nIts weights were rounded to {precision} by `etude export`.\n"
    with atomic_directory(destination) as folder:
        save_model(folder, config, arrays, model.tokenizer, card)
