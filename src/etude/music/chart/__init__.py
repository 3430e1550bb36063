"""Charts: songs and progressions as people type them, and as they read them at a music stand."""

from .grid import MIN_WIDTH, render
from .html import render_html
from .text import MAX_CHORDS, MAX_LENGTH, Progression, parse_progression

__all__ = ["MAX_CHORDS", "MAX_LENGTH", "MIN_WIDTH", "Progression", "parse_progression", "render", "render_html"]
