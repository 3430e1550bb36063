"""What is sung is heard: through bad recordings, with nothing known, and what is no song is told apart."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.music.sound.audio import open_sound
from etude.prime.hearing import Heard, hear
from etude.prime.notes import RAGAS, TALAS, find_raga
from etude.prime.recovery import recover
from etude.prime.song import Song, compose, write_audio, write_midi

NUMBER = 4015900675360164941257961833784007821955751818867272204251449157644366823689729146104054213

Samples = NDArray[np.float64]


def notes_of(song: Song) -> tuple[int, ...]:
    """The notes that should be heard: 0 for the lowest."""
    sung = [slot for slot in song.slots if slot is not None]
    return tuple(sorted(set(sung)).index(slot) for slot in sung)


def sung(song: Song, path: Path) -> Samples:
    write_audio(song, path)
    return np.concatenate(list(open_sound(path).blocks())).astype(np.float64)


def write(path: Path, audio: Samples, rate: int = 44100, channels: int = 1) -> None:
    """A file without a word of what is in it."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(np.rint(32767 * np.clip(audio, -1, 1)), channels).astype("<i2").tobytes())


def resampled(audio: Samples, rate: float) -> Samples:
    """From 44,100 Hz to another rate, by its whole spectrum."""
    frames = round(len(audio) * rate / 44100)
    spectrum = np.fft.rfft(audio)
    cut = np.zeros(frames // 2 + 1, complex)
    kept = min(len(cut), len(spectrum))
    cut[:kept] = spectrum[:kept]
    return np.fft.irfft(cut, frames) * frames / len(audio)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Song, Samples]:
    song = compose(NUMBER)
    return song, sung(song, tmp_path_factory.mktemp("song") / "song.wav")


@pytest.mark.parametrize("spoiled", ["noise", "half rate", "padded and soft", "clipped stereo", "too fast", "all"])
def test_a_bad_recording_is_heard_with_nothing_known(plain: tuple[Song, Samples], tmp_path: Path, spoiled: str) -> None:
    song, audio = plain
    rng = np.random.default_rng(7)
    hiss = 0.1 * np.sqrt((audio**2).mean()) * rng.standard_normal(len(audio) + 1323)  # 20 dB below the song
    padded = np.concatenate([np.zeros(1323), audio])  # 30 ms
    path = tmp_path / "spoiled.wav"
    if spoiled == "noise":
        write(path, 0.8 * (audio + hiss[1323:]))
    elif spoiled == "half rate":
        write(path, resampled(audio, 22050), 22050)
    elif spoiled == "padded and soft":
        write(path, 0.03 * padded)
    elif spoiled == "clipped stereo":
        write(path, 3 * audio, channels=2)
    elif spoiled == "too fast":
        write(path, resampled(audio, 44100 / 1.04))
    else:
        write(path, resampled(0.3 * (padded + hiss), 22050), 22050)
    heard = hear(path)
    assert heard.tag is None
    assert heard.notes == notes_of(song)
    assert heard.seconds_per_note == pytest.approx(0.25 / (1.04 if spoiled == "too fast" else 1), rel=1e-3)
    assert recover(heard).number == NUMBER


@pytest.mark.parametrize("kind", ["OGG", "MP3"])
def test_a_compressed_recording_is_heard(plain: tuple[Song, Samples], tmp_path: Path, kind: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    if kind not in soundfile.available_formats():
        pytest.skip(f"this libsndfile writes no {kind}")
    path = tmp_path / f"song.{kind.lower()}"
    subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}[kind]
    with soundfile.SoundFile(path, "w", 44100, 1, subtype, format=kind, compression_level=0.75) as file:
        for start in range(0, len(plain[1]), 65536):  # Vorbis overflows the stack when given all at once
            file.write(plain[1][start : start + 65536])
    assert path.stat().st_size * 8 < 115_000 * len(plain[1]) / 44100, "at most about 96 kbit/s"
    heard = hear(path)
    assert heard.notes == notes_of(plain[0])
    assert recover(heard).number == NUMBER


