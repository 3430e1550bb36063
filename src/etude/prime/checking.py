"""Whether two programs do the same, as far as running them tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .number import PrimeError
from .running import Ended, Limits, run_program


@dataclass(frozen=True, slots=True)
class Run:
    """What a program printed, and how it ended."""

    output: bytes
    ended: Ended


def run(program: bytes, limits: Limits, given: Path | None) -> Run:
    """Run a program and keep what it prints."""
    pieces: list[bytes] = []
    ended = run_program(program, limits, pieces.append, given, errors=False)
    return Run(b"".join(pieces), ended)


def compare(original: Run, other: Run, name: str) -> str:
    """Raise `PrimeError` where the runs differ; else one line that says what was seen.

    Where the original was stopped, the other must print at least as much of the same, or be stopped on the way.
    """
    first, second = original.output, other.output
    if original.ended.stopped and other.ended.stopped:
        length = min(len(first), len(second))
        first, second = first[:length], second[:length]
    elif original.ended.stopped:
        second = second[: len(first)]
    elif other.ended.stopped:
        raise PrimeError(
            f"{name}: ends by itself, and minified it does not ({other.ended.stopped}); give it more --seconds, or "
            "--no-minify packs it as it is"
        )
    if first != second or (not original.ended.stopped and original.ended.status != other.ended.status):
        line = next(
            (i for i, (a, b) in enumerate(zip(first.split(b"\n"), second.split(b"\n"), strict=False), 1) if a != b), 1
        )
        raise PrimeError(
            f"{name}: prints something else once it is minified, first in line {line}; --no-minify packs it as it is"
        )
    lines = first.count(b"\n")
    if not first:
        return "neither printed anything, so nothing was compared; --input FILE gives the program what it reads"
    if original.ended.stopped:
        return f"minified it prints the same {lines:,} lines, as far as both were run: {original.ended.stopped}"
    status = original.ended.status
    failed = f", and ends with status {status} as before" if status else ""
    return f"minified it prints the same {lines:,} lines to its end{failed}"
