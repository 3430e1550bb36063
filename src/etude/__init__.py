"""Étude: one small GPT that you can read, train and hear.

`etude.load("chords")` gives a model to ask; `etude.compose("D A Bm F#m")` writes a song; `etude.train(...)` makes a
model of your own songs or text. Nothing heavy is imported until it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .composer import Composition
    from .gpt.config import Precision
    from .model import ChordModel, Prompt, TextModel
    from .training.recipes import Recipe
    from .training.runs import Report, RunResult

__version__ = "0.1.0"
__all__ = ["compose", "load", "train"]


@overload
def load(
    name: Literal["chords"] = "chords", engine: str | None = None, precision: Precision | None = None
) -> ChordModel: ...


@overload
def load(name: str | Path, engine: str | None = None, precision: Precision | None = None) -> ChordModel | TextModel: ...


def load(
    name: str | Path = "chords", engine: str | None = None, precision: Precision | None = None
) -> ChordModel | TextModel:
    """A bundled model by name, or a model directory: one to `suggest` chords or to `generate` text, as its tokenizer.

    Text models run in any engine that is installed and knows them: scalar, array, compiled or tensor. GPT-2 runs in the
    compiled engine where that is installed, if it is told so with fewer bits a weight: `precision` int8 or int4.
    """
    from .model import load as load_model

    return load_model(name, engine, precision)


def compose(prompt: Prompt, model: str | Path | ChordModel = "chords", **options: Any) -> Composition:
    """A whole song that begins with `prompt`; the options are those of `etude.composer.compose`."""
    from .composer import compose as write_song
    from .model import ChordModel, load_chords

    return write_song(prompt, model if isinstance(model, ChordModel) else load_chords(model), **options)


def train(
    corpus: str | Path | Sequence[str | Path],
    output: str | Path,
    recipe: str | None = None,
    *,
    init: str | Path | None = None,
    tokenizer: str | Path | None = None,
    engine: str | None = None,
    validation: str | Path | None = None,
    device: str | None = None,
    resume: bool = False,
    size: int | None = None,
    report: Report | None = None,
    say: Callable[[str], None] | None = None,
    tensorboard: bool = False,
    **settings: Any,
) -> RunResult:
    """Train on songs or on text into a model directory; returns its scores, which a notebook shows as a plot.

    Songs are JSON lines; text is any file, plain or gzipped, a folder of them, JSON lines whose "text" is a document,
    or `-` for standard input.

    `recipe` is `chords` for songs, `micro` for text with a document a line, `classic` for text as one stream, and
    `finetune` to go on with `init`, a GPT-2 model directory, on a stream; `bigram` to `norm` are the rungs of
    docs/ladder, on a stream too. By default it is `finetune` where there is an `init`, else `chords`; a resumed run
    keeps the one it was begun with. `engine` is for `micro`: scalar, compiled or tensor (default: the fastest that is
    installed). `tokenizer` is for a new model of a stream: `char`, which says what was not in the corpus byte by byte,
    `plain`, which has the characters of the corpus alone, `byte`, or the path of a tokenizer.json, of a model
    directory, or of a folder with GPT-2's vocab.json and merges.txt; by default it is `plain` for the rungs, else
    `char`. `validation` is a file of songs (default: `valid.*` beside `train.*`, or a twentieth of the corpus) or of
    text (default: none for `micro`, else the last tenth). `device`, cpu or cuda, is for text as one stream (default: a
    GPU where there is one). `size` is the number of layers, and sets width, heads and rates to match. The settings are
    the recipe's fields, `report` is called as the run goes on, `say` with remarks. With `tensorboard` the run's folder
    has an event file for TensorBoard too, of all steps, also those before a resumption.
    """
    from pathlib import Path

    from .training.ranks import started
    from .training.recipes import RecipeError, TextRecipe, sized, with_settings
    from .training.recipes import recipe as find_recipe
    from .training.runs import RunResult, naming_checkpoint, saved_recipe

    directory, held_out = Path(output), None if validation is None else Path(validation)
    paths = [Path(path) for path in ([corpus] if isinstance(corpus, (str, Path)) else corpus)]
    chosen = saved_recipe(directory) if resume else find_recipe(recipe or ("chords" if init is None else "finetune"))
    if recipe not in (None, chosen.name):
        raise RecipeError(f"{output} was begun with the recipe {chosen.name}, not {recipe}; resume without --recipe")
    if size is not None:
        if resume:
            raise RecipeError(f"{output} has its size already; resume without --size")
        chosen = sized(chosen, size)
    chosen = with_settings(chosen, (f"{key}={value}" for key, value in settings.items()))
    report, say = report or (lambda progress: None), say or (lambda message: None)
    model = None if init is None else Path(init)
    if model is not None and not isinstance(chosen, TextRecipe):
        raise RecipeError(f"the recipe {chosen.name} begins from nothing; with --init take finetune, or none")
    if not isinstance(chosen, TextRecipe):
        if tokenizer is not None:
            raise RecipeError(f"the recipe {chosen.name} makes its own tokenizer; leave --tokenizer out")
        if (processes := started().size) > 1:
            raise RecipeError(
                f"the recipe {chosen.name} trains in one process, not in {processes:,}; start it by itself"
            )
        if device not in (None, "cpu"):
            raise RecipeError(f"the recipe {chosen.name} trains on a processor alone, not on {device}")
    with naming_checkpoint(directory, resume):
        found = _train(
            paths, held_out, directory, chosen, model, tokenizer, engine, device, resume, report, say, tensorboard
        )
    return RunResult(found, directory)


def _train(
    paths: list[Path],
    held_out: Path | None,
    directory: Path,
    chosen: Recipe,
    model: Path | None,
    tokenizer: str | Path | None,
    engine: str | None,
    device: str | None,
    resume: bool,
    report: Report,
    say: Callable[[str], None],
    tensorboard: bool,
) -> dict[str, Any]:
    from .training.recipes import MicroRecipe, TextRecipe

    if isinstance(chosen, MicroRecipe):
        from .corpus.text import read_documents
        from .training.micro import train as train_micro

        kept_apart = None if held_out is None else read_documents([held_out], directory, say)
        documents = read_documents(paths, directory, say)
        return train_micro(documents, kept_apart, directory, chosen, engine, resume, report, say, tensorboard)

    from .engines.engine import ENGINES, EngineError, check_engine

    if engine in ENGINES and engine != "tensor":
        raise EngineError(f"the recipe {chosen.name} trains in the engine tensor alone, not in {engine}")
    if isinstance(chosen, TextRecipe):
        check_engine(engine or "tensor")
        from .training.text import train as train_text

        return train_text(
            paths, held_out, directory, chosen, model, resume, report, say, tensorboard, device, tokenizer
        )

    from .corpus.lines import CorpusError
    from .corpus.songs import read_songs, split_songs

    try:
        songs = [song for path in paths for song in read_songs(path)]
    except CorpusError as error:
        if not all(str(path) == "-" or path.exists() for path in paths):
            raise
        raise CorpusError(f"{error}; if it is text and no songbook, name a recipe for text, such as modern") from error
    songs, validation_songs = split_songs(songs, paths, held_out)
    check_engine(engine or "tensor")
    from .training.songs import train as train_chords

    return train_chords(songs, validation_songs, directory, chosen, resume, report, tensorboard)
