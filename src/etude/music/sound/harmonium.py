"""A harmonium: free reeds, or a recording of yours, at any pitch; and the pitch of a recording.

What is made is mono, float32, at `RATE` frames a second. A reed is a sum of harmonics below half the sampling rate, so
nothing folds back; a recording is shifted by reading it faster or slower through a low-pass, which cuts what would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError

from .synth import RATE, _noise

_Audio = NDArray[np.float32]

# Two tongues for each note, a hair apart, as no two are tuned alike: cents from the note, and loudness. Their mean,
# weighted by loudness, is the note itself. The third is the octave reed of the second bank.
_TONGUES = ((1, 0.35, 0.65), (1, -0.65, 0.35), (2, 0.4, 0.3))
# The wooden box and its grille: centre and width in Hz, gain. Chosen by looking at spectra of the sum.
_BODY = ((480.0, 220.0, 0.7), (1250.0, 420.0, 0.6), (2700.0, 800.0, 0.5))
_SPAN = 40  # zero crossings of the shifting filter on each side
_STEPS = 2048  # positions between two samples for which its table holds a value


def reed(frequency: float, frames: int) -> _Audio:
    """A harmonium's note of `frequency` Hz, of root-mean-square 1, from the moment that the key goes down.

    A free reed cuts the air into pulses, so harmonics fall slowly, by about 5 decibels an octave, then faster above
    4 kHz, where the tongue is too slow to close sharply (Fletcher and Rossing, The Physics of Musical Instruments,
    chapter 13). They start one after another, lowest first; a little air hisses as the reed begins to speak.
    """
    seconds = np.arange(frames) / RATE
    samples = np.zeros(frames)
    for octave, cents, level in _TONGUES:
        pitch = octave * frequency * 2 ** (cents / 1200)
        for harmonic in range(1, int(14_000 / pitch) + 1):
            partial = harmonic * pitch
            loudness = level * harmonic**-0.8 / (1 + (partial / 4200) ** 4) ** 0.5
            loudness *= 1 + sum(gain * np.exp(-(((partial - at) / width) ** 2)) for at, width, gain in _BODY)
            onset = 0.004 + 0.010 * min(1.0, partial / 4000)
            # Phases spread as the square of the harmonic (Schroeder 1970): the sum is not one sharp spike a period.
            turn = 2 * np.pi * partial * seconds + 0.35 * np.pi * harmonic**2 / 8
            samples += loudness * (1 - np.exp(-seconds / onset)) * np.sin(turn)
    samples /= max(1e-9, float(np.sqrt(np.mean(samples**2))))
    air = 0.004 + 0.05 * np.exp(-seconds / 0.012)
    samples += air * _noise(frames, 700, 6000, 11)
    normal: _Audio = (samples / np.sqrt(np.mean(samples**2))).astype(np.float32)
    return normal


def shifted(recording: _Audio, ratio: float, frames: int) -> _Audio:
    """The first `frames` of a recording [n] read `ratio` times as fast, of root-mean-square 1.

    Each sample is a sum of the recording's neighbours weighted by a Kaiser-windowed sinc (J. O. Smith, Digital Audio
    Resampling Home Page, 2002), which is widened where the recording is read faster, so that nothing folds back.
    Raises `EtudeError` where the recording is too short for that.
    """
    needed = int(np.ceil((frames - 1) * ratio)) + 1
    if len(recording) < needed:
        raise EtudeError(
            f"the sample is too short by {1 - len(recording) / needed:.0%} for its highest note; give a longer sample, "
            "or a faster tempo"
        )
    width = max(1.0, ratio)
    reach = int(np.ceil(_SPAN * width))
    grid = np.arange(_SPAN * _STEPS + 2) / _STEPS
    window = np.i0(9.0 * np.sqrt(np.clip(1 - (grid / _SPAN) ** 2, 0, None))) / np.i0(9.0)
    kernel = 0.95 * np.sinc(0.95 * grid) * window / width
    padded = np.pad(recording.astype(np.float64), reach + 1)
    taps = np.arange(-reach, reach + 1)
    samples = np.zeros(frames)
    for start in range(0, frames, 4096):
        position = np.arange(start, min(frames, start + 4096)) * ratio
        whole = np.floor(position).astype(np.int64)
        distance = np.abs(position[:, None] - whole[:, None] - taps) / width  # [4096, taps]
        place = np.minimum((distance * _STEPS).astype(np.int64), _SPAN * _STEPS)
        between = np.clip(distance * _STEPS - place, 0, 1)
        weights = kernel[place] + between * (kernel[place + 1] - kernel[place])
        weights[distance >= _SPAN] = 0
        samples[start : start + len(position)] = (padded[whole[:, None] + taps + reach + 1] * weights).sum(axis=1)
    level = float(np.sqrt(np.mean(samples**2)))
    if level <= 1e-6:
        raise EtudeError("the sample is silent; give one note of a harmonium")
    normal: _Audio = (samples / level).astype(np.float32)
    return normal


def trimmed(recording: _Audio) -> _Audio:
    """A recording [n] without the silence before its note and after it. Raises `EtudeError` where that is all."""
    loudness = np.abs(recording)
    peak = float(loudness.max(initial=0.0))
    if peak < 1e-4:
        raise EtudeError("the sample is silent; give one note of a harmonium")
    heard = np.flatnonzero(loudness > 0.03 * peak)
    return recording[heard[0] : heard[-1] + 1]


def pitch_of(recording: _Audio, rate: float = RATE, low: float = 50.0, high: float = 1200.0) -> float:
    """The pitch in Hz of one steady note [n]. Raises `EtudeError` where it has none.

    The lag at which the middle of the note is most like itself (normalised autocorrelation; the shortest lag that is
    nearly the best, so no octave too low), then the same over as many periods as fit, for a fraction of a cent.
    """
    size = min(len(recording), int(rate))
    first = (len(recording) - size) // 2
    part = recording[first : first + size].astype(np.float64)
    part -= part.mean() if size else 0.0
    shortest, longest = int(rate / high), int(rate / low) + 1
    if size < 4 * longest or not np.any(part):
        raise EtudeError("the sample is too short to find its pitch; give at least a tenth of a second")
    spectrum = np.fft.rfft(part, 1 << (2 * size - 1).bit_length())
    correlation = np.fft.irfft(spectrum * spectrum.conj())[:size]
    energy = np.cumsum(part**2)
    total = energy[-1]
    lags = np.arange(size)
    # What the overlapping parts would give if they were the same: the mean of both energies.
    ahead = energy[::-1][lags]  # energy of part[: size - lag]
    behind = total - np.concatenate([[0.0], energy])[lags]
    likeness = 2 * correlation / np.maximum(ahead + behind, 1e-12 * total)
    window = likeness[shortest:longest]
    peaks = [
        lag
        for lag in range(shortest + 1, longest - 1)
        if likeness[lag] >= likeness[lag - 1] and likeness[lag] > likeness[lag + 1]
    ]
    if not peaks or window.max() < 0.6:
        raise EtudeError("the sample has no clear pitch; say it by --sample-pitch, or give one steady note")
    best = max(likeness[lag] for lag in peaks)
    lag = next(lag for lag in peaks if likeness[lag] > 0.93 * best)
    period = _summit(likeness, lag)
    multiple = 1
    while period * multiple * 2 < size // 2:
        multiple *= 2
        near = round(period * multiple)
        reach = max(1, int(0.2 * period))
        near += int(np.argmax(likeness[near - reach : near + reach + 1])) - reach
        period = _summit(likeness, near) / multiple
    return float(rate / period)


def _summit(values: NDArray[np.float64], at: int) -> float:
    """Where the parabola through a peak and its two neighbours is highest."""
    left, centre, right = (float(value) for value in values[at - 1 : at + 2])
    bend = left - 2 * centre + right
    return at + (0.5 * (left - right) / bend if bend < 0 else 0.0)
