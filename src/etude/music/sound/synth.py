"""A small synthesiser: an electric piano, a guitar, a bass and a light drum kit in a small room, as a WAV file.

Everything that has a pitch is a sum of decaying sine waves, which a matrix product makes at once (`_ring`); none above
half the sampling rate is made, so none folds back. A song is rendered in blocks: its length costs disk, not memory.
"""

from __future__ import annotations

import os
import tempfile
import wave
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.files import output
from etude.music.arrange import Note, Part, programs
from etude.music.theory import Song

RATE = 44100  # frames a second
TAIL_SECONDS = 2.0  # what follows the song's last bar: the last notes and the room ring out, and fade to silence
PEAK = 0.9  # the loudest sample of a song, where 1.0 is full scale
MAX_SECONDS = 3600.0

_Audio = NDArray[np.float32]
_Partials = NDArray[np.floating[Any]]  # a number for each sine wave of a tone, [k]
_ROOM_FRAMES = 2**15
_FFT_FRAMES = 2**17
_BLOCK = _FFT_FRAMES - _ROOM_FRAMES  # a block and its reverberation fill one transform
_MAX_TONE_SECONDS = 8.0  # by then every instrument here is silent
_CACHE_BYTES = 24 * 2**20
_SPOOL_BYTES = 48 * 2**20  # longer songs wait for their normalisation on the disk
_FADE_SECONDS = 0.5

# Level of each part, chosen by measuring the mix of songs of every genre (loudness of bass, chords and drums alike).
_LEVELS: dict[Part, float] = {"chords": 0.19, "bass": 0.26, "drums": 0.42}
_SENDS: dict[Part, float] = {"chords": 0.2, "bass": 0.03, "drums": 0.13}  # into the room


def render(song: Song, notes: Iterable[Note]) -> _Audio:
    """The song as samples, float32 of shape [frames, 2], peak 0.9 (all zeros where no note sounds).

    Frames: the song's length plus `TAIL_SECONDS`, times `RATE`. Raises `ValueError` over an hour.
    """
    audio = np.concatenate(list(_blocks(song, notes)))  # [frames, 2]
    peak = float(np.abs(audio).max())
    return audio * np.float32(PEAK / peak) if peak > 0 else audio


def write_wav(song: Song, notes: Iterable[Note], target: str | os.PathLike[str] | BinaryIO) -> None:
    """Write what `render` gives as 16-bit stereo PCM at 44.1 kHz; the same arguments give the same bytes.

    A path is written whole or not at all. Memory does not grow with the song, which may last an hour (`ValueError`
    otherwise); `OSError` where the file cannot be written.
    """
    frames, peak = 0, 0.0
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool, output(target) as opened:
        for block in _blocks(song, notes):  # first pass: how loud does it get?
            spool.write(block.tobytes())
            frames += len(block)
            peak = max(peak, float(np.abs(block).max()))
        spool.seek(0)
        scale = np.float32(32767 * PEAK / peak if peak > 0 else 0.0)
        with wave.open(opened, "wb") as out:
            out.setnchannels(2)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.setnframes(frames)
            while data := spool.read(_BLOCK * 8):
                samples = np.frombuffer(data, np.float32) * scale
                out.writeframesraw(np.rint(samples).astype("<i2").tobytes())


# ---------------------------------------------------------------------------------------------- mixing


class _Sounding(NamedTuple):
    """A note's samples, from frame `start` of the song on, and its gains; `right` is None in the mono bass."""

    start: int
    samples: _Audio
    left: float
    right: float
    part: Part


