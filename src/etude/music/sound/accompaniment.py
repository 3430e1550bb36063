"""What sounds around a melody: a tanpura's drone and the strokes of a tabla.

Mono, float32, at `RATE` frames a second, and always the same samples for the same arguments.
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from .synth import RATE, _burst, _membrane, _ring, _settle

_Audio = NDArray[np.float32]

_STRING_SECONDS = 5.0  # by then a string of the tanpura has died away
# Level, and decay in 1/s, of the five modes of a tabla's right drum, which its paste makes harmonic (Raman 1934).
_RIGHT = {
    "Na": ((0.12, 0.8, 0.6, 0.3, 0.2), (25.0, 10.0, 12.0, 18.0, 25.0)),
    "Tin": ((0.6, 0.5, 0.2, 0.1, 0.05), (9.0, 11.0, 16.0, 22.0, 30.0)),
    "Tun": ((0.9, 0.3, 0.12, 0.05, 0.02), (5.0, 9.0, 14.0, 20.0, 30.0)),
    "Ti": ((0.1, 0.25, 0.3, 0.3, 0.2), (60.0, 60.0, 70.0, 80.0, 90.0)),
}
_BOTH = {"Dha": "Na", "Dhin": "Tin"}  # strokes of both hands, and what the right one does
_SAME = {"Ta": "Na", "Ra": "Ti", "Ki": "Ti", "Ke": "Ka"}


def tanpura(sa: float, first: int, frames: int) -> _Audio:
    """One round of a tanpura's four strings as a loop of `frames`, of root-mean-square 1: what still rings at its end
    rings on at its beginning.

    The strings are `first` semitones above the low Sa, twice Sa (in Hz), and the low Sa, an octave below. Their broad,
    curved bridge grinds the string, so that upper harmonics come and go in waves, high ones first (Raman 1921).
    """
    low = sa / 2
    loop = np.zeros(frames)
    for string, pitch in enumerate((low * 2 ** (first / 12), sa * 2 ** (-1 / 1200), sa * 2 ** (1 / 1200), low)):
        sounding = _string(pitch)
        at = string * frames // 4
        for start in range(0, len(sounding), frames):  # round and round
            turn = np.pad(sounding[start : start + frames], (0, max(0, start + frames - len(sounding))))
            loop += np.roll(turn, at)
    normal: _Audio = (loop / np.sqrt(np.mean(loop**2))).astype(np.float32)
    return normal


@lru_cache(maxsize=4)
def _string(pitch: float) -> NDArray[np.float64]:
    """A string of the tanpura, plucked once."""
    frames = np.arange(round(_STRING_SECONDS * RATE))
    samples = np.zeros(len(frames))
    slow = frames[::256]  # loudness changes slowly: it is drawn straight between these
    wave = 500 + 2200 * np.exp(-slow / RATE / 0.7)  # Hz: where the bridge's buzz is, falling
    for harmonic in range(1, int(4500 / pitch) + 1):
        partial = harmonic * pitch
        buzz = np.exp(-(((partial - wave) / (0.45 * wave)) ** 2))
        loudness = (harmonic**-0.7 + 0.9 * buzz) * np.exp(-slow / RATE * (0.7 + 0.04 * harmonic))
        turns = np.mod(partial / RATE * frames, 1.0).astype(np.float32)
        tone = np.sin(np.float32(2 * np.pi) * turns + np.float32(0.4 * harmonic**2))  # spread: no sharp pulses
        samples += np.interp(frames, slow, loudness / (1 + (partial / 2500) ** 2)) * tone
    rise, fall = round(0.02 * RATE), RATE // 2
    samples[:rise] *= np.sin(np.linspace(0, np.pi / 2, rise)) ** 2  # a finger, not a pick
    samples[-fall:] *= np.linspace(1, 0, fall)
    return samples


@cache
def stroke(name: str, sa: float) -> _Audio:
    """A stroke of the tabla, peak about 1, its right drum tuned an octave above `sa` (in Hz).

    The names are the players': Na (or Ta), Tin, Tun and the dry Ti, Ra and Ki of the right hand, the deep Ge and
    the flat Ka (or Ke) of the left, and Dha and Dhin of both. Raises `ValueError` for another.
    """
    if name in _BOTH:
        right, left = stroke(_BOTH[name], sa), stroke("Ge", sa)
        both = np.zeros(max(len(right), len(left)), np.float32)
        both[: len(right)] += np.float32(0.75) * right
        both[: len(left)] += np.float32(0.75) * left
        return both
    name = _SAME.get(name, name)
    if name == "Ge":
        return _membrane(78, 38, 0.06, 0.12, 0.9)
    if name == "Ka":
        return _burst(0.12, (250, 1800), 0.015, 0.5, 21)
    if name not in _RIGHT:
        raise ValueError(f"no stroke {name!r}")
    levels, decays = _RIGHT[name]
    modes = 2 * sa * np.array([1.0, 2.0, 3.01, 4.02, 5.04])
    frames = round(min(0.7, 6.0 / min(decays)) * RATE)
    samples = _ring(modes, np.array(levels), np.array(decays), frames)
    tap = _burst(0.02, (1500, 7000), 0.003, 0.12, 22)
    samples[: len(tap)] += tap
    samples *= np.linspace(1, 0, frames, dtype=np.float32) ** 0.5
    return _settle(samples / np.float32(max(1.0, float(np.abs(samples).max()))), 0.001)
