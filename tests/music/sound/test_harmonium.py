"""A reed has the pitch it is asked for and nothing above hearing; a recording is shifted without folding back."""

from __future__ import annotations

import numpy as np
import pytest

from etude.errors import EtudeError
from etude.music.sound import RATE
from etude.music.sound.harmonium import pitch_of, reed, shifted, trimmed


def cents(a: float, b: float) -> float:
    return float(abs(1200 * np.log2(a / b)))


@pytest.mark.parametrize("pitch", [70.0, 147.2, 370.9, 900.0])
def test_a_reed_is_in_tune_bright_and_without_offset(pitch: float) -> None:
    note = reed(pitch, RATE // 2)
    assert cents(pitch_of(note), pitch) < 1
    assert np.sqrt(np.mean(note.astype(float) ** 2)) == pytest.approx(1, abs=1e-3)
    assert np.abs(note).max() < 4, "its harmonics do not pile up"
    assert abs(float(note.mean())) < 5e-3
    power = np.abs(np.fft.rfft(note * np.hanning(len(note)))) ** 2
    hertz = np.fft.rfftfreq(len(note), 1 / RATE)
    assert 1e-3 < power[(hertz > 2000) & (hertz < 8000)].sum() / power.sum() < 0.5
    assert power[hertz > 16_000].sum() / power.sum() < 1e-5
    assert np.array_equal(note, reed(pitch, RATE // 2))


def test_it_speaks_within_fifty_milliseconds() -> None:
    note = reed(147.2, RATE // 2)
    level = np.sqrt((note[: RATE // 2].reshape(-1, RATE // 50) ** 2).mean(axis=1))
    assert level[0] < level[3] < 1.2
    assert level[3:].min() > 0.8


@pytest.mark.parametrize("ratio", [0.37, 0.944, 1.0, 2.5198])
def test_a_shifted_tone_is_pure(ratio: float) -> None:
    seconds = np.arange(2 * RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * seconds).astype(np.float32)
    moved = shifted(tone, ratio, RATE // 2)[200:-200]  # but for its ends, where the tone begins
    wanted = np.arange(len(moved)) / RATE
    basis = np.stack([np.sin(2 * np.pi * 440 * ratio * wanted), np.cos(2 * np.pi * 440 * ratio * wanted)], axis=1)
    fit = np.linalg.lstsq(basis, moved.astype(np.float64), rcond=None)[0]
    assert np.sqrt(np.mean((moved - basis @ fit) ** 2)) < 1e-3, "60 decibels below the tone"


def test_what_would_fold_back_is_cut() -> None:
    seconds = np.arange(2 * RATE) / RATE
    both = (np.sin(2 * np.pi * 1000 * seconds) + np.sin(2 * np.pi * 15_000 * seconds)).astype(np.float32)
    moved = shifted(both, 2.0, RATE // 2)[500:-500]
    power = np.abs(np.fft.rfft(moved * np.hanning(len(moved)))) ** 2
    hertz = np.fft.rfftfreq(len(moved), 1 / RATE)
    assert power[(hertz < 1900) | (hertz > 2100)].sum() / power.sum() < 1e-5


def test_pitches_are_found_in_noise_and_refused_in_nothing_else() -> None:
    rng = np.random.default_rng(3)
    note = reed(233.7, RATE)
    assert cents(pitch_of(note + 0.1 * rng.standard_normal(RATE).astype(np.float32)), 233.7) < 3
    assert cents(pitch_of(note[::2], RATE / 2), 233.7) < 1
    with pytest.raises(EtudeError, match="no clear pitch"):
        pitch_of(rng.standard_normal(RATE).astype(np.float32))
    with pytest.raises(EtudeError, match="too short"):
        pitch_of(note[:500])
    with pytest.raises(EtudeError, match="silent"):
        trimmed(np.zeros(RATE, np.float32))
    with pytest.raises(EtudeError, match="too short by 50%"):
        shifted(note, 2.0, RATE)


def test_silence_around_a_note_is_cut() -> None:
    note = np.concatenate([np.zeros(1000, np.float32), reed(200.0, 5000), np.zeros(1000, np.float32)])
    assert 4500 < len(trimmed(note)) <= 5000
