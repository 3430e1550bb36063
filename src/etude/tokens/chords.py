"""Chord tokens: one id a chord, counted from the song's first root, so that a key is taken out by construction.

A song in any of the 12 keys gives the same ids and its own `anchor` (the pitch class of its first root). Ids come in
two forms. The *plain* form is the changes alone: `<song> chord chord chord`. The *full* form adds a header (genre,
metre, key), a tag where a section begins, and lengths: `<song> <jazz> <4/4> <key+0 major> <A> chord chord length ...`.
A length follows its chord and holds until another length is given, as durations do in LilyPond; it starts at one bar.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from etude.music.theory import Chord, Key, Meter, Section, Song, merge_changes, split_into_bars

from .tokenizer import TokenizerError

GENRES = ("jazz", "pop", "rock", "c-pop", "folk", "carol", "standards", "other")
METERS = ("4/4", "3/4", "2/2", "2/4", "6/8", "12/8", "5/4", "6/4", "7/4", "9/8", "3/2", "other")
SECTIONS = (
    "intro", "verse", "pre-chorus", "chorus", "bridge", "solo", "interlude", "outro", "A", "B", "C", "D", "section",
)  # fmt: skip
# In bars, longest first. Another length is said as a sum of these, so any bar of up to sixteen chords can be said.
_MULTIPLES = (*map(Fraction, (16, 8, 6, 4, 3, 2)), Fraction(3, 2), Fraction(3, 4), Fraction(2, 3))
LENGTHS = tuple(sorted({*_MULTIPLES, *(Fraction(1, n) for n in range(1, 17))}, reverse=True))
_SECTION_PATTERNS = (
    (re.compile(r"pre.?-?chorus", re.I), "pre-chorus"),
    (re.compile(r"intro|pre-intro|fade.?in", re.I), "intro"),
    (re.compile(r"outro|fade.?out|coda|ending", re.I), "outro"),
    (re.compile(r"verse", re.I), "verse"),
    (re.compile(r"chorus|refrain|hook", re.I), "chorus"),
    (re.compile(r"bridge|middle", re.I), "bridge"),
    (re.compile(r"solo|instrumental", re.I), "solo"),
    (re.compile(r"interlude|trans|break", re.I), "interlude"),
    (re.compile(r"[A-D](?![a-z])"), "letter"),
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """`ids` and the pitch class that relative root 0 stands for."""

    ids: tuple[int, ...]
    anchor: int


def section_tag(label: str) -> str:
    """The tag of a section's label: `Verse 2` is a verse, `A'` an A, what nobody knows a section."""
    for pattern, tag in _SECTION_PATTERNS:
        match = pattern.match(label.strip())
        if match:
            return match.group().upper() if tag == "letter" else tag
    return "section"


def anchor_of(chords: Iterable[Chord], silent: int = 0) -> int:
    """The pitch class of the first root; `silent` where nothing sounds."""
    return next((chord.root for chord in chords if chord.root is not None), silent)


@dataclass(frozen=True)
class ChordTokenizer:
    """`shapes` are the sayable (quality, bass above the root in semitones) pairs, commonest first."""

    shapes: tuple[tuple[str, int], ...]
    kind: ClassVar[str] = "chord"

    @staticmethod
    def train(songs: Iterable[Sequence[Chord]], min_count: int = 2) -> ChordTokenizer:
        """Take every shape that occurs at least `min_count` times, in any root."""
        counts = Counter(_shape(chord) for song in songs for chord in song if chord.root is not None)
        shapes = sorted((shape for shape, n in counts.items() if n >= min_count), key=lambda s: (-counts[s], s))
        if ("", 0) not in shapes:
            shapes.insert(0, ("", 0))
        return ChordTokenizer(tuple(shapes))

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """The names of the ids that are no chord, in order, beginning at `n_chords`."""
        keys = tuple(f"key+{tonic} {mode}" for mode in ("major", "minor") for tonic in range(12))
        lengths = tuple(f"{length} bar" for length in LENGTHS)
        return ("song", "end", *GENRES, *METERS, *keys, *SECTIONS, *lengths)

    @cached_property
    def _shape_ids(self) -> dict[tuple[str, int], int]:
        return {shape: i for i, shape in enumerate(self.shapes)}

    @cached_property
    def _tag_ids(self) -> dict[str, int]:
        return {tag: self.n_chords + i for i, tag in enumerate(self.tags)}

    @cached_property
    def _length_ids(self) -> dict[int, Fraction]:
        return {self._tag_ids[f"{length} bar"]: length for length in LENGTHS}

    @property
    def n_chords(self) -> int:
        """Ids below this are chords: every shape on each of the 12 relative roots, then `N.C.`."""
        return 12 * len(self.shapes) + 1

    @property
    def vocab_size(self) -> int:
        return self.n_chords + len(self.tags)

    @property
    def song_id(self) -> int:
        return self._tag_ids["song"]

    @property
    def end_id(self) -> int:
        return self._tag_ids["end"]

    @property
    def length_ids(self) -> dict[int, Fraction]:
        """Length ids and what they say, in bars."""
        return self._length_ids

    def tag_id(self, tag: str) -> int:
        return self._tag_ids[tag]

    def header(self, genre: str = "", meter: Meter | None = None, key: Key | None = None, anchor: int = 0) -> list[int]:
        """`<song>` and the tags that are known; a metre says that lengths follow."""
        tags = ["song"]
        if genre:
            tags.append(genre if genre in GENRES else "other")
        if meter is not None:
            tags.append(str(meter) if str(meter) in METERS else METERS[-1])
        if key is not None:
            tags.append(f"key+{(key.pitch_class - anchor) % 12} {key.mode}")
        return [self._tag_ids[tag] for tag in tags]

    def can_say(self, chord: Chord) -> bool:
        return chord.root is None or _shape(chord) in self._shape_ids

    def chord_id(self, chord: Chord, anchor: int) -> int:
        """The chord's id, or -1 where the tokenizer cannot say it."""
        if chord.root is None:
            return self.n_chords - 1
        shape = self._shape_ids.get(_shape(chord), -1)
        return -1 if shape < 0 else (chord.root - anchor) % 12 * len(self.shapes) + shape

    def nearest(self, chord: Chord) -> Chord:
        """The sayable chord that a model is shown instead: the bass dropped first, then the rarest colours."""
        if self.can_say(chord):
            return chord
        candidates = (q for q, bass in self.shapes if bass == 0)
        plain = Chord(chord.root, chord.quality, chord.root)
        if self.can_say(plain):
            return plain
        tones = set(plain.intervals)

        def distance(quality: str) -> tuple[int, int]:
            other = set(Chord(0, quality, 0).intervals)
            # A wrong third or seventh changes what a chord does; a wrong colour changes how it sounds.
            weight = sum(3 if tone in (3, 4, 10, 11) else 1 for tone in tones ^ other)
            return weight, self._shape_ids[quality, 0]

        return Chord(chord.root, min(candidates, key=distance), chord.root)

    def chord(self, token: int, anchor: int) -> Chord:
        """The chord that an id says. Raises `TokenizerError` for a tag."""
        if token == self.n_chords - 1:
            return Chord(None, "", None)
        if not 0 <= token < self.n_chords:
            raise TokenizerError(f"token {token} is not a chord")
        relative, shape = divmod(token, len(self.shapes))
        quality, bass = self.shapes[shape]
        root = (relative + anchor) % 12
        return Chord(root, quality, (root + bass) % 12)

    def encode_changes(self, chords: Sequence[Chord], silent: int = 0) -> Encoded:
        """The plain form: `<song>` and a token a change. What cannot be said is said as the nearest chord.

        `silent` is the anchor where no chord sounds.
        """
        anchor = anchor_of(chords, silent)
        return Encoded((self.song_id, *(self.chord_id(self.nearest(chord), anchor) for chord in chords)), anchor)

    def encode_song(self, song: Song) -> Encoded:
        """The full form, `<end>` included. Raises `TokenizerError` for a length that no sum of lengths says."""
        anchor = anchor_of((chord for bar in song.bars for chord, _ in bar.chords), song.key.pitch_class)
        ids = self.header(song.genre, song.meter, song.key, anchor)
        running = Fraction(1)
        for section in song.sections:
            if section.label:
                ids.append(self._tag_ids[section_tag(section.label)])
            for change in merge_changes(section.bars):
                ids.append(self.chord_id(self.nearest(change.chord), anchor))
                ids.extend(self.length_tokens(change.length, running))
                running = change.length
        return Encoded((*ids, self.end_id), anchor)

    def length_tokens(self, length: Fraction, running: Fraction) -> list[int]:
        """The ids that say a length in bars after a chord: none where it is the running one."""
        return [] if length == running else [self._tag_ids[f"{part} bar"] for part in _sum_of_lengths(length)]

    def decode(self, encoded: Encoded) -> Song:
        """The song that ids say, in either form; a header that is not there is filled in (key: detected)."""
        genre, meter, key = "", Meter(), None
        sections: list[tuple[str, list[tuple[Chord, Fraction]]]] = []
        running, fresh = Fraction(1), False
        for token in encoded.ids:
            if token < self.n_chords:
                if not sections:
                    sections.append(("", []))
                sections[-1][1].append((self.chord(token, encoded.anchor), running))
                fresh = True
            elif token in self._length_ids:
                if not sections or not sections[-1][1]:
                    raise TokenizerError("a length stands before any chord")
                chord, length = sections[-1][1][-1]
                running = self._length_ids[token] + (Fraction(0) if fresh else length)
                sections[-1][1][-1], fresh = (chord, running), False
            elif token in (self.song_id, self.end_id):
                continue
            elif token >= self.vocab_size:
                raise TokenizerError(f"token {token} is not one of {self.vocab_size:,}")
            else:
                tag = self.tags[token - self.n_chords]
                if tag in GENRES:
                    genre = "" if tag == "other" else tag
                elif tag in METERS:
                    meter = Meter() if tag == "other" else Meter.parse(tag)
                elif tag.startswith("key+"):
                    tonic, _, mode = tag[4:].partition(" ")
                    key = Key.of(int(tonic) + encoded.anchor, "minor" if mode == "minor" else "major")
                else:
                    sections.append((tag, []))
        key = key or Key.detect(chord for _, changes in sections for chord, _ in changes)
        laid_out = tuple(Section(label, tuple(split_into_bars(changes))) for label, changes in sections)
        return Song("", key, laid_out, meter, genre=genre)

    def features(self) -> NDArray[np.int64]:
        """[vocab_size, 4]: for each id its relative root, quality, bass interval and relative bass, as numbers.

        Chords that share a feature share what is learnt of it; each number counts on from the last column's.
        """
        qualities = {quality: i for i, quality in enumerate(dict.fromkeys(quality for quality, _ in self.shapes))}
        rows = [
            (root, qualities[quality], bass, (root + bass) % 12) for root in range(12) for quality, bass in self.shapes
        ]
        table = np.array([*rows, *[(12, len(qualities), 12, 12)] * (self.vocab_size - len(rows))])
        sizes = table.max(axis=0) + 1
        return table + np.concatenate(([0], np.cumsum(sizes)[:-1]))

    def to_json(self) -> str:
        shapes = [f"{quality}/{bass}" for quality, bass in self.shapes]
        return json.dumps({"kind": self.kind, "version": 1, "shapes": shapes, "tags": self.tags}, indent=0) + "\n"

    @staticmethod
    def from_json(text: str) -> ChordTokenizer:
        try:
            document: dict[str, Any] = json.loads(text)
            if (document["kind"], document["version"]) != (ChordTokenizer.kind, 1):
                raise TokenizerError("its kind or version is another")
            pairs = [shape.rpartition("/") for shape in document["shapes"]]
            tokenizer = ChordTokenizer(tuple((quality, int(bass)) for quality, _, bass in pairs))
            for quality, bass in tokenizer.shapes:
                if not 0 <= bass < 12 or Chord.parse("C" + quality).quality != quality:
                    raise TokenizerError(f"{quality!r} over {bass} is not a chord shape")
            if ("", 0) not in tokenizer.shapes or len(set(tokenizer.shapes)) < len(tokenizer.shapes):
                raise TokenizerError("its shapes lack the major triad or repeat one")
            if tuple(document["tags"]) != tokenizer.tags:
                raise TokenizerError("its tags are those of another version")
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise TokenizerError(f"not a chord tokenizer: {error}") from error
        return tokenizer


def _shape(chord: Chord) -> tuple[str, int]:
    assert chord.root is not None and chord.bass is not None
    return chord.quality, (chord.bass - chord.root) % 12


@cache
def _sum_of_lengths(length: Fraction) -> tuple[Fraction, ...]:
    """The length as parts of `LENGTHS`, as few as a greedy choice finds.

    A chord that holds over a bar line lasts a/n + whole bars + b/m, with n and m the chords of the bars at its ends.
    """
    greedy = _greedy(length)
    if greedy is not None:
        return greedy
    sums = (
        (first, second)
        for n in range(2, 17)
        for a in range(1, n)
        if length > Fraction(a, n)
        and (first := _greedy(Fraction(a, n)))
        and (second := _greedy(length - Fraction(a, n)))
    )
    best = min((tuple(sorted(a + b, reverse=True)) for a, b in sums), key=len, default=None)
    if best is None:
        raise TokenizerError(f"a chord cannot last {length} of a bar")
    return best


def _greedy(length: Fraction) -> tuple[Fraction, ...] | None:
    """Longest parts first, of those that can lead to an exact sum: their denominators divide the length's."""
    parts: list[Fraction] = []
    for part in LENGTHS:
        while part <= length and length.denominator % part.denominator == 0:
            parts.append(part)
            length -= part
    return None if length else tuple(parts)
