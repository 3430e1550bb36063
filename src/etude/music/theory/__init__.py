"""Chords, keys and songs as values: no model, no sound, no files."""

from .chord import Chord, ChordError, pitch_class
from .function import describe
from .key import Key, Mode
from .song import MAX_TEMPO, MIN_TEMPO, Bar, Change, Meter, Section, Song, merge_changes, split_into_bars

__all__ = [
    "MAX_TEMPO", "MIN_TEMPO", "Bar", "Change", "Chord", "ChordError", "Key", "Meter", "Mode", "Section", "Song",
    "describe", "merge_changes", "pitch_class", "split_into_bars",
]  # fmt: skip
