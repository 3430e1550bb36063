"""A Standard MIDI File to drag into a sequencer: tempo, metre, key, markers for chords and sections, a track a part."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from typing import BinaryIO

import mido

from etude.files import output
from etude.music.arrange import Note, Part, programs
from etude.music.theory import Key, Song

TICKS = 480  # a quarter note; divides into triplets, sixteenths and their swung forms without rest
CHANNELS: dict[Part, int] = {"chords": 0, "bass": 1, "drums": 9}  # General MIDI keeps the tenth for drums
# The fifteen signatures of each mode, seven flats to seven sharps, as mido spells them.
_SIGNATURES = {
    "major": ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#"),
    "minor": ("Abm", "Ebm", "Bbm", "Fm", "Cm", "Gm", "Dm", "Am", "Em", "Bm", "F#m", "C#m", "G#m", "D#m", "A#m"),
}

# What happens at one tick, in this order: metadata, note-offs, note-ons.
_Event = tuple[int, int, mido.Message | mido.MetaMessage]


def write_midi(song: Song, notes: Iterable[Note], target: str | os.PathLike[str] | BinaryIO) -> None:
    """Write a type 1 file of four tracks, each as long as the song; the same arguments give the same bytes.

    The first track has tempo, metre, key and the markers: a chord's name as the song's key spells it, and a section's
    label in square brackets, in UTF-8. A path is written whole or not at all. A note is cut at the song's end and where
    its own pitch is struck again. Raises `OSError` where the file cannot be written.
    """
    end = _ticks(len(song.bars) * song.meter.quarters)
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS, charset="utf-8")
    file.tracks.append(_track(_conductor(song), end))
    grouped: dict[Part, list[Note]] = {part: [] for part in CHANNELS}
    for note in notes:
        grouped[note.part].append(note)
    chords_program, bass_program = programs(song)
    instruments: dict[Part, int] = {"chords": chords_program, "bass": bass_program, "drums": 0}
    for part, program in instruments.items():
        opening: list[_Event] = [
            (0, 0, mido.MetaMessage("track_name", name=part.capitalize())),
            (0, 0, mido.Message("program_change", channel=CHANNELS[part], program=program)),
        ]
        file.tracks.append(_track([*opening, *_strokes(grouped[part], CHANNELS[part], end)], end))
    with output(target) as opened:
        file.save(file=opened)


def _conductor(song: Song) -> list[_Event]:
    quarters = song.meter.quarters
    meter = {"numerator": song.meter.beats, "denominator": song.meter.unit}
    events: list[_Event] = [
        (0, 0, mido.MetaMessage("track_name", name=song.title)),
        (0, 0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(song.tempo))),
        (0, 0, mido.MetaMessage("time_signature", **meter)),
        (0, 0, mido.MetaMessage("key_signature", key=_signature(song.key))),
    ]
    bar = 0
    for section in song.sections:
        if section.label and section.bars:
            events.append((_ticks(bar * quarters), 1, mido.MetaMessage("marker", text=f"[{section.label}]")))
        bar += len(section.bars)
    for change in song.changes():
        text = song.key.name(change.chord)
        events.append((_ticks(change.start * quarters), 2, mido.MetaMessage("marker", text=text)))
    return events


def _signature(key: Key) -> str:
    """The key's MIDI name; where seven accidentals do not reach (G# major), that of the key that sounds the same."""
    for candidate in (key, key.transpose(0)):
        name = candidate.tonic + ("m" if candidate.mode == "minor" else "")
        if name in _SIGNATURES[key.mode]:
            return name
    raise AssertionError(key)  # Key.of, behind transpose, uses no other names


def _strokes(notes: Iterable[Note], channel: int, end: int) -> list[_Event]:
    """Note-ons and note-offs in ticks: inside the song, and never two of a pitch at once."""
    by_pitch: dict[int, dict[int, tuple[int, int]]] = {}  # pitch -> start -> (stop, velocity)
    for note in notes:
        start, stop = _ticks(note.start), min(max(_ticks(note.end), _ticks(note.start) + 1), end)
        if start < stop:
            struck = by_pitch.setdefault(note.pitch, {})
            struck[start] = max(struck.get(start, (0, 0)), (stop, note.velocity))
    events: list[_Event] = []
    for pitch, struck in by_pitch.items():
        starts = sorted(struck)
        for start, following in zip(starts, [*starts[1:], end], strict=True):
            stop, velocity = struck[start]
            events.append((start, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
            events.append((min(stop, following), 1, mido.Message("note_off", channel=channel, note=pitch, velocity=0)))
    return events


def _track(events: Iterable[_Event], end: int) -> mido.MidiTrack:
    """Absolute ticks become deltas; events of one tick keep their rank, then pitch, then the order they came in."""
    track, now = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: (*event[:2], getattr(event[2], "note", 0))):
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=end - now))
    return track


def _ticks(quarters: Fraction) -> int:
    return round(quarters * TICKS)
