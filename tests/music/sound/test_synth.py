"""The sound is as long as the song, neither clips nor clicks, and each part can be heard."""

from __future__ import annotations

import io
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from etude.music.arrange import Note, arrange
from etude.music.sound import RATE, TAIL_SECONDS, render, synth, write_wav
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song

GENRES = ("pop", "rock", "jazz", "folk", "latin")


def song(text: str, meter: str = "4/4", genre: str = "pop", tempo: float = 120.0) -> Song:
    bars = tuple(Bar.of(*[Chord.parse(symbol) for symbol in bar.split()]) for bar in text.split("|"))
    return Song("A song", Key("C"), (Section("A", bars),), Meter.parse(meter), tempo, genre)


def read(data: bytes) -> NDArray[np.int16]:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 44100)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        assert len(samples) == file.getnframes()
        return samples


def written(piece: Song, notes: tuple[Note, ...] | None = None) -> bytes:
    file = io.BytesIO()
    write_wav(piece, arrange(piece) if notes is None else notes, file)
    return file.getvalue()


def level(audio: NDArray[np.float32]) -> float:
    """Root mean square, in decibels of full scale."""
    return float(10 * np.log10(np.mean(audio.astype(float) ** 2) + 1e-20))


@pytest.mark.parametrize(
    ("text", "meter", "tempo"), [("C|F|G7|C", "4/4", 120.0), ("C|Am|C", "7/8", 97.3), ("C", "1/4", 400.0)]
)
def test_the_file_lasts_as_long_as_the_song(text: str, meter: str, tempo: float) -> None:
    piece = song(text, meter, tempo=tempo)
    assert len(read(written(piece))) == round((piece.seconds + TAIL_SECONDS) * RATE)


