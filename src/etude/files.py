"""Files that are either whole or not there: everything that Étude writes goes through here."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk, a quota or a file is full."""


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    The bytes go to a hidden file in the same folder, are synced to the disk and then renamed over `path`, so a reader
    sees the old content or the new, never a half. A link is followed; a device or a pipe, where nothing can be renamed,
    is written directly. Raises `OSError` with the system's own message and with `path` as its file name.
    """
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(path, "wb") as device:  # a folder is refused here by the system itself
            yield device
        return
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(6)}.tmp")
    file: BinaryIO
    with _named(path):
        file = open(temporary, "xb")  # noqa: SIM115 - closed below, before the rename
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _named(path):
            os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(folder)


@contextmanager
def atomic_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new hidden folder that becomes `path` when the block ends well, and leaves no trace when it does not.

    Nothing may stand at `path` yet. Raises `OSError` with `path` as its file name.
    """
    target = Path(path)
    with _named(path):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name[:100]}.{secrets.token_hex(6)}.tmp"
        temporary.mkdir()
    try:
        yield temporary
        with _named(path):
            os.rename(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(target.parent)


@contextmanager
def output(target: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """A binary file to write to: `target` itself where it is one (left open), else `atomic_write(target)`."""
    if isinstance(target, (str, os.PathLike)):
        with atomic_write(target) as file:
            yield file
    else:
        yield target


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """An `OSError` about the temporary file, told about the file that the caller asked for."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None


def _sync_folder(folder: str | os.PathLike[str]) -> None:
    """A rename is safe on the disk when the folder that it happened in is."""
    if os.name != "posix":
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