@pytest.mark.parametrize(
    ("raga", "options"),
    [
        ("yaman", {"drone": True, "tala": TALAS["teental"], "rests": 15}),
        ("bhupali", {"tempo": 500.0, "tala": TALAS["ektal"], "intonation": "just"}),
        ("malkauns", {"rests": 7, "sa": 90.0}),
        ("marwa", {"tempo": 150.0, "first_digits": 50}),
    ],
)
def test_styles_are_heard(raga: str, options: dict[str, object], tmp_path: Path) -> None:
    song = compose(NUMBER, find_raga(raga), **options)  # type: ignore[arg-type]
    heard = hear_bare(song, tmp_path)
    assert heard.notes == notes_of(song)
    assert heard.rests == song.slots.count(None)
    wanted = sorted({song.sa * 2 ** (slot / 12) for slot in song.slots if slot is not None})
    if song.intonation == "equal":
        assert np.abs(1200 * np.log2(np.array(heard.pitches) / wanted)).max() < 15


def hear_bare(song: Song, folder: Path) -> Heard:
    """What is heard of a song from a file without a comment."""
    write(folder / "bare.wav", sung(song, folder / "song.wav"))
    return hear(folder / "bare.wav")


def test_midi_is_heard(tmp_path: Path) -> None:
    song = compose(NUMBER, RAGAS["bhairav"], drone=True, tala=TALAS["rupak"], rests=9, intonation="just", tempo=90)
    write_midi(song, tmp_path / "song.mid")
    heard = hear(tmp_path / "song.mid")
    assert heard.notes == notes_of(song)
    assert heard.rests == song.slots.count(None)
    assert heard.seconds_per_note == pytest.approx(60 / 90, rel=1e-3)


def test_what_is_no_song_is_told_in_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    second = np.arange(44100) / 44100
    path = tmp_path / "x.wav"
    for audio, said in (
        (np.zeros(3 * 44100), "silence"),
        (np.zeros(100), "too short"),
        (np.zeros(0), "too short"),
        (0.5 * np.sin(2 * np.pi * 200 * np.tile(second, 5)), "x.wav"),
        (0.1 * rng.standard_normal(10 * 44100), "."),
        (np.repeat(0.1 * rng.standard_normal(40), 11025) * rng.standard_normal(40 * 11025), "."),
    ):
        write(path, audio)
        with pytest.raises(EtudeError, match=said) as error:
            recover(hear(path))
        assert "\n" not in str(error.value)


def test_files_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    write(path, np.zeros(44100))
    honest = path.read_bytes()
    for content, said in (
        (honest[:30], "damaged|without"),
        (b"RIFF\0\0\0\0WAVE", "without a format"),
        (honest[:24] + struct.pack("<I", 0) + honest[28:], "0 Hz"),
        (b"not a sound at all" * 10, "not a sound file"),
        (b"", "not a sound file"),
    ):
        path.write_bytes(content)
        with pytest.raises(EtudeError, match=said):
            hear(path)
    # Ten hours of silence take no room on the disk, and are refused before they are read.
    frames = 10 * 3600 * 8000
    head = b"RIFF" + struct.pack("<I", 36 + frames) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    with open(path, "wb") as file:
        file.write(head + b"data" + struct.pack("<I", frames))
        file.truncate(44 + frames)
    with pytest.raises(EtudeError, match="36,000 seconds"):
        hear(path)
    for content in (b"", b"MThd", b"MThd\0\0\0\6\0\1\0\1\1\xe0MTrk\0\0\0\4\0\x90\x40"):
        (tmp_path / "x.mid").write_bytes(content)
        with pytest.raises(EtudeError, match=r"x\.mid"):
            hear(tmp_path / "x.mid")
