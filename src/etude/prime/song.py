"""Singing a number: each digit a note, as sound, MIDI or notation.

    number -> digits -> slots -> blocks of samples, or events of a MIDI file, or a drawing

A slot is a note or a rest, all equally long. Nothing here grows with the length of the song but the list of its
slots: each of the ten notes is rendered once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mido
import numpy as np
from numpy.typing import NDArray

from etude.files import atomic_write
from etude.music.sound.accompaniment import stroke, tanpura
from etude.music.sound.audio import open_sound, write_sound
from etude.music.sound.harmonium import pitch_of, reed, shifted, trimmed
from etude.music.sound.synth import RATE

from .intro import framed
from .notes import (
    DEFAULT_RAGA,
    MAX_TEMPO,
    MIN_TEMPO,
    NOTES_A_MINUTE,
    RAGAS,
    SA,
    Intonation,
    Raga,
    Tala,
    check_sa,
    check_table,
    degrees_of,
    find_raga,
    frequency,
    parse_pitch,
    ranking,
)
from .number import PrimeError, decimal

FADE = 220  # frames at each end of a note
PEAK = 0.95  # the loudest sample of a song, where 1.0 is full scale
MAX_SONG_SECONDS = 4 * 3600.0
TAIL_SECONDS = 2.0  # after the last note, where something rings on
MAX_SAMPLE_SECONDS = 60.0
DRONE_LEVEL, TABLA_LEVEL = 0.2, 0.7  # beside a melody of root-mean-square 1: it stays in front
MIDI_TICKS = 480  # a quarter note, which is four digits
MIDI_NAME = "Song of a prime"
REED_ORGAN, SITAR = 20, 104  # General MIDI's nearest to a harmonium and a tanpura
_CHUNK = 64  # slots rendered at once
_TAG = "etude-prime-song"

_Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Song:
    """A number made into notes: what is sung, and how."""

    digits: str
    """what is sung of the number: all of it, or its beginning"""
    table: str
    """the ten digits, commonest first: the order in which the raga gives them notes"""
    raga: Raga
    whole: bool
    """whether all digits are sung; a shortened song cannot be heard back"""
    sa: float = SA
    tempo: float = NOTES_A_MINUTE
    intonation: Intonation = "equal"
    rests: int = 0
    """a rest of one note after every so many notes; 0 for none"""
    drone: bool = False
    tala: Tala | None = None
    intro: bool = False
    """whether the table and check digits are sung before the digits, and parity notes after them"""

    @property
    def frames_per_slot(self) -> int:
        return round(RATE * 60 / self.tempo)

    @cached_property
    def sung(self) -> str:
        """All digits that are sung, those of the intro and the outro too."""
        return framed(self.digits) if self.intro else self.digits

    @cached_property
    def slots(self) -> list[int | None]:
        """Semitones from Sa, or None for a rest."""
        notes: list[int | None] = list(degrees_of(self.sung, self.table, self.raga))
        if not self.rests:
            return notes
        phrases = [notes[start : start + self.rests] for start in range(0, len(notes), self.rests)]
        return [slot for phrase in phrases[:-1] for slot in (*phrase, None)] + phrases[-1]

    @property
    def frames(self) -> int:
        """The length of the sound, in frames of 1/44,100 s."""
        tail = round(TAIL_SECONDS * RATE) if self.drone or self.tala else 0
        return len(self.slots) * self.frames_per_slot + tail

    @property
    def seconds(self) -> float:
        return self.frames / RATE

    @property
    def tag(self) -> str:
        """A line that lets `hear` know at once what it would else find out; files carry it as their comment."""
        return (
            f"{_TAG} table={self.table} raga={self.raga.name} sa={self.sa:.6g} tempo={self.tempo:.10g} "
            f"rests={self.rests} digits={len(self.digits)} intro={int(self.intro)} whole={int(self.whole)}"
        )


def compose(
    number: int,
    raga: Raga = RAGAS[DEFAULT_RAGA],
    *,
    sa: float = SA,
    tempo: float = NOTES_A_MINUTE,
    intonation: Intonation = "equal",
    rests: int = 0,
    drone: bool = False,
    tala: Tala | None = None,
    intro: bool = False,
    first_digits: int | None = None,
) -> Song:
    """The song of a positive number; `first_digits` shortens it. `sa` is in Hz, `tempo` in notes a minute.

    Raises `PrimeError` for what cannot be sung, and over four hours.
    """
    check_sa(sa)
    if not MIN_TEMPO <= tempo <= MAX_TEMPO:
        raise PrimeError(f"a tempo of {tempo:g} notes a minute; {MIN_TEMPO:g} to {MAX_TEMPO:g} can be sung")
    if rests < 0:
        raise PrimeError("rests after a negative number of notes; give 0 for none")
    digits = decimal(number)
    table = ranking(digits)
    sung = digits if first_digits is None else digits[:first_digits]
    whole = len(sung) == len(digits)
    if intro and not whole:
        raise PrimeError("an intro is for hearing a song back, which a shortened one cannot be; leave one of them out")
    song = Song(sung, table, raga, whole, sa, tempo, intonation, rests, drone, tala, intro)
    if song.seconds > MAX_SONG_SECONDS:
        raise PrimeError(
            f"the song would last {song.seconds:,.0f} seconds; at most {MAX_SONG_SECONDS:,.0f} are sung: "
            "shorten it, or sing faster"
        )
    return song


# ---------------------------------------------------------------------------------------------- sound


@dataclass(frozen=True, slots=True)
class Sample:
    """A recording of one note, to sing with."""

    audio: _Audio
    """mono, from the beginning of the note on"""
    rate: int
    """frames a second"""
    pitch: float
    """Hz"""


def read_sample(path: Path, pitch: float | None = None) -> Sample:
    """A recording of one steady note from a sound file; its pitch in Hz is found where it is not given.

    Raises `EtudeError` for a file that is no such recording.
    """
    sound = open_sound(path)
    if sound.seconds > MAX_SAMPLE_SECONDS:
        raise PrimeError(
            f"{path}: {sound.seconds:,.0f} seconds; a sample is one note of {MAX_SAMPLE_SECONDS:g} at most"
        )
    blocks, frames = [], 0
    for block in sound.blocks():
        blocks.append(block)
        frames += len(block)
        if frames > 1.05 * MAX_SAMPLE_SECONDS * sound.rate:
            raise PrimeError(f"{path}: longer than its header says; a sample is one note")
    audio = trimmed(np.concatenate(blocks) if blocks else np.zeros(0, np.float32))
    return Sample(audio, sound.rate, pitch_of(audio, sound.rate) if pitch is None else pitch)


def write_audio(song: Song, path: Path, sample: Sample | None = None) -> None:
    """Write the song as .wav, .flac or .mp3: 16 bits, mono, 44,100 Hz, peak 0.95; the same song, the same bytes.

    Raises `EtudeError` where the sample is too short or a package is missing, `OSError` where the path cannot be
    written.
    """
    notes = _notes(song, sample)
    round_of_strings = _drone(song) if song.drone else None
    peak = max(float(np.abs(block).max()) for block in _blocks(song, notes, round_of_strings))
    scale = np.float32(32767 * PEAK / peak)
    blocks = (np.rint(block * scale).astype(np.int16) for block in _blocks(song, notes, round_of_strings))
    write_sound(path, blocks, song.frames, song.tag)


def _notes(song: Song, sample: Sample | None) -> dict[int, _Audio]:
    """Each note of the song as one slot of samples, root-mean-square 1 before its ends are faded."""
    frames = song.frames_per_slot
    fade = np.minimum(1.0, np.arange(frames) / min(FADE, frames // 2)).astype(np.float32)
    notes = {}
    for degree in sorted({slot for slot in song.slots if slot is not None}):
        pitch = frequency(degree, song.sa, song.intonation)
        if sample is None:
            tone = reed(pitch, frames)
        else:
            tone = shifted(sample.audio, pitch / sample.pitch * sample.rate / RATE, frames)
        notes[degree] = tone * fade * fade[::-1]
    return notes


def _drone(song: Song) -> _Audio:
    """A round of the tanpura, as long as sixteen notes or, where these are quick or slow, twice or half as many."""
    slots = 16
    while slots * song.frames_per_slot < 3 * RATE:
        slots *= 2
    while slots * song.frames_per_slot > 6 * RATE and slots > 1:
        slots //= 2
    return np.float32(DRONE_LEVEL) * tanpura(song.sa, song.raga.drone, slots * song.frames_per_slot)


def _blocks(song: Song, notes: dict[int, _Audio], drone: _Audio | None) -> Iterator[_Audio]:
    """The song in blocks of float32 [frames], before normalisation."""
    size, slots = song.frames_per_slot, song.slots
    silence = np.zeros(size, np.float32)
    ringing = np.zeros(0, np.float32)  # strokes that began in an earlier block
    written = 0
    while written < song.frames:
        first = written // size
        here = slots[first : first + _CHUNK]
        if here:
            block = np.concatenate([silence if slot is None else notes[slot] for slot in here])
        else:
            block = np.zeros(song.frames - written, np.float32)
        if drone is not None:
            block += _fade(song, written, len(block)) * drone[(written + np.arange(len(block))) % len(drone)]
        if song.tala is not None:
            struck = _strokes(song.tala, song.sa, first, len(here), size, max(len(block), len(ringing)))
            struck[: len(ringing)] += ringing
            block += np.float32(TABLA_LEVEL) * struck[: len(block)]
            ringing = struck[len(block) :]
        yield block
        written += len(block)


def _fade(song: Song, start: int, frames: int) -> _Audio:
    """The loudness of what plays all through: in over half a second, out over the tail."""
    place = np.arange(start, start + frames, dtype=np.float32)
    rising, falling = place / (RATE / 2), (song.frames - 1 - place) / (TAIL_SECONDS * RATE)
    loudness: _Audio = np.clip(np.minimum(rising, falling), 0, 1).astype(np.float32)
    return loudness


def _strokes(tala: Tala, sa: float, first: int, count: int, size: int, frames: int) -> _Audio:
    """The strokes of `count` slots from slot `first` on, and their ringing after that: at least `frames` samples."""
    struck = np.zeros(max(frames, count * size) + RATE, np.float32)
    for slot in range(count):
        names = tala.strokes[(first + slot) % tala.beats].split("-")
        accent = 1.0 if (first + slot) % tala.beats == 0 else 0.75
        for part, name in enumerate(names):
            sound = stroke(name, sa)
            at = slot * size + part * size // len(names)
            struck[at : at + len(sound)] += np.float32(accent / len(names) ** 0.5) * sound
    return struck


# ---------------------------------------------------------------------------------------------- MIDI


_STROKES_MIDI = {"Na": 76, "Tin": 60, "Tun": 61, "Ti": 77, "Ge": 64, "Ka": 75}  # General MIDI's nearest drums
_HANDS = {"Dha": ("Na", "Ge"), "Dhin": ("Tin", "Ge"), "Ta": ("Na",), "Ra": ("Ti",), "Ki": ("Ti",), "Ke": ("Ka",)}


def write_midi(song: Song, path: Path) -> None:
    """Write a type 1 file: the melody on a reed organ, and drone and drum where the song has them.

    A digit is a sixteenth note. What a pitch is above or below the piano's key is a pitch bend, so just intonation and
    a Sa of any height sound as they should. The same song gives the same bytes.
    """
    step = MIDI_TICKS // 4
    slots = song.slots
    file = mido.MidiFile(type=1, ticks_per_beat=MIDI_TICKS, charset="utf-8")
    conductor = mido.MidiTrack(
        [
            mido.MetaMessage("track_name", name=MIDI_NAME),
            mido.MetaMessage("text", text=song.tag),
            mido.MetaMessage("set_tempo", tempo=round(240_000_000 / song.tempo)),
        ]
    )
    melody = mido.MidiTrack([mido.MetaMessage("track_name", name="Melody")])
    melody.append(mido.Message("program_change", channel=0, program=REED_ORGAN))
    waited, bend = 0, 0
    for slot in slots:
        if slot is None:
            waited += step
            continue
        key, needed = midi_key(frequency(slot, song.sa, song.intonation))
        if needed != bend:
            melody.append(mido.Message("pitchwheel", channel=0, pitch=needed, time=waited))
            waited, bend = 0, needed
        melody.append(mido.Message("note_on", channel=0, note=key, velocity=90, time=waited))
        melody.append(mido.Message("note_off", channel=0, note=key, velocity=0, time=step))
        waited = 0
    file.tracks += [conductor, melody]
    if song.drone:
        file.tracks.append(_midi_drone(song, step))
    if song.tala:
        file.tracks.append(_midi_tala(song, step))
    for track in file.tracks:
        track.append(mido.MetaMessage("end_of_track", time=0))
    with atomic_write(path) as opened:
        file.save(file=opened)


def midi_key(pitch: float) -> tuple[int, int]:
    """The nearest key of a piano, and the pitch bend (8,192 steps are two semitones) from it to a pitch in Hz."""
    exact = 69 + 12 * float(np.log2(pitch / 440.0))
    return round(exact), round((exact - round(exact)) * 4096)


def _midi_drone(song: Song, step: int) -> mido.MidiTrack:
    track = mido.MidiTrack([mido.MetaMessage("track_name", name="Tanpura")])
    track.append(mido.Message("program_change", channel=1, program=SITAR))
    low, bend = midi_key(song.sa / 2)
    track.append(mido.Message("pitchwheel", channel=1, pitch=bend))
    for start in range(0, len(song.slots), 4):
        key = low + (song.raga.drone, 12, 12, 0)[start // 4 % 4]
        track.append(mido.Message("note_on", channel=1, note=key, velocity=45, time=0))
        track.append(mido.Message("note_off", channel=1, note=key, velocity=0, time=4 * step))
    return track


def _midi_tala(song: Song, step: int) -> mido.MidiTrack:
    assert song.tala is not None
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=song.tala.name.capitalize())])
    for slot in range(len(song.slots)):
        names = song.tala.strokes[slot % song.tala.beats].split("-")
        for name in names:
            keys = [_STROKES_MIDI[hand] for hand in _HANDS.get(name, (name,))]
            velocity = 70 if slot % song.tala.beats == 0 else 55
            track += [mido.Message("note_on", channel=9, note=key, velocity=velocity, time=0) for key in keys]
            for index, key in enumerate(keys):
                time = step // len(names) if index == 0 else 0
                track.append(mido.Message("note_off", channel=9, note=key, velocity=0, time=time))
    return track


# ---------------------------------------------------------------------------------------------- the tag


@dataclass(frozen=True, slots=True)
class Tag:
    """What a file's comment says of the song in it. A comment may be wrong: what it says is checked, not believed."""

    table: str
    raga: Raga
    sa: float
    digits: int
    whole: bool


def parse_tag(comment: str) -> Tag | None:
    """The tag in a file's comment, if there is one."""
    found = dict(re.findall(r"\b([a-z]+)=([-\w.]+)", comment)) if _TAG in comment else {}
    try:
        table, raga, sa = check_table(found["table"]), find_raga(found["raga"]), check_sa(parse_pitch(found["sa"]))
        tag = Tag(table, raga, sa, int(found["digits"]), found["whole"] == "1")
    except (KeyError, ValueError):  # a PrimeError is a ValueError
        return None
    return tag
