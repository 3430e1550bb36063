"""Corpora: files of music and text as documents."""
