"""A model that is loaded and ready: an engine, its tokenizer, and what they can be asked."""

from .chords import CHORDS, ChordModel
from .loading import BUNDLED, load, load_chords, load_tokenizer, model_directory
from .prompts import Candidate, Prompt, Suggestions, as_chord, detect_key, read_prompt
from .text import TOKENS, TextModel

__all__ = [
    "BUNDLED",
    "CHORDS",
    "TOKENS",
    "Candidate",
    "ChordModel",
    "Prompt",
    "Suggestions",
    "TextModel",
    "as_chord",
    "detect_key",
    "load",
    "load_chords",
    "load_tokenizer",
    "model_directory",
    "read_prompt",
]
