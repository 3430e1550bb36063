"""Chords, keys and songs as values: no model, no sound, no files."""

from .chord import Chord, ChordError, pitch_class
from .key import Key, Mode
from .song import Bar, Change, Meter, Section, Song, merge_changes, split_into_bars

__all__ = [
    "Bar", "Change", "Chord", "ChordError", "Key", "Meter", "Mode", "Section", "Song",
    "merge_changes", "pitch_class", "split_into_bars",
]  # fmt: skip
