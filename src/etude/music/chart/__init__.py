"""Charts: songs and progressions as people type them, and as they read them at a music stand."""

from .grid import render
from .html import render_html
from .text import MAX_CHORDS, Progression, parse_progression

__all__ = ["MAX_CHORDS", "Progression", "parse_progression", "render", "render_html"]
