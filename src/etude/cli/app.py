"""The commands put together, and the promise that a fault is one line and an exit status, never a traceback."""

from __future__ import annotations

import os
import sys

import typer

from etude.errors import EtudeError

from . import compose, evaluate, suggest, train

app = typer.Typer(
    name="etude",
    help="One small GPT that you can read, train and hear.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (compose, suggest, train, evaluate):
    module.register(app)


def main() -> None:
    """Run the command. Exit status: 0, 1 (could not do it; one line says why) or 2 (wrong usage)."""
    try:
        app()
    except (EtudeError, OSError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):  # the reader went away, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        print(f"etude: {one_line(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("etude: stopped", file=sys.stderr)
        sys.exit(1)


def one_line(error: BaseException) -> str:
    """An error's message on one line, with the file of a system error."""
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
