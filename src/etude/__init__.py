"""Étude: one small GPT that you can read, train and hear.

`etude.load("chords")` gives a model to ask; `etude.compose("D A Bm F#m")` writes a song; `etude.train(...)` makes a
model of your own songs. Nothing heavy is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from .composer import Composition
    from .model import ChordModel, Prompt

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
    corpus: str | Path, output: str | Path, recipe: str = "chords", resume: bool = False, **settings: Any
) -> Path:
    """Train on a file of songs (see `corpus.songs`) into a model directory; the settings are the recipe's fields."""
    from pathlib import Path

    from .corpus.songs import read_songs, split_songs
    from .training.loop import train as run
    from .training.recipes import recipe as find_recipe

    path = Path(corpus)
    documents, validation, _ = split_songs(read_songs(path), [path], None)
    chosen = find_recipe(recipe).with_settings(f"{key}={value}" for key, value in settings.items())
    run(documents, validation, Path(output), chosen, resume)
    return Path(output)
