"""Runs a program that came out of a number, inside the process that `running` starts for it. Imports nothing of here.

Python announces what a program is about to do (PEP 578), and what nobody expects of a number ends the process at once:
writing to files, other processes, the network, foreign libraries. It is a fence and no prison: code that sets out to
get round it can. Usage: python -I guard.py PROGRAM DESCRIPTOR SECONDS BYTES, of processor time and of memory; the
reason for an end is written to the descriptor.
"""

from __future__ import annotations

import os
import resource
import runpy
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED = {
    "change files": (
        "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir",
        "os.setxattr", "os.symlink", "os.truncate", "os.utime", "shutil.", "sqlite3.", "tempfile.",
    ),
    "start another process": (
        "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "pty.", "subprocess.",
    ),
    "send a signal": ("os.kill", "signal."),
    "use the network": ("ftplib.", "http.", "imaplib.", "nntplib.", "poplib.", "smtplib.", "socket.", "urllib."),
    "load a foreign library": ("ctypes.", "cffi."),
    "change its limits": ("resource.",),
}  # fmt: skip
# What Python does not announce.
_UNANNOUNCED = {
    "os": ("mkfifo", "mknod"), "posix": ("mkfifo", "mknod"), "_posixshmem": ("shm_open", "shm_unlink"),
    "_posixsubprocess": ("fork_exec",),
}  # fmt: skip


def main(path: str, report: int, seconds: int, memory: int) -> None:
    """Run the program as `python PROGRAM` would, and end the process if it does what is refused."""

    def end(reason: str) -> NoReturn:
        os.write(report, reason.encode(errors="replace")[:1000])
        os._exit(1)

    def heed(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            name, mode, flags = arguments
            if set(mode or "") & set("wax+") or (isinstance(flags, int) and flags & _WRITES):
                end(f"it tried to write to {str(name)[:200]!r}, which is refused")
        for what, events in _REFUSED.items():
            if event.startswith(events):
                end(f"it tried to {what} ({event}), which is refused")

    def refused(name: str) -> Callable[..., NoReturn]:
        return lambda *arguments, **named: end(f"it tried to call {name}, which is refused")

    for module, names in _UNANNOUNCED.items():
        with suppress(ImportError):
            found = import_module(module)
            for name in names:
                if hasattr(found, name):
                    setattr(found, name, refused(name))
    sys.argv = [path]
    limit(seconds, memory)
    sys.addaudithook(heed)
    try:
        runpy.run_path(path, run_name="__main__")
    except MemoryError:
        end("memory")


def limit(seconds: int, memory: int) -> None:
    """Bounds that the system keeps, and that this process cannot raise again."""
    wanted = {
        resource.RLIMIT_CPU: (seconds, seconds + 1),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_NPROC: (0, 0),
    }
    for name, bound in wanted.items():
        with suppress(ValueError, OSError, OverflowError):  # a system that does not know it, or allows less already
            resource.setrlimit(name, bound)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
