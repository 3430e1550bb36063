"""Étude: one small GPT that you can read, train and hear.

`etude.load("chords")` gives a model to ask; `etude.compose("D A Bm F#m")` writes a song; `etude.train(...)` makes a
model of your own songs. Nothing heavy is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .composer import Composition
    from .model import ChordModel, Prompt
    from .training.loop import Report

__version__ = "0.1.0"
__all__ = ["compose", "load", "train"]


def load(name: str | Path = "chords") -> ChordModel:
    """A bundled model by name, or a model directory, ready to `suggest` and `generate`."""
    from .model import load as load_model

    return load_model(name)


def compose(prompt: Prompt, model: str | Path | ChordModel = "chords", **options: Any) -> Composition:
    """A whole song that begins with `prompt`; the options are those of `etude.composer.compose`."""
    from .composer import compose as write_song
    from .model import ChordModel

    return write_song(prompt, model if isinstance(model, ChordModel) else load(model), **options)


def train(
    corpus: str | Path | Sequence[str | Path],
    output: str | Path,
    recipe: str = "chords",
    *,
    validation: str | Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train on files of songs into a model directory; returns its scores on the validation songs.

    `validation` is a file of songs (default: `valid.*` beside `train.*`, or a twentieth of the corpus), the settings
    are the recipe's fields, `report` is called after every step. A run is resumed with the recipe it was begun with.
    """
    from pathlib import Path

    from .corpus.songs import read_songs, split_songs
    from .errors import EtudeError
    from .training.recipes import recipe as find_recipe

    chosen = find_recipe(recipe).with_settings(f"{key}={value}" for key, value in settings.items())
    paths = [Path(path) for path in ([corpus] if isinstance(corpus, (str, Path)) else corpus)]
    documents = [document for path in paths for document in read_songs(path)]
    documents, held_out = split_songs(documents, paths, None if validation is None else Path(validation))
    try:
        from .training.loop import saved_recipe
        from .training.loop import train as run
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EtudeError("training needs PyTorch: pip install 'etude[train]'") from None
    if resume:
        chosen = saved_recipe(Path(output)).with_settings(f"{key}={value}" for key, value in settings.items())
    return run(documents, held_out, Path(output), chosen, resume, report or (lambda progress: None))