def _blocks(song: Song, notes: Iterable[Note]) -> Iterator[_Audio]:
    """The mix in blocks of float32 [frames, 2], before normalisation."""
    if song.seconds > MAX_SECONDS:
        raise EtudeError(f"the song lasts {song.seconds:.0f} seconds; sound is made for at most {MAX_SECONDS:.0f}")
    total = round((song.seconds + TAIL_SECONDS) * RATE)
    fade = round(_FADE_SECONDS * RATE)
    played = _played(song, notes)
    upcoming = next(played, None)
    ringing: list[_Sounding] = []
    room = np.fft.rfft(_room(), _FFT_FRAMES)  # [2, bins]
    echo = np.zeros((2, _ROOM_FRAMES), np.float32)
    for begin in range(0, total, _BLOCK):
        while upcoming is not None and upcoming.start < begin + _BLOCK + RATE:  # early: a strum is out of order
            ringing.append(upcoming)
            upcoming = next(played, None)
        dry = np.zeros((2, _BLOCK), np.float32)
        send = np.zeros(_BLOCK, np.float32)
        for part in _LEVELS:
            bus = np.zeros((2, _BLOCK), np.float32)
            for note in ringing:
                if note.part == part:
                    _add(note, bus, begin)
            dry += bus
            send += (_SENDS[part] / 2) * (bus[0] + bus[1])
        ringing = [note for note in ringing if note.start + len(note.samples) > begin + _BLOCK]
        wet = np.fft.irfft(room * np.fft.rfft(send, _FFT_FRAMES), _FFT_FRAMES).astype(np.float32)  # [2, _FFT_FRAMES]
        wet[:, :_ROOM_FRAMES] += echo
        echo = wet[:, _BLOCK:].copy()
        mix = np.tanh(dry + wet[:, :_BLOCK]).T[: total - begin]  # [frames, 2]
        left = np.float32(total - 1) - np.arange(begin, begin + len(mix), dtype=np.float32)  # frames before the end
        yield mix * np.minimum(left / fade, 1.0)[:, None] if total - begin - len(mix) < fade else mix


def _add(note: _Sounding, bus: _Audio, begin: int) -> None:
    """Add the stretch of a note that falls into the block from frame `begin` to bus [2, frames]."""
    first, last = max(note.start, begin), min(note.start + len(note.samples), begin + bus.shape[1])
    if first < last:
        samples = note.samples[first - note.start : last - note.start]
        bus[0, first - begin : last - begin] += samples * np.float32(note.left)
        bus[1, first - begin : last - begin] += samples * np.float32(note.right)


def _played(song: Song, notes: Iterable[Note]) -> Iterator[_Sounding]:
    """Each note as samples, in order of time. Tones are made once for each pitch, strength and rough length."""
    chords_program, bass_program = programs(song)
    instruments = {"chords": _INSTRUMENTS[chords_program], "bass": _INSTRUMENTS[bass_program]}
    frames_per_quarter = RATE * 60 / song.tempo
    tones: dict[tuple[int, int, int, Part], _Audio] = {}
    kept, strings, before = 0, 0, -1
    for note in sorted(notes, key=lambda note: (note.start, note.part, note.pitch)):
        start = round(float(note.start) * frames_per_quarter)
        gain = _LEVELS[note.part] * (note.velocity / 127) ** 1.5
        if note.part == "drums":
            pan, samples = _drum(note.pitch)
        else:
            instrument = instruments[note.part]
            release = round(instrument.release * RATE)
            sounding = round(float(note.length) * frames_per_quarter)
            frames = min(sounding + release, round(_MAX_TONE_SECONDS * RATE))
            level = note.velocity // 16
            key = (note.pitch, level, (frames - 1).bit_length(), note.part)
            if key not in tones:
                if kept > _CACHE_BYTES:
                    tones, kept = {}, 0
                size = min(2 ** key[2], round(_MAX_TONE_SECONDS * RATE))
                tones[key] = instrument.tone(440.0 * 2 ** ((note.pitch - 69) / 12), level / 7, size)
                kept += tones[key].nbytes
            samples = tones[key][:frames] * np.float32(instrument.level)
            fall = min(release, frames)
            samples[-fall:] *= np.linspace(1, 0, fall, dtype=np.float32) ** 2
            pan = max(-0.4, min(0.4, (note.pitch - 64) / 36)) if note.part == "chords" else 0.0
            strings = strings + 1 if note.part == "chords" and start == before else 0
            before = start if note.part == "chords" else before
            start += round(strings * instrument.strum * RATE)
        angle = (pan + 1) * np.pi / 4  # equal power
        gain *= float(np.sqrt(2))
        yield _Sounding(start, samples, gain * float(np.cos(angle)), gain * float(np.sin(angle)), note.part)


@cache
def _room() -> _Audio:
    """Impulse response of a small room, left and right, [2, _ROOM_FRAMES]: filtered noise that decays by 60 dB in 0.7 s
    (Moorer, "About This Reverberation Business", 1979), after 12 ms, with as much energy as a single sample of 1."""
    seconds = np.arange(_ROOM_FRAMES) / RATE
    decay = np.exp(-6.9 * (seconds - 0.012) / 0.7) * (seconds > 0.012) * np.linspace(1, 0, _ROOM_FRAMES) ** 0.5
    noise = np.stack([_noise(_ROOM_FRAMES, 250, 5000, seed) for seed in (1, 2)])
    response = noise * decay
    normal: _Audio = (response / np.sqrt((response**2).sum(axis=1, keepdims=True))).astype(np.float32)
    return normal


