"""Notes become files: MIDI for a sequencer, WAV for the ears."""

from .midi import write_midi
from .synth import MAX_SECONDS, RATE, TAIL_SECONDS, render, write_wav

__all__ = ["MAX_SECONDS", "RATE", "TAIL_SECONDS", "render", "write_midi", "write_wav"]
