"""Notes become files: MIDI for a sequencer, WAV for the ears."""

from .midi import write_midi
from .synth import RATE, TAIL_SECONDS, render, write_wav

__all__ = ["RATE", "TAIL_SECONDS", "render", "write_midi", "write_wav"]