# ---------------------------------------------------------------------------------------------- instruments


class _Instrument(NamedTuple):
    tone: Callable[[float, float, int], _Audio]
    """(frequency in Hz, strength 0 to 1, frames) -> samples"""
    level: float
    release: float
    """seconds from the end of the note to silence"""
    strum: float = 0.0
    """seconds between the strings of a chord"""


def _ring(frequencies: _Partials, amplitudes: _Partials, decays: _Partials, frames: int) -> _Audio:
    """The sum over k of a_k e^(-d_k t) sin(2 pi f_k t), [frames]; frequencies in Hz, decays in 1/s, all of shape [k].

    With z_k = e^((-d_k + 2 pi i f_k) / RATE), sample 256 r + c is the imaginary part of
    sum_k a_k z_k^(256 r) z_k^c: a matrix product. Partials above 0.45 of the sampling rate are left out.
    """
    audible = frequencies < 0.45 * RATE
    rate = (-decays[audible] + 2j * np.pi * frequencies[audible]) / RATE  # [k]
    rows = 8 * -(-frames // 2048)
    coarse = amplitudes[audible] * np.exp(np.outer(256 * np.arange(rows), rate))  # [rows, k]
    fine = np.exp(np.outer(rate, np.arange(256)))  # [k, 256]
    left = np.hstack([coarse.real, coarse.imag]).astype(np.float32)  # [rows, 2k]
    right = np.vstack([fine.imag, fine.real]).astype(np.float32)  # [2k, 256]
    # Eight rows at a time: a BLAS takes several cores for larger products, and more time for them than it saves.
    samples: _Audio = (left.reshape(-1, 8, left.shape[1]) @ right).ravel()[:frames]  # [rows / 8, 8, 256] -> [frames]
    return samples


def _settle(samples: _Audio, attack: float) -> _Audio:
    """Ramp the first `attack` seconds, and cancel the sum of the samples by a slow swell: no click and no offset."""
    rise = min(len(samples), max(1, round(attack * RATE)))
    samples[:rise] *= np.linspace(0, 1, rise, dtype=np.float32)
    swell = np.sin(np.linspace(0, np.pi, min(len(samples), RATE // 10), dtype=np.float32)) ** 2
    samples[: len(swell)] -= swell * (samples.sum(dtype=np.float64) / max(1e-9, float(swell.sum())))
    return samples


def _electric_piano(frequency: float, strength: float, frames: int) -> _Audio:
    """A tine and its bell. The partials are those of gentle frequency modulation, whose depth grows with the strength
    and dies away before the tone does (Chowning, 1973); the fundamental is a pair, slightly apart, for warmth."""
    ratio = np.array([1.0, 1.0013, 2.0, 3.0, 4.0, 5.0, 6.0, 7.1, 14.2])
    depth = np.array([0.0, 0.0, 1.0, 1.3, 1.7, 2.2, 2.6, 1.2, 1.4])
    loud = np.array([0.8, 0.2, 0.42, 0.22, 0.13, 0.08, 0.05, 0.05, 0.035])
    fade = (0.55 + frequency / 700) * np.array([1.0, 1.0, 1.7, 2.4, 3.5, 4.5, 5.5, 12.0, 18.0])
    return _settle(_ring(frequency * ratio, loud * (0.25 + 0.85 * strength) ** depth, fade, frames), 0.003)


def _guitar(frequency: float, strength: float, frames: int) -> _Audio:
    """A plucked string as its modes: loudness from where it is plucked (a sixth of its length), decay from the loop
    of Karplus and Strong (1983), which loses ln(0.996 cos(pi f / RATE)) a period; slightly stiff, as steel is."""
    mode = np.arange(1, min(48, int(12000 / frequency)) + 1)
    partials = mode * frequency * np.sqrt(1 + 6e-5 * mode**2)
    brightness = np.exp(-partials / (1500 + 3500 * strength))
    fade = -frequency * np.log(0.996 * np.cos(np.pi * np.minimum(partials, 0.45 * RATE) / RATE))
    return _settle(_ring(partials, 1.3 * np.sin(np.pi * mode / 6.3) / mode**0.8 * brightness, fade, frames), 0.0015)


def _bass(sustain: float) -> Callable[[float, float, int], _Audio]:
    def tone(frequency: float, strength: float, frames: int) -> _Audio:
        mode = np.arange(1, 15)
        brightness = np.exp(-(mode - 1) * frequency / (150 + 350 * strength))
        fade = (1.0 + 0.5 * mode) / sustain
        return _settle(_ring(mode * frequency, brightness / mode**0.7, fade, frames), 0.005)

    return tone


_INSTRUMENTS = {
    4: _Instrument(_electric_piano, 1.0, 0.15),
    25: _Instrument(_guitar, 1.5, 0.3, 0.011),
    27: _Instrument(_guitar, 0.95, 0.09, 0.005),
    32: _Instrument(_bass(1.0), 1.0, 0.07),
    33: _Instrument(_bass(1.6), 1.0, 0.05),
}


@cache
def _drum(pitch: int) -> tuple[float, _Audio]:
    """Pan (-1 left to 1 right) and samples of a General MIDI drum; one that this kit lacks sounds as a side stick."""
    if pitch in (35, 36):
        return 0.0, _membrane(46, 120, 0.025, 0.13, 1.5)
    if pitch in (38, 40):
        rattle = _burst(0.36, (1200, 9000), 0.07, 0.6, 3)
        return 0.05, rattle + _membrane(175, 60, 0.02, 0.06, 0.55)
    if pitch in (41, 43, 45, 47, 48, 50):
        return (pitch - 45) / 16, _membrane(80 * 2 ** ((pitch - 41) / 12), 50, 0.05, 0.16, 0.9)
    if pitch in (42, 44, 46):
        return 0.3, _burst(0.6, (6500, 15000), {42: 0.03, 44: 0.045, 46: 0.2}[pitch], 0.2, 4)
    if pitch in (49, 57):
        return -0.3, _burst(1.9, (3500, 14000), 0.4, 0.22, 5)
    if pitch in (51, 53, 59):
        ping = np.geomspace(2900, 9800, 23) * (1 + 0.02 * np.sin(np.arange(23.0) ** 2))
        bell = _ring(ping, np.full(23, 0.03), np.linspace(3, 9, 23), RATE)
        bell += _burst(1.0, (4000, 14000), 0.2, 0.07, 6)
        return -0.25, _settle(bell * np.linspace(1, 0, RATE, dtype=np.float32), 0.001)
    if pitch in (69, 70, 82):
        return 0.35, _settle(_burst(0.2, (5000, 12000), 0.03, 0.3, 7), 0.02)
    stick = _ring(np.array([430.0, 1660, 2480]), np.array([0.3, 0.5, 0.3]), np.array([60.0, 90, 120]), RATE // 5)
    return 0.15, _settle(stick, 0.0005)


def _membrane(low: float, bend: float, bend_seconds: float, decay_seconds: float, level: float) -> _Audio:
    """A sine that falls from low + bend to low Hz as it dies away."""
    seconds = np.arange(round(6 * decay_seconds * RATE)) / RATE
    turns = low * seconds + bend * bend_seconds * (1 - np.exp(-seconds / bend_seconds))
    envelope = level * np.exp(-seconds / decay_seconds) * np.linspace(1, 0, len(seconds)) ** 0.5
    return _settle((envelope * np.sin(2 * np.pi * turns)).astype(np.float32), 0.002)


def _burst(seconds: float, band: tuple[float, float], decay_seconds: float, level: float, seed: int) -> _Audio:
    """Noise between two frequencies (Hz) that dies away."""
    frames = round(seconds * RATE)
    envelope = np.exp(-np.arange(frames) / RATE / decay_seconds) * np.linspace(1, 0, frames)
    return _settle((level * envelope * _noise(frames, *band, seed)).astype(np.float32), 0.001)


def _noise(frames: int, low: float, high: float, seed: int) -> NDArray[np.float64]:
    """Noise of variance 1, rolled off below `low` and above `high` Hz by 12 dB an octave; always the same."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(frames))
    frequency = np.fft.rfftfreq(frames, 1 / RATE)
    shape = 1 / (1 + (low / np.maximum(frequency, 1)) ** 4) ** 0.5 / (1 + (frequency / high) ** 4) ** 0.5
    noise = np.fft.irfft(spectrum * shape, frames)
    normal: NDArray[np.float64] = noise / noise.std()
    return normal
