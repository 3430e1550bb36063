"""The commands put together, and the promise that a fault is one line and an exit status, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from io import TextIOWrapper
from types import FrameType
from typing import Annotated, NoReturn

import typer

from etude.errors import EtudeError
from etude.training.ranks import started

VERBS = {
    "compose": "compose",
    "suggest": "suggest",
    "generate": "generate",
    "explain": "explain",
    "train": "train",
    "eval": "evaluate",
    "tokens": "tokens",
    "import": "importing",
    "export": "exporting",
    "chart": "chart",
    "prime": "prime",
    "race": "race",
    "bench": "bench",
}
"""Each verb and the module that registers it."""

# The command-line library's own exception for wrong usage, wherever it keeps it.
_UsageError: type[Exception] = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "UsageError")


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"etude {metadata.version('etude')}")
        raise typer.Exit


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The command with the verb that the arguments begin with, or with all where they begin with none.

    A verb imports what it needs, so one alone starts in half the time of all.
    """
    app = typer.Typer(
        name="etude",
        help="One small GPT that you can read, train and hear.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)  # or a verb alone would be the command itself
    for module in [VERBS[arguments[0]]] if arguments and arguments[0] in VERBS else VERBS.values():
        import_module(f"etude.cli.{module}").register(app)
    return app


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command. Exit status: 0, 1 (could not do it; one line says why) or 2 (wrong usage)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the sign for a quarter note shows a `?`
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = make_app(sys.argv[1:])(prog_name="etude", standalone_mode=False)
    except _UsageError as error:
        _fail(error, 2)
    except (EtudeError, OSError, MemoryError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):  # the reader went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        _fail(error, 1)
    except (KeyboardInterrupt, typer.Abort):
        print("etude: stopped", file=sys.stderr)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """A polite kill unwinds like Ctrl-C, so that what was half written is taken away."""
    raise KeyboardInterrupt


def _fail(error: Exception, status: int) -> NoReturn:
    text = one_line(error)
    if status == 2 and not _tells():
        sys.exit(status)
    if status == 2:
        context = getattr(error, "ctx", None)
        path = getattr(context, "command_path", "etude")
        if not text or type(error).__name__ == "NoArgsIsHelpError":
            print(context.get_help() if context else "", file=sys.stderr)
            sys.exit(status)
        text += f" (see {path} --help)"
    print(f"etude: {text}", file=sys.stderr)
    sys.exit(status)


def _tells() -> bool:
    """Whether wrong usage is told here: torchrun starts several processes with the same words."""
    try:
        return started().first
    except EtudeError:
        return True


def one_line(error: Exception) -> str:
    """An error's message on one line, with the file of a system error."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(str(message).split())
