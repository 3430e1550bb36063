"""Running a program that came out of a number: in a process of its own, with limits, and with what it is not to do.

Where it runs there is an empty folder, an empty environment, no input, and a bound on time, memory and output; files
cannot be written and processes not started by ordinary means (see `guard`). This keeps accidents and loops in check.
It is no sandbox: a program written to break out runs with the rights of the one who starts it. Read it first.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from etude.corpus.lines import printable

from .number import PrimeError

MAX_INPUT_BYTES = 64 << 20
INPUT = "input.txt"
_GUARD = Path(__file__).with_name("guard.py")  # not imported: it is for POSIX alone


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    seconds: float = 600.0
    memory_mib: int = 1024
    output_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status, or `stopped`, why it was not let run to its end."""

    status: int
    stopped: str | None = None


def run_program(
    program: bytes,
    limits: Limits,
    write: Callable[[bytes], None],
    given: Path | None = None,
    errors: bool = True,
) -> Ended:
    """Run the program; `write` gets what it prints, as it comes, with what it says of errors unless told otherwise.

    `given` is a file that it finds as input.txt. Raises `PrimeError` where the system knows no such limits.
    """
    if os.name != "posix":
        raise PrimeError("to run a program out of a number needs the limits of Linux or macOS")
    with tempfile.TemporaryDirectory(prefix="etude-run-") as folder:
        (Path(folder) / "program.py").write_bytes(program)
        if given is not None:
            if os.path.getsize(given) > MAX_INPUT_BYTES:
                raise PrimeError(f"{given}: larger than {MAX_INPUT_BYTES >> 20} MiB")
            shutil.copyfile(given, Path(folder) / INPUT)
        return _run(folder, limits, write, errors)


def _run(folder: str, limits: Limits, write: Callable[[bytes], None], errors: bool) -> Ended:
    told, tell = os.pipe()
    try:
        bounds = (tell, int(limits.seconds) + 1, limits.memory_mib << 20)
        command = [sys.executable, "-I", "-B", "-u", str(_GUARD), "program.py", *map(str, bounds)]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(tell)
        tell = -1
        try:
            stopped = _listen(process, limits, write)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it may have started, too
            process.wait()
            if process.stdout:
                process.stdout.close()
        reason = "" if stopped else _said(told)
    finally:
        os.close(told)
        if tell >= 0:
            os.close(tell)
    if reason == "memory":
        stopped = f"it needs more memory than {limits.memory_mib:,} MiB"
    elif reason:
        stopped = reason
    elif process.returncode == -signal.SIGXCPU:
        stopped = f"it was at work for {limits.seconds:g} s"
    elif process.returncode < 0 and not stopped:
        stopped = f"the system ended it ({signal.Signals(-process.returncode).name})"
    return Ended(process.returncode, stopped)


def _listen(process: subprocess.Popen[bytes], limits: Limits, write: Callable[[bytes], None]) -> str | None:
    """Pass on what the process prints until it ends; why it must be stopped before, or None."""
    assert process.stdout
    until, left = time.monotonic() + limits.seconds, limits.output_bytes
    while True:
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, min(0.5, until - time.monotonic())))
        if ready:
            content = os.read(process.stdout.fileno(), 1 << 16)
            if not content:
                break
            write(content[:left])
            left -= len(content)
            if left < 0:
                return f"it printed more than {limits.output_bytes:,} bytes"
        elif process.poll() is not None:
            return None  # it is gone, and something that it started holds its output open
        if time.monotonic() > until:
            return f"it ran for {limits.seconds:g} s"
    try:  # it may have closed its output and gone on
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"it ran for {limits.seconds:g} s"
    return None


def _said(descriptor: int) -> str:
    """What the guard wrote, if anything; a process that holds the other end open is not waited for."""
    ready, _, _ = select.select([descriptor], [], [], 0)
    return printable(os.read(descriptor, 1000).decode(errors="replace")) if ready else ""
