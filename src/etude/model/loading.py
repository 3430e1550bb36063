"""Models and tokenizers by name: the bundled ones, and those in directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from etude.engines.engine import ENGINES, EngineError, check_engine
from etude.gpt.config import Precision
from etude.gpt.directory import WEIGHTS, ModelError, load_model
from etude.gpt.importing import fetch_tokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import TextTokenizer, find_tokenizer
from etude.training.recipes import RECIPE

from .chords import ChordModel
from .prompts import unsaid
from .text import TextModel

BUNDLED = ("chords",)


def load(name: str | Path, engine: str | None = None, precision: Precision | None = None) -> ChordModel | TextModel:
    """A bundled model by name, or a model directory. Raises `ModelError`, or `EngineError` for another engine.

    By default GPT-2 runs in the engine compiled where that is installed, in the precision that it is stored in, and all
    else in array.
    """
    path = model_directory(name)
    model = load_model(path)
    if not isinstance(model.tokenizer, ChordTokenizer):
        return TextModel(model, model.tokenizer, engine, path.resolve().name, precision, _window(path))
    if engine in ENGINES and engine != "array":
        raise EngineError(f"{name} is a chord model, which runs in the engine array, not in {engine}")
    check_engine(engine or "array", model.config, precision)
    return ChordModel(model, model.tokenizer, path)


def _window(path: Path) -> int | None:
    """The windows that the run in a folder was validated in, which may be shorter than the model's block."""
    try:
        window = json.loads((path / RECIPE).read_bytes()).get("block_size")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return window if isinstance(window, int) and window >= 2 else None


def model_directory(name: str | Path) -> Path:
    """Where a bundled model is, or the directory that is named. Raises `ModelError` where there is none."""
    path = Path(str(files("etude.assets").joinpath(str(name)))) if str(name) in BUNDLED else Path(name)
    if not path.is_dir():
        raise ModelError(f"{name}: no such model directory, and no bundled model; bundled: {', '.join(BUNDLED)}")
    if (path / RECIPE).is_file() and not (path / WEIGHTS).exists():
        raise ModelError(
            f"{path}: its run has not ended, so there is no model in it yet; go on with "
            f"etude train CORPUS -o {path} --resume"
        )
    return path


def load_tokenizer(
    name: str | Path, hub: bool = False, say: Callable[[str], None] = unsaid
) -> TextTokenizer | ChordTokenizer:
    """That of a bundled model, a tokenizer.json of any kind, or a folder with one or with vocab.json and merges.txt.

    With `hub` a name that is none of these is looked up on the Hugging Face hub. Raises `TokenizerError`,
    `ImportingError`, or `ModelError` where there is none.
    """
    path = Path(name)
    if str(name) in BUNDLED:
        path = model_directory(name)
    elif not path.exists():
        if not hub:
            raise ModelError(
                f"{name}: no such tokenizer file or folder, and no bundled model ({', '.join(BUNDLED)}); "
                "with --hub it is looked up on the Hugging Face hub"
            )
        path = fetch_tokenizer(str(name), say)
    return find_tokenizer(path)


def load_chords(name: str | Path) -> ChordModel:
    """As `load`, where it must be a model of chords. Raises `ModelError`."""
    model = load(name)
    if isinstance(model, ChordModel):
        return model
    raise ModelError(f"{name}: writes text, not chords; try etude generate, or a chord model such as {BUNDLED[0]}")
