"""Chart collections: JSON lines, one song a line, plain or gzipped, as typed documents.

A line holds `chords` (the changes, immediate repeats merged) and, where they are known, `id`, `group`, `title`,
`genre`, `key`, `meter`, `bars` (a string of chords a bar) and `sections` (`label` and first `bar`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from etude.errors import EtudeError
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song

from .lines import CorpusError, first_record, read_lines

MAX_CHANGES = 20_000
MAX_BAR_CHORDS = 16
# In these sources a key names a tonic and leaves the mode open.
_TONIC_ONLY = ("billboard", "rock-corpus")


@dataclass(frozen=True, slots=True)
class SongDocument:
    """One song of a collection. `song` is its chart where bars are known; `group` joins versions of one song."""

    name: str
    group: str
    source: str
    licence: str
    changes: tuple[Chord, ...]
    song: Song | None


def read_songs(path: Path) -> list[SongDocument]:
    """Every song of a `.jsonl` or `.jsonl.gz` file. Raises `CorpusError`; nothing is skipped in silence."""
    songs = []
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
            json.dumps(record, ensure_ascii=False).encode()  # half a surrogate pair could not be written again
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise CorpusError(f"{where}: not a JSON object with a list 'chords'")
        try:
            songs.append(_song(record, where))
        except (EtudeError, TypeError) as error:
            raise CorpusError(f"{where}: {error}") from error
    if not songs:
        raise CorpusError(f"{path}: no songs in it")
    return songs


def is_songs(path: Path) -> bool:
    """Whether a file is a chart collection, by its first line."""
    record = first_record(path)
    return record is not None and "chords" in record and "text" not in record


def split_songs(
    documents: list[SongDocument], corpus: Sequence[Path], validation: Path | None
) -> tuple[list[SongDocument], list[SongDocument]]:
    """Training songs and validation songs. Versions of one song stay on one side.

    Without `validation`, the file named `valid` beside each corpus file named `train` is taken; without any, every
    twentieth group by the digest of its name.
    """
    beside = [path.with_name(path.name.replace("train", "valid", 1)) for path in corpus if path.name[:5] == "train"]
    found = [validation] if validation else [path for path in dict.fromkeys(beside) if path.is_file()]
    if found:
        held_out = [document for path in found for document in read_songs(path)]
        groups = {document.group for document in held_out}
        kept = [document for document in documents if document.group not in groups]
    else:
        is_held_out = {d.group: hashlib.sha256(d.group.encode()).digest()[0] < 256 // 20 for d in documents}
        held_out = [document for document in documents if is_held_out[document.group]]
        kept = [document for document in documents if not is_held_out[document.group]]
    if not kept and found:
        raise CorpusError(f"{corpus[0]}: every song of it is a validation song of {found[0]} too")
    if not kept or not any(len(document.changes) > 1 for document in held_out):
        raise CorpusError(f"{corpus[0]}: too few songs to hold some out; give more, or name a file with --validation")
    return kept, held_out


def _song(record: dict[str, Any], where: str) -> SongDocument:
    chords = record.get("chords")
    if not isinstance(chords, list) or not all(isinstance(chord, str) for chord in chords):
        raise EtudeError("'chords' must be a list of chord symbols")
    if not chords or len(chords) > MAX_CHANGES:
        raise EtudeError(f"a song has 1 to {MAX_CHANGES:,} chords, this one {len(chords):,}")
    changes = tuple(Chord.parse(chord) for chord in chords)
    name = str(record.get("id") or record.get("title") or where)
    group = record.get("group")
    return SongDocument(
        name=name,
        group=str(record.get("title") or name) if group is None else str(group),
        source=str(record.get("source", "")),
        licence=str(record.get("licence", "")),
        changes=changes,
        song=_chart(record, changes),
    )


def _chart(record: dict[str, Any], changes: tuple[Chord, ...]) -> Song | None:
    written = record.get("bars")
    if not written:
        return None
    if not isinstance(written, list) or not all(isinstance(bar, str) and bar.split() for bar in written):
        raise EtudeError("'bars' must be a list of strings with a chord or more each")
    if any(len(bar.split()) > MAX_BAR_CHORDS for bar in written):
        raise EtudeError(f"a bar holds at most {MAX_BAR_CHORDS} chords")
    chords = [[Chord.parse(symbol) for symbol in bar.split()] for bar in written]
    if _merged(chord for bar in chords for chord in bar) != _merged(changes):
        raise EtudeError("'bars' hold other chords than 'chords'; give the chords of the bars, repeats merged")
    bars = [Bar.of(*bar) for bar in chords]
    starts = {0: ""} | _starts(record.get("sections"), len(bars))
    edges = [*sorted(starts), len(bars)]
    sections = tuple(Section(starts[start], tuple(bars[start:end])) for start, end in pairwise(edges))
    key = _key(record, changes)
    return Song(str(record.get("title", "")), key, sections, _meter(record), genre=_genre(str(record.get("genre", ""))))


def _merged(chords: Iterable[Chord]) -> list[Chord]:
    return [chord for chord, _ in groupby(chords)]


def _starts(sections: object, bars: int) -> dict[int, str]:
    """The bar that each section begins with, and its label."""
    if sections is None:
        return {}
    if not isinstance(sections, list) or not all(isinstance(section, dict) for section in sections):
        raise EtudeError("'sections' must be a list of objects with a label and the number of a bar")
    for section in sections:
        bar = section.get("bar")
        if not isinstance(bar, int) or isinstance(bar, bool) or not 0 <= bar < bars:
            raise EtudeError(f"a section begins with a 'bar' from 0 to {bars - 1:,}, not {bar!r}")
    return {section["bar"]: str(section.get("label", "")) for section in sections}


def _key(record: dict[str, Any], changes: tuple[Chord, ...]) -> Key:
    if not record.get("key"):
        return Key.detect(changes)
    key = Key.parse(str(record["key"]))
    if record.get("source") in _TONIC_ONLY:
        on_tonic = [chord for chord in changes if chord.root == key.pitch_class]
        minor = sum(3 in chord.intervals and 4 not in chord.intervals for chord in on_tonic)
        key = Key(key.tonic, "minor" if 2 * minor > len(on_tonic) else "major")
    return key


def _meter(record: dict[str, Any]) -> Meter:
    meter = record.get("meter")
    if isinstance(meter, list) and meter:
        meter = meter[-1]
    # Unknown, which the sources write as 0: the commonest.
    return Meter() if meter in (None, "", "0", 0) else Meter.parse(str(meter))


def _genre(genre: str) -> str:
    return "folk" if genre.startswith("folk") else genre
