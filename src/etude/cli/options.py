"""Options that several verbs share, read the same way everywhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from etude.errors import EtudeError
from etude.gpt.config import Precision
from etude.music.theory import Chord, Key
from etude.sampling import Sampling, SamplingError

MAX_INPUT_BYTES = 16 << 20

PromptArgument = Annotated[
    str,
    typer.Argument(help="Chords, such as 'D A Bm F#m' or '| D A | Bm . . F#m |'; - reads them from standard input."),
]
ModelOption = Annotated[str, typer.Option("--model", help="A bundled model or a model directory.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
SeedOption = Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0)]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="The prompt's key, such as D or 'F# minor'.", show_default="detected from the prompt"),
]
GreedyOption = Annotated[bool, typer.Option("--greedy", help="Always the likeliest.")]
TemperatureOption = Annotated[float, typer.Option(help="Above 1 bolder, below 1 safer, 0 greedy.")]
TopKOption = Annotated[int, typer.Option(help="Choose among the k likeliest; 0 is all.")]
TopPOption = Annotated[float, typer.Option(help="Choose among the likeliest that sum to this probability.")]
Quantized = StrEnum("Quantized", ("int8", "int4"))
MinPOption = Annotated[
    float, typer.Option(help="Choose among those with at least this share of the likeliest one's probability.")
]
RepetitionPenaltyOption = Annotated[
    float, typer.Option(help="Above 1, what was there before becomes less likely; 1 is off.")
]


def read_prompt_text(argument: str) -> str:
    """The prompt itself, or what stands on standard input where it is `-`. Raises `EtudeError` for no text."""
    return read_input("-") if argument == "-" else argument


def read_input(name: str) -> str:
    """The text of a file, or of standard input where the name is `-`: UTF-8, at most `MAX_INPUT_BYTES`.

    Raises `EtudeError` that names the file.
    """
    said = "standard input" if name == "-" else name
    if name == "-":
        content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    else:
        with open(name, "rb") as file:
            content = file.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        raise EtudeError(f"{said}: longer than {MAX_INPUT_BYTES >> 20} MiB; give less at once")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise EtudeError(f"{said}, line {line}: not UTF-8 (byte {error.start + 1}); save it as UTF-8") from error


def read_precision(quantized: Quantized | None) -> Precision | None:
    """What --quantize asks for."""
    return None if quantized is None else cast("Precision", quantized.value)


def read_key(text: str | None) -> Key | None:
    """The key of `--key`."""
    return None if text is None else Key.parse(text)


def read_sampling(
    greedy: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
) -> Sampling:
    """The settings of the sampling options; a wrong one is wrong usage."""
    try:
        return Sampling(0.0 if greedy else temperature, top_k, top_p, min_p, repetition_penalty)
    except SamplingError as error:
        raise typer.BadParameter(str(error)) from None


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output."""
    json.dump(document, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def say(message: str) -> None:
    """A remark for the person, on standard error."""
    print(message, file=sys.stderr)


def warn_unfamiliar(chords: tuple[Chord, ...], key: Key, nearest: list[Chord]) -> None:
    """Say which chords the model had to read as simpler ones; the song keeps them as they are."""
    for chord, read_as in zip(chords, nearest, strict=True):
        say(f"note: the model does not know {key.name(chord)} and reads it as {key.name(read_as)}")


def check_folder(path: Path) -> None:
    """Refuse a file that cannot be written, before any work is done. Raises `EtudeError`."""
    if path.is_dir():
        raise EtudeError(f"{path} is a folder; name a file in it")
    if not path.absolute().parent.is_dir():
        raise EtudeError(f"{path}: there is no such folder to write it to")


def check_not_read(output: Path, sources: Iterable[str | Path]) -> None:
    """Refuse to write where what is read stands. Raises `EtudeError`."""
    if any(Path(source).resolve() == output.resolve() for source in sources):
        raise EtudeError(f"{output}: is read from and would be replaced; name another file with -o")


def check_unused(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse options that were given and would not be looked at, such as "is for text"; `names` are parameters'."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in names
        and (source := context.get_parameter_source(parameter.name)) is not None
        and source.name == "COMMANDLINE"
    ]
    if given:
        raise typer.BadParameter(f"{given[0]} {why}; leave it out")


def check_directory(path: Path) -> None:
    """Refuse a file where a folder must be, before any work is done."""
    if path.exists() and not path.is_dir():
        raise typer.BadParameter(f"{path} is a file; name a folder")
