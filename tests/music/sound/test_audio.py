"""Sound files are read as they were written, whatever their samples look like."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.music.sound.audio import check_ending, open_sound, write_sound

WAVE = np.round(20_000 * np.sin(np.arange(100_000) / 9)).astype(np.int16)


def read(path: Path) -> NDArray[np.float32]:
    return np.concatenate(list(open_sound(path).blocks()))


def test_blocks_come_back_with_their_comment(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_sound(path, iter([WAVE[:70_000], WAVE[70_000:]]), len(WAVE), "a line of text")
    sound = open_sound(path)
    assert (sound.rate, sound.frames, sound.comment) == (44100, 100_000, "a line of text")
    blocks = list(sound.blocks())
    assert max(map(len, blocks)) <= 65_536
    assert np.array_equal(np.concatenate(blocks), WAVE.astype(np.float32) / 32768)
    assert np.array_equal(read(path), read(path)), "each reading begins anew"


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_soundfile_formats(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    path = tmp_path / f"a.{kind}"
    write_sound(path, [WAVE], len(WAVE), "a line of text")
    sound = open_sound(path)
    assert sound.comment == "a line of text"
    audio = read(path)
    if kind == "flac":
        assert np.array_equal(audio, WAVE.astype(np.float32) / 32768)
    assert abs(len(audio) - len(WAVE)) < 3000
    first = path.read_bytes()
    write_sound(path, [WAVE], len(WAVE), "a line of text")
    assert path.read_bytes() == first, "the same bytes"


@pytest.mark.parametrize("bits", [8, 16, 24, 32, "float", "extensible"])
def test_wav_of_every_width_and_two_channels(bits: int | str, tmp_path: Path) -> None:
    left = np.sin(np.arange(5000) / 20) * 0.5
    both = np.stack([left, np.zeros(5000)], axis=1)
    size = {"float": 32, "extensible": 16}.get(bits, bits) if isinstance(bits, str) else bits
    if bits == "float":
        content = both.astype("<f4").tobytes()
    elif bits == 8:
        content = np.rint(both * 127 + 128).astype("u1").tobytes()
    elif bits == 24:
        content = np.rint(both * (2**31 - 1)).astype("<i4").reshape(-1, 1).view("u1").reshape(-1, 4)[:, 1:].tobytes()
    else:
        content = np.rint(both * (2 ** (int(size) - 1) - 1)).astype(f"<i{int(size) // 8}").tobytes()
    code = {"float": 3, "extensible": 0xFFFE}.get(str(bits), 1)
    form = struct.pack("<HHIIHH", code, 2, 8000, 0, 0, int(size))
    form += struct.pack("<HHIH14x", 22, int(size), 0, 1) if bits == "extensible" else b""
    data = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    assert np.abs(read(tmp_path / "a.wav") - left / 2).max() < (0.005 if bits == 8 else 1e-4)


def test_numbers_that_are_none_are_silence(tmp_path: Path) -> None:
    content = np.array([0.5, np.nan, np.inf, -np.inf], "<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, 8000, 32000, 4, 32)
    data = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", 16) + content
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    assert np.isfinite(read(tmp_path / "a.wav")).all()


def test_a_cut_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_sound(path, [WAVE], len(WAVE))
    path.write_bytes(path.read_bytes()[:-1001])
    assert len(read(path)) == len(WAVE) - 501


def test_a_wrong_count_or_ending_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="announced"):
        write_sound(tmp_path / "a.wav", [WAVE], 5)
    with pytest.raises(EtudeError, match=r"\.wav, \.flac"):
        check_ending(tmp_path / "a.aiff")
    assert not list(tmp_path.iterdir())
