"""The bundled progressions: a short list of what everybody knows, as documents that stand beside a collection."""

from __future__ import annotations

from importlib.resources import files

from etude.music.chart import parse_progression
from etude.music.theory import Key, Section, Song, merge_changes

from .songs import SongDocument

ROUNDS = 2


def read_progressions() -> list[SongDocument]:
    """Each progression played `ROUNDS` times, as a song whose rounds are sections."""
    documents = []
    for line in files("etude.assets").joinpath("progressions.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        head, _, chart = line.partition(": ")
        name, _, genre = head.partition(" / ")
        bars = parse_progression(chart).bars
        changes = tuple(change.chord for change in merge_changes(bars * ROUNDS))
        song = Song(name, Key.detect(changes), (Section("A", bars),) * ROUNDS, genre=genre)
        documents.append(SongDocument(name, f"progression {name}", "Étude's own list", "MIT", changes, song))
    return documents
