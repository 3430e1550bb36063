"""From a chord chart to notes to play: voicings that move little, and a groove for chords, bass and drums."""

from .groove import arrange, programs
from .note import Note, Part
from .voicing import movement, voice, voiced_intervals

__all__ = ["Note", "Part", "arrange", "movement", "programs", "voice", "voiced_intervals"]