@pytest.mark.parametrize("genre", GENRES)
def test_level_offset_ends_and_balance(genre: str) -> None:
    piece = song("Am|F|C G/B|Am|Dm7|E7|Am|Am", genre=genre)
    notes = arrange(piece)
    audio = render(piece, notes)
    assert np.abs(audio).max() == pytest.approx(0.9, abs=1e-6)
    assert -22 < level(audio[: -2 * RATE]) < -11
    assert np.abs(audio.mean(axis=0)).max() < 1e-3, "no offset"
    assert np.abs(audio[0]).max() < 1e-4
    assert np.abs(audio[-1]).max() < 1e-4
    assert level(audio[-RATE // 10 :]) < -60, "silence at the end"
    seconds = audio[: round(piece.seconds) * RATE].reshape(-1, RATE, 2)
    assert min(level(second) for second in seconds) > -30, "no hole"
    assert abs(level(audio[:, 0]) - level(audio[:, 1])) < 1.5, "both ears"
    assert float(np.asarray(np.corrcoef(audio.T))[0, 1]) < 0.995, "stereo"
    parts = {
        part: level(np.concatenate(list(synth._blocks(piece, [note for note in notes if note.part == part]))))
        for part in ("chords", "bass", "drums")
    }
    assert abs(parts["bass"] - parts["chords"]) < 5, parts
    assert -12 < parts["drums"] - parts["chords"] < 3, parts


@pytest.mark.parametrize("genre", GENRES)
def test_nothing_clicks(genre: str) -> None:
    """No step between samples is larger than the sound itself makes: what is left above 12 kHz without drums is tiny,
    while one click in it would be white. The song is longer than two blocks, so their seams are in it."""
    piece = song("Am|F|C G/B|Am" + "|N.C.|Dm", genre=genre, tempo=100)
    notes = [note for note in arrange(piece) if note.part != "drums"]
    assert piece.seconds * RATE > 2 * synth._BLOCK
    audio = render(piece, notes)
    assert np.abs(np.diff(audio, axis=0)).max() < 0.2
    spectrum = np.fft.rfft(audio, axis=0)
    spectrum[: round(12000 / RATE * len(audio))] = 0
    assert np.abs(np.fft.irfft(spectrum, len(audio), axis=0)).max() < 0.004


def test_tones_are_in_tune_and_fold_nothing_back() -> None:
    for program, pitch in ((4, 60), (4, 79), (25, 64), (27, 52), (32, 28), (33, 40)):
        frequency = 440 * 2 ** ((pitch - 69) / 12)
        tone = synth._INSTRUMENTS[program].tone(frequency, 0.9, RATE)
        spectrum = np.abs(np.fft.rfft(tone * np.hanning(RATE)))  # a bin is 1 Hz
        assert abs(int(spectrum[: round(1.5 * frequency)].argmax()) - frequency) < 1.5
        assert spectrum[20500:].max() < 1e-4 * spectrum.max()
    high = synth._ring(np.array([1000.0, 23000.0, 44000.0]), np.ones(3), np.zeros(3), RATE)
    assert np.allclose(high, np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE), atol=1e-3), "partials above are dropped"


def test_ring_is_the_sum_that_it_says() -> None:
    t = np.arange(5000) / RATE
    expected = 0.7 * np.exp(-3 * t) * np.sin(2 * np.pi * 321.5 * t) - 0.2 * np.exp(-9 * t) * np.sin(
        2 * np.pi * 5000 * t
    )
    made = synth._ring(np.array([321.5, 5000]), np.array([0.7, -0.2]), np.array([3.0, 9.0]), 5000)
    assert made.dtype == np.float32
    assert np.allclose(made, expected, atol=1e-5)


def test_a_note_starts_and_stops_where_it_says() -> None:
    piece = song("C|C|C|C", tempo=60)
    audio = render(piece, [Note(Fraction(4), Fraction(2), 60, 90, "chords")])
    assert np.abs(audio[: 4 * RATE]).max() < 1e-5
    assert np.abs(audio[4 * RATE : 4 * RATE + RATE // 20]).max() > 0.1
    after = [level(audio[round(s * RATE) : round((s + 0.2) * RATE)]) for s in (5.7, 6.2, 7.5)]
    assert after[0] > after[1] + 6
    assert after[2] < -80


def test_a_note_beyond_the_end_fades_out() -> None:
    audio = render(song("C"), [Note(Fraction(0), Fraction(100), 60, 90, "chords")])
    assert np.abs(audio[-RATE:]).max() > 0.03
    assert np.abs(audio[-RATE // 200 :]).max() < 1e-3


def test_velocity_is_louder_and_brighter() -> None:
    piece = song("C|C")
    bass = Note(Fraction(0), Fraction(4), 28, 100, "bass")
    soft, loud = (
        np.concatenate(list(synth._blocks(piece, [Note(Fraction(0), Fraction(4), 60, v, "chords")]))) for v in (40, 120)
    )
    assert level(loud) > level(soft) + 8

    def brightness(audio: NDArray[np.float32]) -> float:
        power = np.abs(np.fft.rfft(audio[:, 0])) ** 2
        return float((power * np.arange(len(power))).sum() / power.sum())

    assert brightness(loud) > 1.1 * brightness(soft)
    assert level(render(piece, [bass])) > -30


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    piece = song("Am|F|C", genre="folk")
    seam = Fraction(2**15 - 50, RATE // 2)  # a strum across the end of a block, with a drum under it
    strum = tuple(Note(seam, Fraction(1), pitch, 90, "chords") for pitch in (60, 64, 67))
    notes = (*arrange(piece), *strum, Note(seam, Fraction(1), 36, 90, "drums"))
    once = render(piece, notes)
    monkeypatch.setattr(synth, "_FFT_FRAMES", 2**16)
    monkeypatch.setattr(synth, "_BLOCK", 2**16 - synth._ROOM_FRAMES)
    monkeypatch.setattr(synth, "_CACHE_BYTES", 0)
    assert np.allclose(once, render(piece, notes), atol=1e-4)


def test_every_general_midi_drum_sounds() -> None:
    for pitch in range(35, 83):
        _, samples = synth._drum(pitch)
        assert 0.1 < np.abs(samples).max() < 3
        assert abs(float(samples[0])) < 0.01
        assert abs(float(samples[-1])) < 1e-3
        assert abs(float(samples.sum())) < 0.05


def test_written_equals_rendered_and_is_reproducible(tmp_path: Path) -> None:
    piece = song("Am|F|C|C", genre="jazz")
    notes = arrange(piece)
    for name in ("one.wav", "two.wav"):
        write_wav(piece, notes, tmp_path / name)
    data = (tmp_path / "one.wav").read_bytes()
    assert data == (tmp_path / "two.wav").read_bytes()
    assert np.abs(read(data) / 32767 - render(piece, notes)).max() < 1e-4
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.wav", "two.wav"]


def test_silence_and_limits(tmp_path: Path) -> None:
    assert not read(written(song("N.C.|N.C."), ())).any()
    assert not read(written(Song("", Key("C"), ()))).any()
    endless = Song("", Key("C"), (Section("", (Bar.of(Chord.parse("C")),) * 400),), tempo=20)
    with pytest.raises(ValueError, match="at most 3600"):
        write_wav(endless, (), tmp_path / "x.wav")
    assert list(tmp_path.iterdir()) == []
