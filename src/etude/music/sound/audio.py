"""Sound files of any length, read and written in blocks: WAV by ourselves, FLAC, Ogg and MP3 through `soundfile`.

A file carries a line of text, too (a comment), which most players show and most converters keep.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.files import atomic_write

from .synth import RATE

_Audio = NDArray[np.float32]
_Whole = NDArray[np.int16]

WAV = (".wav",)
OTHERS = (".flac", ".mp3")  # these need soundfile, which writes .ogg, too, but never the same bytes twice
MAX_COMMENT = 4096  # characters of a comment that are read
_MAX_CHANNELS = 8
_MIN_RATE, _MAX_RATE = 4000, 384_000
_BLOCK = 1 << 16  # frames
_MP3_COMPRESSION = 0.5  # of libsndfile's levels: 0 is the best, 1 the smallest


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound file that can be read more than once: `blocks()` begins anew each time."""

    path: Path
    rate: int
    """frames a second"""
    frames: int
    """as its header says; the file may hold fewer or, where it is compressed, more"""
    comment: str
    _read: Callable[[], Iterator[_Audio]]

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def blocks(self) -> Iterator[_Audio]:
        """Mono float32 blocks [n], at most 65,536 frames each: the mean of the channels, full scale 1."""
        return self._read()


def open_sound(path: Path) -> Sound:
    """Open a WAV file, or with `soundfile` any that it reads. Raises `EtudeError` that names the file."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
            sound = _open_wav(path, file)
            if sound is not None:
                return sound
    return _open_other(path)


def write_sound(path: Path, blocks: Iterable[_Whole], frames: int, comment: str = "") -> None:
    """Write 16-bit mono blocks [n], `frames` in all, as the file's ending says: .wav, .flac or .mp3.

    The path is written whole or not at all, and the same arguments give the same bytes (compressed ones, with the same
    version of libsndfile). Raises `EtudeError` for another ending and where soundfile is needed and missing.
    """
    ending = path.suffix.lower()
    if ending in WAV:
        with atomic_write(path) as file:
            _write_wav(file, blocks, frames, comment)
        return
    check_ending(path)
    _write_other(path, blocks, comment)


def check_ending(path: Path) -> None:
    """Raise `EtudeError` where a sound of this name cannot be written here."""
    ending = path.suffix.lower()
    if ending in WAV:
        return
    if ending not in OTHERS:
        raise EtudeError(f"{path}: not a kind of sound that is written; these are: {', '.join(WAV + OTHERS)}")
    library = _soundfile(f"{path}: writing {ending}")
    if ending[1:].upper() not in library.available_formats():
        raise EtudeError(f"{path}: this machine's libsndfile does not write {ending}; write .wav or .flac")


# ---------------------------------------------------------------------------------------------- WAV


def _write_wav(file: BinaryIO, blocks: Iterable[_Whole], frames: int, comment: str) -> None:
    """A RIFF file: format, samples, and the comment last, since some readers expect the samples at byte 44."""
    text = comment.encode("ascii", "replace")
    text += bytes(2 - len(text) % 2)  # ends with a zero, of even length
    notes = b"LIST" + struct.pack("<I", 12 + len(text)) + b"INFOICMT" + struct.pack("<I", len(text)) + text
    notes = notes if comment else b""
    size = 2 * frames
    if size + len(notes) + 36 >= 1 << 32:
        raise EtudeError(f"{frames / RATE:,.0f} seconds are too long for a WAV file; write .flac")
    file.write(b"RIFF" + struct.pack("<I", 36 + size + len(notes)) + b"WAVEfmt ")
    file.write(struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16))
    file.write(b"data" + struct.pack("<I", size))
    written = 0
    for block in blocks:
        file.write(block.astype("<i2").tobytes())
        written += len(block)
    if written != frames:
        raise ValueError(f"{written} frames where {frames} were announced")
    file.write(notes)


def _open_wav(path: Path, file: BinaryIO) -> Sound | None:
    """A WAV file of 8- to 32-bit PCM or 32-bit float; None for a rarer kind. `file` stands after the first 12 bytes."""
    size = os.fstat(file.fileno()).st_size
    form: tuple[int, int, int, int] | None = None  # code, channels, rate, bits
    data: tuple[int, int] | None = None  # where, and how many bytes
    comment = ""
    for _ in range(64):  # a file has a handful of chunks
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        start = file.tell()
        if name == b"fmt " and length >= 16:
            content = file.read(min(length, 40))
            if len(content) < 16:
                break
            code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            if code == 0xFFFE and len(content) >= 26:  # "extensible": the code stands further on
                code = struct.unpack("<H", content[24:26])[0]
            form = code, channels, rate, bits
        elif name == b"data" and data is None:
            data = start, min(length, size - start)
        elif name == b"LIST":
            comment = comment or _riff_comment(file.read(min(length, MAX_COMMENT)))
        file.seek(start + length + length % 2)
    if form is None or data is None:
        raise EtudeError(f"{path}: a damaged WAV file, without {'a format' if form is None else 'samples'}")
    code, channels, rate, bits = form
    kind = {(1, 8): "u1", (1, 16): "<i2", (1, 24): "u1", (1, 32): "<i4", (3, 32): "<f4"}.get((code, bits))
    if kind is None:
        return None
    _check_form(path, channels, rate)
    width = bits // 8 * channels
    where, length = data

    def read() -> Iterator[_Audio]:
        with open(path, "rb") as again:
            again.seek(where)
            left = length // width
            while left > 0 and (content := again.read(min(left, _BLOCK) * width)):
                left -= len(content) // width
                yield _floats(content[: len(content) // width * width], kind, bits, channels)

    return Sound(path, rate, length // width, comment, read)


def _floats(content: bytes, kind: str, bits: int, channels: int) -> _Audio:
    raw: NDArray[Any] = np.frombuffer(content, kind)
    if bits == 24:  # three bytes each: put them on top of a 32-bit number
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = raw.reshape(-1, 3)
        raw = wide.view("<i4").ravel()
    samples: NDArray[Any]
    if kind == "<f4":
        samples = _finite(raw)
    elif bits == 8:
        samples = (raw.astype(np.float32) - 128) / 128
    else:
        samples = raw.astype(np.float32) / np.float32(2 ** (15 if bits == 16 else 31))
    return _mono(samples.reshape(-1, channels))


def _mono(samples: NDArray[Any]) -> _Audio:
    """The mean of the channels of [n, channels]."""
    mean: _Audio = samples.mean(axis=1, dtype=np.float32)
    return mean


def _finite(samples: NDArray[Any]) -> _Audio:
    """Samples of which none is infinite or no number, and none absurdly loud."""
    return np.clip(np.nan_to_num(samples.astype(np.float32)), -100, 100)


def _riff_comment(content: bytes) -> str:
    at = content.find(b"ICMT")
    if not content.startswith(b"INFO") or at < 0 or at + 8 > len(content):
        return ""
    length = struct.unpack("<I", content[at + 4 : at + 8])[0]
    return content[at + 8 : at + 8 + length].split(b"\0")[0].decode("ascii", "replace")


def _check_form(path: Path, channels: int, rate: int) -> None:
    if not 1 <= channels <= _MAX_CHANNELS or not _MIN_RATE <= rate <= _MAX_RATE:
        raise EtudeError(
            f"{path}: {channels} channels at {rate:,} Hz; 1 to {_MAX_CHANNELS} channels at {_MIN_RATE:,} to "
            f"{_MAX_RATE:,} Hz are read"
        )


# ---------------------------------------------------------------------------------------------- everything else


def _soundfile(what: str) -> ModuleType:
    try:
        return import_module("soundfile")
    except (ImportError, OSError):  # OSError: the package is there and its C library is not
        raise EtudeError(f"{what} needs soundfile: pip install 'etude[audio]' (.wav needs nothing)") from None


def _open_other(path: Path) -> Sound:
    library = _soundfile(f"{path}: reading anything but plain WAV")
    try:
        with library.SoundFile(str(path)) as file:
            channels, rate, frames = file.channels, file.samplerate, file.frames
            comment = str(file.comment)[:MAX_COMMENT]
    except (library.LibsndfileError, RuntimeError, TypeError) as error:
        raise EtudeError(f"{path}: not a sound file that can be read ({_reason(error)})") from error
    _check_form(path, channels, rate)

    def read() -> Iterator[_Audio]:
        try:
            with library.SoundFile(str(path)) as file:
                while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                    yield _mono(_finite(block))
        except (library.LibsndfileError, RuntimeError) as error:
            raise EtudeError(f"{path}: damaged ({_reason(error)})") from error

    return Sound(path, rate, frames, comment, read)


def _reason(error: Exception) -> str:
    return str(error).rsplit(": ", 1)[-1].strip().rstrip(".") or "unknown"


def _write_other(path: Path, blocks: Iterable[_Whole], comment: str) -> None:
    library = _soundfile(f"{path}: writing {path.suffix}")
    kind = path.suffix[1:].upper()
    subtype = {"FLAC": "PCM_16", "MP3": "MPEG_LAYER_III"}[kind]
    options: dict[str, Any] = {} if kind == "FLAC" else {"compression_level": _MP3_COMPRESSION}
    with atomic_write(path) as opened:
        try:
            with library.SoundFile(opened, "w", RATE, 1, subtype, format=kind, **options) as file:
                file.comment = comment
                for block in blocks:
                    file.write(block)
        except (library.LibsndfileError, RuntimeError) as error:
            raise EtudeError(f"{path}: cannot be written ({_reason(error)})") from error
