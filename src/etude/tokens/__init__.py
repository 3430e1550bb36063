"""Tokenizers: text or chords to ids and back."""
