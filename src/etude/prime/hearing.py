"""From a song's sound, or its MIDI file, to the notes in it, without being told anything about it.

    blocks -> loudness -> the beat -> a spectrum for each slot -> at most ten pitches -> a note for each slot

Notes come out numbered from 0, lowest first; which digit each of them is, `recovery` finds out. A file is read twice,
in blocks, and what is kept of each note is a spectrum of 312 numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import mido
import numpy as np
from numpy.typing import NDArray

from etude.music.sound.audio import Sound, open_sound

from .notes import MAX_TEMPO, MIN_TEMPO
from .number import MAX_DIGITS, PrimeError
from .song import MAX_SONG_SECONDS, Tag, parse_tag

MIDI = (".mid", ".midi")
MAX_MIDI_BYTES = 2 << 20

_HOPS = 400  # loudness is taken so many times a second
_LOWEST, _BINS, _PER_OCTAVE = 55.0, 312, 48  # the axis of a spectrum: Hz, bins, bins an octave; up to 5 kHz
_CENTS = 1200 / _PER_OCTAVE
_SILENT = 0.35  # of the usual loudness of a slot: below it is a rest
_CLUSTER_CENTS = 62.0  # two notes are never closer
_BEAT_SECONDS = 900  # from which the beat is found; it is followed to the end
_NEARLY = 0.72  # what a beat explains of what the best one does: half of it misses a half

_Floats = NDArray[np.float64]
_Singles = NDArray[np.float32]
_Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Heard:
    """The notes of a song, in order, rests left out."""

    notes: tuple[int, ...]
    """a number for each note: 0 is the lowest pitch of the song"""
    pitches: tuple[float, ...]
    """of the notes 0, 1, 2, ..., in Hz"""
    seconds_per_note: float
    rests: int
    second: tuple[int, ...]
    """for each note, what else it may be"""
    margins: NDArray[np.float32]
    """for each note, how much likelier it is than the second, from 0 (as likely)"""
    tag: Tag | None = field(default=None)
    """what the file says of itself"""


def hear(path: Path, tempo: float | None = None) -> Heard:
    """The notes of a song in a WAV, FLAC, Ogg, MP3 or MIDI file. `tempo` (notes a minute) is found where not given.

    Raises `EtudeError` for a file that is no song of at most ten notes, all equally long.
    """
    if path.suffix.lower() in MIDI:
        return _hear_midi(path)
    sound = open_sound(path)
    if sound.seconds > MAX_SONG_SECONDS + 60:
        raise PrimeError(f"{path}: {sound.seconds:,.0f} seconds; at most {MAX_SONG_SECONDS:,.0f} are listened to")
    loudness = _loudness(sound)
    beat = _beat(path, loudness, tempo)
    spectra, levels = _slots(sound, beat)
    keep = _sounding(path, levels)
    rests = int(np.ptp(np.flatnonzero(keep))) + 1 - int(keep.sum())
    notes, second, margins, pitches = _name(path, spectra[keep])
    return Heard(
        tuple(notes.tolist()),
        tuple(pitches),
        beat.seconds,
        rests,
        tuple(second.tolist()),
        margins,
        parse_tag(sound.comment),
    )


# ---------------------------------------------------------------------------------------------- the beat


@dataclass(frozen=True)
class _Beat:
    """When the slots begin."""

    starts: _Floats
    """seconds, [slots + 1]: each slot ends where the next begins"""
    seconds: float
    """how long a slot is, on average"""


def _loudness(sound: Sound) -> _Floats:
    """The energy of each 400th of a second, [hops]."""
    hop = sound.rate / _HOPS
    limit = int((MAX_SONG_SECONDS + 60) * _HOPS)
    energies: list[_Floats] = []
    total, left = 0, np.zeros(0, np.float32)
    hops = 0
    for block in sound.blocks():
        samples = np.concatenate([left, block])
        # Hops begin at whole frames, the nearest to where they should: rates are no multiples of 400.
        count = int((total + len(samples)) / hop) - hops
        if count > 1:
            edges = np.round(np.arange(hops, hops + count + 1) * hop).astype(np.int64) - total
            energies.append(np.add.reduceat(samples[: edges[-1]].astype(np.float64) ** 2, edges[:-1]))
            left = samples[edges[-1] :]
            total += int(edges[-1])
            hops += count
        else:
            left = samples
        if hops > limit:
            raise PrimeError(
                f"{sound.path}: longer than {MAX_SONG_SECONDS:,.0f} seconds, which are listened to at most"
            )
    energy = np.concatenate(energies) if energies else np.zeros(0)
    if len(energy) < _HOPS // 2:
        raise PrimeError(f"{sound.path}: shorter than half a second; too short to be a song")
    if float(energy.max()) < 1e-7 * hop:
        raise PrimeError(f"{sound.path}: silence; there is no song in it")
    return energy


def _rises(energy: _Floats) -> _Floats:
    """How much louder it gets at each hop, in nepers: much where a note begins, since each ends in a short silence.

    No rise counts for more than one neper, or the few after rests would set the beat.
    """
    smooth = np.convolve(energy, np.hanning(7)[1:-1] / 3, "same")
    usual = float(np.median(smooth[smooth > 0.01 * smooth.max()]))
    level = np.log(smooth + 0.003 * usual)
    rises = np.zeros(len(level))
    rises[2:-2] = level[4:] - level[:-4]
    return np.clip(rises, 0.0, 1.0)


def _beat(path: Path, energy: _Floats, tempo: float | None) -> _Beat:
    """The beat that best explains when it gets louder.

    A train of onsets every T seconds has lines at 1/T, 2/T, 3/T ... in its spectrum, and nothing between. Half of it
    misses every other line, so of the beats that explain nearly as much as the best the fastest is the one.
    """
    everything = _rises(energy)
    rises = everything[: _BEAT_SECONDS * _HOPS]
    size = 1 << (2 * len(rises) - 1).bit_length()
    lines = np.abs(np.fft.rfft(rises - rises.mean(), size)) ** 2
    step = _HOPS / size  # Hz a bin
    low, high = MIN_TEMPO / 60, MAX_TEMPO / 60
    if tempo is not None:
        low, high = 0.97 * tempo / 60, 1.03 * tempo / 60
    low = max(low, 4 * _HOPS / len(rises))  # at least four notes
    if low >= high:
        raise PrimeError(f"{path}: too short to be a song")
    width = max(1, round(0.5 / (len(rises) / _HOPS) / step))  # half the width of a line
    running = np.concatenate([[0.0], np.cumsum(lines)])  # its differences are the energy of a line's neighbourhood
    candidates = np.arange(low, high, 0.2 / (len(rises) / _HOPS) / 4)
    scores = np.zeros(len(candidates))
    for harmonic in range(1, int(40.0 / low) + 1):
        within = candidates * harmonic < 40.0
        centre = np.round(candidates[within] * harmonic / step).astype(np.int64)
        first, last = np.maximum(centre - width, 0), np.minimum(centre + width + 1, len(lines))
        scores[within] += running[last] - running[first] - (last - first) * np.median(lines)
    top = float(scores.max())
    total = float(lines[int(low / step) : int(40.0 / step)].sum())
    if top <= 0.1 * total:
        raise PrimeError(f"{path}: no steady beat is heard, as a song of equally long notes has; say it by --tempo")
    fastest = candidates[scores > _NEARLY * top].max()
    near = candidates > 0.98 * fastest
    return _follow(everything, float(candidates[near][np.argmax(scores[near])]))


def _follow(rises: _Floats, rate: float) -> _Beat:
    """The slots of a beat of about `rate` notes a second, followed as it drifts."""
    for _ in range(3):  # the phase of the whole train, in parts of eight notes and up, tells how wrong the rate is
        period = _HOPS / rate
        part = max(1, int(len(rises) / period / 48)) * period
        count = max(2, int(len(rises) / part))
        edges = np.linspace(0, len(rises), count + 1).astype(np.int64)
        turn = rises * np.exp(-2j * np.pi * rate * np.arange(len(rises)) / _HOPS)
        phasors = np.add.reduceat(turn, edges[:-1])
        middle = (edges[:-1] + edges[1:]) / 2 / _HOPS
        phase = np.unwrap(np.angle(phasors))
        weight = np.abs(phasors) / max(1e-12, float(np.abs(phasors).max()))
        slope = float(np.polyfit(middle, phase, 1, w=weight)[0])
        rate += slope / (2 * np.pi)
    # Fold everything on one period: the onset is where the folded rises are highest.
    turn = rises * np.exp(-2j * np.pi * rate * np.arange(len(rises)) / _HOPS)
    phasors = np.add.reduceat(turn, edges[:-1])
    drift: _Floats = np.asarray(np.unwrap(np.angle(phasors)), np.float64)
    line = np.polyval(np.polyfit(middle, drift, 1, w=np.abs(phasors)), middle)
    strays = np.abs(drift - line)
    seconds = np.arange(len(rises)) / _HOPS
    if float(np.average(strays, weights=np.abs(phasors))) > 0.15 and count >= 8:  # a tape, or a hand: it drifts
        smooth = np.convolve(np.pad(drift, 1, "edge"), [0.25, 0.5, 0.25], "valid")
        wander = np.interp(seconds, middle, smooth) / (2 * np.pi)
    else:
        wander = np.polyval(np.polyfit(middle, line, 1), seconds) / (2 * np.pi)
    turns = rate * seconds + wander
    bins = 96
    folded = np.bincount((np.mod(turns, 1.0) * bins).astype(np.int64) % bins, rises, bins)
    folded = np.convolve(np.concatenate([folded[-2:], folded, folded[:2]]), np.ones(5) / 5, "valid")
    onset = (int(np.argmax(folded)) + 0.5) / bins
    first, last = np.ceil(turns[0] - onset) - 1, np.floor(turns[-1] - onset) + 1
    wanted = onset + np.arange(first, last + 1)
    # Past the ends of the recording the beat goes on as it was.
    ends = [turns[0] - 2, turns[-1] + 2]
    times = [seconds[0] - 2 / rate, seconds[-1] + 2 / rate]
    starts = np.interp(
        wanted, np.concatenate([[ends[0]], turns, [ends[1]]]), np.concatenate([[times[0]], seconds, [times[1]]])
    )
    return _Beat(starts, float(1 / rate))


# ---------------------------------------------------------------------------------------------- spectra


def _slots(sound: Sound, beat: _Beat) -> tuple[_Singles, _Singles]:
    """A spectrum for each slot, [slots, 312], and its loudness, [slots] (root mean square)."""
    if len(beat.starts) - 1 > 2 * MAX_DIGITS:
        raise PrimeError(f"{sound.path}: {len(beat.starts) - 1:,} notes; at most {MAX_DIGITS:,} are heard")
    # From a tenth into the note, when the reed speaks, to before it ends; of slow notes half a second is plenty.
    inside = min(0.82 * beat.seconds, 0.5)
    frames = max(64, int(inside * sound.rate))
    size = 1 << (2 * frames - 1).bit_length()
    window = np.hanning(frames).astype(np.float32)
    to_axis = _axis(size, sound.rate)
    used = to_axis.shape[0]
    spectra: list[_Singles] = []
    levels: list[float] = []
    pending: list[_Singles] = []

    def analyse() -> None:
        if pending:
            block = np.stack(pending) * window
            power = np.abs(np.fft.rfft(block, size)[:, :used]) ** 2
            spectra.append(np.sqrt(power.astype(np.float32) @ to_axis))
            pending.clear()

    for start, samples in _pieces(sound, beat, frames):
        whole = len(samples) == frames and start >= 0
        piece = samples if whole else np.pad(samples, (0, frames - len(samples)))
        levels.append(float(np.sqrt(np.mean(piece.astype(np.float64) ** 2))))
        pending.append(piece)
        if len(pending) == 32:
            analyse()
    analyse()
    return np.concatenate(spectra), np.array(levels, np.float32)


def _pieces(sound: Sound, beat: _Beat, frames: int) -> Iterator[tuple[int, _Singles]]:
    """The inner part of each slot, at most `frames` samples, as the file is read once through."""
    blocks = sound.blocks()
    buffer: _Singles = np.zeros(0, np.float32)
    origin, ended = 0, False
    for start, end in zip(beat.starts[:-1], beat.starts[1:], strict=True):
        begin = round((start + 0.1 * (end - start)) * sound.rate)
        while origin + len(buffer) < begin + frames and not ended:
            block = next(blocks, None)
            if block is None:
                ended = True
            else:
                skip = max(0, min(begin - origin, len(buffer)))
                buffer, origin = np.concatenate([buffer[skip:], block]), origin + skip
        first = max(0, begin - origin)
        yield begin, buffer[first : max(first, begin + frames - origin)]


def _axis(size: int, rate: int) -> _Singles:
    """Sums a power spectrum, [bins of the transform], into bins of a quarter of a semitone, [.., 312], by triangles."""
    frequency = np.fft.rfftfreq(size, 1 / rate)
    frequency = frequency[: int(np.searchsorted(frequency, min(5200.0, 0.48 * rate)))]
    step = rate / size
    centres = _LOWEST * 2 ** (np.arange(_BINS) / _PER_OCTAVE)
    widths = np.maximum(centres * (2 ** (1 / _PER_OCTAVE) - 1), step)  # at least from one bin to the next
    weights = np.clip(1 - np.abs(frequency[:, None] - centres) / widths, 0, None)
    return weights.astype(np.float32)


def _sounding(path: Path, levels: _Singles) -> NDArray[np.bool_]:
    """Which slots hold a note: all but the silence before and after, and rests."""
    usual = float(np.median(levels[levels > 0.1 * levels.max()]))
    keep = levels > _SILENT * usual
    if int(keep.sum()) < 4:
        raise PrimeError(f"{path}: fewer than four notes are heard in it; not a song of a number")
    return keep


# ---------------------------------------------------------------------------------------------- pitches


def _name(path: Path, spectra: _Singles) -> tuple[_Integers, _Integers, _Singles, list[float]]:
    """For each note its number, what else it may be, and by how much less; and the pitches, lowest first."""
    clean = _whitened(spectra)
    coarse = _pitch_bins(clean)
    centres = _clusters(coarse)
    if len(centres) < 2:
        raise PrimeError(f"{path}: only {len(centres)} pitch is heard in it; not a song of a number")
    bins = np.array(centres)
    nearest = np.argmin(np.abs(coarse[:, None] - bins), axis=1)
    close = np.abs(coarse - bins[nearest]) < 2.0
    names = np.where(close, nearest, -1)
    for _ in range(3):  # each note's own mean spectrum, then each slot to the nearest of them, and again
        means = np.stack([clean[names == number].mean(axis=0) for number in range(len(bins))])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        likeness = clean @ means.T  # [notes, numbers]
        new = np.argmax(likeness, axis=1)
        if any(not np.any(new == number) for number in range(len(bins))):
            break
        names = new
    order = np.argsort(-likeness, axis=1)
    rows = np.arange(len(clean))
    margins = (likeness[rows, order[:, 0]] - likeness[rows, order[:, 1]]).astype(np.float32)
    if float(np.median(likeness[rows, order[:, 0]])) < 0.5:
        raise PrimeError(f"{path}: no ten steady notes are heard in it; not a song of a number")
    pitches = [_LOWEST * 2 ** (float(at) / _PER_OCTAVE) for at in bins]
    return order[:, 0], order[:, 1], margins, pitches


def _whitened(spectra: _Singles) -> _Singles:
    """Spectra above their own floor, each of length 1: loud and soft, near and far look alike."""
    soft = np.sqrt(spectra)
    floor = np.median(soft, axis=1, keepdims=True)
    clean = np.maximum(soft - floor, 0.0)
    normal: _Singles = clean / np.maximum(np.linalg.norm(clean, axis=1, keepdims=True), 1e-9)
    return normal


def _pitch_bins(clean: _Singles) -> _Floats:
    """The pitch of each slot, in bins of the axis, with a fraction.

    A pitch's score is the likeness of the spectrum to a comb with a tooth at each harmonic, 1/sqrt(k) high. The comb
    of an octave below has teeth where nothing is, that of an octave above lacks teeth: both are less alike.
    """
    highest = round(_PER_OCTAVE * np.log2(1400.0 / _LOWEST))
    combs = np.zeros((highest, _BINS), np.float32)
    for pitch in range(highest):
        for harmonic in range(1, 33):
            at = pitch + _PER_OCTAVE * np.log2(harmonic)
            if at < _BINS - 1:
                below = int(at)
                combs[pitch, below] = max(combs[pitch, below], (1 - at + below) / harmonic**0.5)
                combs[pitch, below + 1] = max(combs[pitch, below + 1], (at - below) / harmonic**0.5)
    combs /= np.linalg.norm(combs, axis=1, keepdims=True)
    scores = clean @ combs.T  # [slots, pitches]
    best = np.clip(np.argmax(scores, axis=1), 1, highest - 2)
    rows = np.arange(len(clean))
    left, centre, right = (scores[rows, best + shift] for shift in (-1, 0, 1))
    bend = np.minimum(left - 2 * centre + right, -1e-9)
    return np.asarray(best + np.clip(0.5 * (left - right) / bend, -0.5, 0.5), np.float64)


def _clusters(bins: _Floats) -> list[float]:
    """The pitches, in bins, lowest first, around which slots gather: at most ten, the fullest."""
    reach = _CLUSTER_CENTS / _CENTS / 2
    left = np.sort(bins)
    found: list[tuple[int, float]] = []
    while len(left) and len(found) < 10:
        # The fullest window of that width, then its median.
        ends = np.searchsorted(left, left + 2 * reach, "right")
        counts = ends - np.arange(len(left))
        at = int(np.argmax(counts))
        inside = left[at : ends[at]]
        centre = float(np.median(inside))
        found.append((len(inside), centre))
        left = left[np.abs(left - centre) > 2 * reach]
    enough = max(1, len(bins) // 1000)  # fewer are mistakes
    return sorted(centre for count, centre in found if count >= enough)


# ---------------------------------------------------------------------------------------------- MIDI


def _hear_midi(path: Path) -> Heard:
    """The notes of the busiest channel but the drums', in the order of their beginnings."""
    if path.is_file() and os.path.getsize(path) > MAX_MIDI_BYTES:
        raise PrimeError(f"{path}: larger than {MAX_MIDI_BYTES >> 20} MiB; not a song of a number")
    try:
        file = mido.MidiFile(str(path))
    except OSError as error:
        if error.strerror:
            raise
        raise PrimeError(f"{path}: not a MIDI file that can be read") from error
    except Exception as error:  # the library's own and what it lets through, which are many
        raise PrimeError(f"{path}: not a MIDI file that can be read") from error
    tag, tempo = None, 500_000
    channels: dict[int, list[tuple[int, int, float]]] = {}  # tick, key, bend in semitones
    for track in file.tracks:
        tick, bends = 0, dict.fromkeys(range(16), 0.0)
        for message in track:
            tick += message.time
            if message.type == "text" and tag is None:
                tag = parse_tag(message.text[:4096])
            elif message.type == "set_tempo" and tick == 0:
                tempo = message.tempo
            elif message.type == "pitchwheel":
                bends[message.channel] = message.pitch / 4096
            elif message.type == "note_on" and message.velocity and message.channel != 9:
                channels.setdefault(message.channel, []).append((tick, message.note, bends[message.channel]))
    notes = max(channels.values(), key=len, default=[])
    if not 4 <= len(notes) <= 2 * MAX_DIGITS:
        raise PrimeError(f"{path}: {len(notes)} notes; not a song of a number")
    notes.sort(key=lambda note: note[0])
    if any(before[0] == after[0] for before, after in pairwise(notes)):
        raise PrimeError(f"{path}: two notes begin at once; a song of a number has one voice")
    keys = sorted({round(key + bend, 2) for _, key, bend in notes})
    if not 2 <= len(keys) <= 10:
        raise PrimeError(f"{path}: {len(keys)} different notes; a song of a number has at most ten")
    gaps = np.diff([tick for tick, _, _ in notes])
    step = float(np.median(gaps))
    numbers = tuple(keys.index(round(key + bend, 2)) for _, key, bend in notes)
    return Heard(
        numbers,
        tuple(440.0 * 2 ** ((key - 69) / 12) for key in keys),
        step * tempo / 1e6 / max(1, file.ticks_per_beat),
        int(np.sum(np.round(gaps / step) - 1)),
        numbers,
        np.ones(len(numbers), np.float32),
        tag,
    )


def doubtful(heard: Heard, count: int) -> Sequence[int]:
    """The places of the `count` notes that were heard least surely, least sure first."""
    return [int(place) for place in np.argsort(heard.margins, kind="stable")[:count]]
