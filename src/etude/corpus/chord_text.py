"""Songs as chord text: a line a song, chords and what people put between them joined by single blanks.

*Plain* is the changes alone, spelled in the song's key: `D A Bm F#m G`. *People* is how chord sites have it, in a
manner drawn anew for every song: `Intro: Adim G7/13 Em Bb (4x) [Chorus] | C | G/B | ...`, now and then with fingerings
and tablature. In every manner `Chord.parse` reads a chord as what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Literal, TypeVar

import numpy as np

from etude.music.theory import Bar, Chord, Key
from etude.tokens.chords import section_tag

from .songs import SongDocument

Style = Literal["plain", "people"]
Keys = Literal["own", "all"]
T = TypeVar("T")
_Chords = tuple[Chord, ...]  # of a bar

# What one writer makes of a family of qualities, the first being `Chord`'s own name. Which names there are, and roughly
# how often, is after the counts of words in 135,783 songs of a chord site (lluccardoner/melodyGPT, dataset/*.ipynb).
_FAMILIES: tuple[dict[str, tuple[str, ...]], ...] = (
    {"maj7": ("maj7", "7M", "M7", "Maj7"), "maj9": ("maj9", "7M/9", "M9", "Maj9")},
    {"m7b5": ("m7b5", "m7(b5)", "ø")},
    {"dim": ("dim", "°", "º"), "dim7": ("dim7", "°7", "º7")},
    {
        "9": ("9", "7/9", "7(9)"),
        "m9": ("m9", "m7/9", "m7(9)"),
        "13": ("13", "7/13", "7(13)"),
        "69": ("69", "6/9", "6(9)"),
    },
    {"sus4": ("sus4", "sus"), "7sus4": ("7sus4", "7sus")},
    {"add9": ("add9", "(add9)", "add2")},
    {"aug": ("aug", "+"), "7#5": ("7#5", "+7")},
    {
        "7b9": ("7b9", "7(b9)", "7/b9"),
        "7#9": ("7#9", "7(#9)", "7/#9"),
        "7b13": ("7b13", "7(b13)", "7/b13"),
        "7#11": ("7#11", "7(#11)", "7/#11"),
    },
)
_OWN_SHARE = 0.5  # of the writers that use `Chord`'s own names in a family
_MINORS = (("m", 18.0), ("min", 1.0), ("-", 1.0))
_SHARPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FLATS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_STRINGS = "EBGDAE"  # of a guitar, the highest first, as tablature has them
_LONGEST_UNIT = 8  # bars that are written once and played several times


@dataclass(frozen=True, slots=True)
class ChordText:
    """A song as text. `group` is what versions of one song share, so that a split can keep them on one side."""

    text: str
    title: str = ""
    artist: str = ""
    genres: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Writing:
    """The manner of one writer of chords."""

    qualities: tuple[int, ...] = (0,) * len(_FAMILIES)
    """Which of the names in each family of qualities."""
    minor: str = "m"
    names: tuple[str, ...] | None = None
    """Of the twelve roots, C first; None where the key spells them."""
    section: str = ""
    """How a section's name stands, `{}` being the name; empty where there are none."""
    case: Literal["title", "upper", "lower"] = "title"
    numbered: bool = False
    """Whether it is `Verse 2` where a song has several."""
    bar: str = ""
    """What stands before a bar: `| `, or `|` right before its chord; empty where bars are not shown."""
    between: str = " "
    """What stands between chords."""
    repeat: str = ""
    """How it is said that bars are played `{}` times; empty where they are written out."""
    fingerings: bool = False
    """Whether a fingering follows each major or minor triad where it comes first."""
    tablature: int = 0
    """So many strings of tablature stand before all."""


PLAIN = Writing()


def write_songs(
    documents: Sequence[SongDocument], style: Style = "plain", keys: Keys = "own", seed: int = 0
) -> Iterator[ChordText]:
    """Every song in its own key, or first all of them in their own and then all a semitone higher, eleven times.

    So a model of the whole never has a song and its transposition side by side. Songs stay in order. A text depends on
    the song, the key and the seed, not on the songs beside it.
    """
    for semitones in range(12 if keys == "all" else 1):
        for document in documents:
            song = document.song
            title, genre = (song.title or document.name, song.genre) if song else (document.name, "")
            writing = PLAIN if style == "plain" else draw_writing(_generator(document, semitones, seed, "manner"))
            text = write_song(document, semitones, writing, seed)
            yield ChordText(text, title, genres=genre, group=document.group)


def write_song(document: SongDocument, semitones: int = 0, writing: Writing = PLAIN, seed: int = 0) -> str:
    """The text of a song, so many semitones higher and spelled in the key it is then in."""
    key = key_of(document)
    key = key.transpose(semitones) if semitones % 12 else key  # which spells a tonic as charts mostly do
    # Where nothing shows a section, a chord that lasts into one is written once.
    in_sections = bool(writing.section or writing.bar or writing.repeat)
    if document.song and in_sections:
        sections = [(section.label, [_chords(bar) for bar in section.bars]) for section in document.song.sections]
    else:
        sections = [("", [(chord,) for chord in document.changes])]
    return _Writer(key, semitones, writing, _generator(document, semitones, seed, "junk")).write(sections)


def key_of(document: SongDocument) -> Key:
    """The key that a song says, else the likeliest."""
    return document.song.key if document.song else Key.detect(document.changes)


def draw_writing(rng: np.random.Generator) -> Writing:
    """The manner of somebody who writes chords for others, by chance."""

    def one_of(choices: Sequence[tuple[T, float]]) -> T:
        at = rng.random() * sum(weight for _, weight in choices)
        for choice, weight in choices:
            at -= weight
            if at < 0:
                return choice
        return choices[-1][0]

    def other_name(family: dict[str, tuple[str, ...]]) -> int:
        return 0 if rng.random() < _OWN_SHARE else int(rng.integers(1, min(map(len, family.values()))))

    cases: list[tuple[Literal["title", "upper", "lower"], float]] = [("title", 6.0), ("upper", 1.0), ("lower", 1.0)]
    return Writing(
        qualities=tuple(map(other_name, _FAMILIES)),
        minor=one_of(_MINORS),
        names=one_of([(None, 7.0), (_SHARPS, 2.0), (_FLATS, 1.0)]),
        section=one_of([("{}:", 6.0), ("[{}]", 3.0), ("({})", 2.0), ("{}", 1.0), ("", 4.0)]),
        case=one_of(cases),
        numbered=rng.random() < 0.5,
        bar=one_of([("", 8.0), ("| ", 1.0), ("|", 1.0)]),
        between=one_of([(" ", 19.0), (" - ", 1.0)]),
        repeat=one_of([("", 3.0), ("({}x)", 2.0), ("x{}", 2.0), ("(x{})", 1.0), ("{}x", 1.0)]),
        fingerings=rng.random() < 0.04,
        tablature=one_of([(0, 24.0), (1, 1.0), (6, 1.0)]),
    )


def fingering(chord: Chord) -> str | None:
    """How a guitarist holds a major or minor triad, the lowest string first, `x` for one that is silent: `x02210`.

    It is the shape of E or of A, whichever is nearer to the head. None for other chords.
    """
    if chord.root is None or chord.quality not in ("", "m") or chord.bass != chord.root:
        return None
    on_e, on_a = (chord.root - 4) % 12, (chord.root - 9) % 12
    third = 0 if chord.quality == "m" else 1
    if on_e <= on_a:
        return "".join(str(on_e + fret) for fret in (0, 2, 2, third, 0, 0))
    return "x" + "".join(str(on_a + fret) for fret in (0, 2, 2, 1 + third, 0))


class _Writer:
    """Words so far, of one song."""

    def __init__(self, key: Key, semitones: int, writing: Writing, rng: np.random.Generator) -> None:
        self._key, self._semitones, self._writing, self._rng = key, semitones, writing, rng
        self._words = list[str]()
        self._symbols = dict[Chord, str]()
        self._held = set[str]()  # the fingerings that were shown

    def write(self, sections: Sequence[tuple[str, Sequence[_Chords]]]) -> str:
        writing = self._writing
        self._words += [self._tablature(string) for string in _STRINGS[: writing.tablature]]
        tags = [section_tag(label) if label else "section" for label, _ in sections]
        counts, seen = Counter(tags), Counter[str]()
        # What is repeated goes back to a section's name, to a repeat before it or to the beginning: only there can a
        # repeat begin that a reader understands.
        marked = True
        for tag, (_, bars) in zip(tags, sections, strict=True):
            seen[tag] += 1
            if writing.section and tag != "section":
                self._words.append(self._name(tag, seen[tag] if counts[tag] > 1 and writing.numbered else 0))
                marked = True
            rest = bars
            while rest:
                length, times = _repeated(rest) if writing.repeat and marked else (len(rest), 1)
                self._bars(rest[:length])
                if times > 1:
                    self._words.append(writing.repeat.format(times))
                marked, rest = times > 1, rest[length * times :]
        return " ".join(self._words)

    def _bars(self, bars: Sequence[_Chords]) -> None:
        writing = self._writing
        if not writing.bar:
            self._words.append(writing.between.join(map(self._chord, _changes(bars))))
            return
        if self._words[-1:] == ["|"]:  # the line that ended the bars before begins these
            self._words.pop()
        for bar in bars:
            self._words.append(writing.bar + " ".join(map(self._chord, bar)))
        self._words.append("|")

    def _chord(self, chord: Chord) -> str:
        symbol = self._symbols.get(chord)
        if symbol is None:
            symbol = self._symbols[chord] = self._symbol(chord.transpose(self._semitones))
        if self._writing.fingerings:
            held = fingering(chord.transpose(self._semitones))
            if held and held not in self._held:
                self._held.add(held)
                return f"{symbol} {held}"
        return symbol

    def _symbol(self, chord: Chord) -> str:
        writing = self._writing
        symbol = chord.name(writing.names) if writing.names else self._key.name(chord)
        if chord.is_no_chord:
            return symbol
        root = symbol[: 2 if symbol[1:2] in ("#", "b") else 1]
        quality, bass = chord.quality, symbol[len(root) + len(chord.quality) :]
        for family, chosen in zip(_FAMILIES, writing.qualities, strict=True):
            quality = family[quality][chosen] if quality in family else quality
        if quality == "m" or (quality[:1] == "m" and quality[1:2].isdigit()):
            quality = writing.minor + quality[1:]
        return root + quality + bass

    def _name(self, tag: str, number: int) -> str:
        cased = {"title": str.title, "upper": str.upper, "lower": str.lower}[self._writing.case]
        name = f"Part {tag}" if len(tag) == 1 else cased(tag)  # a letter alone would be a chord
        return self._writing.section.format(f"{name} {number}" if number else name)

    def _tablature(self, string: str) -> str:
        frets = [str(self._rng.integers(0, 10)) if self._rng.random() < 0.15 else "-" for _ in range(24)]
        return f"{string}|--{''.join(frets)}|"


def _chords(bar: Bar) -> _Chords:
    return tuple(chord for chord, _ in bar.chords)


def _changes(bars: Sequence[_Chords]) -> list[Chord]:
    return [chord for chord, _ in groupby(chain.from_iterable(bars))]


def _repeated(bars: Sequence[_Chords]) -> tuple[int, int]:
    """How many bars from the first on are played how many times in a row; all of them once, where none are.

    It covers as many bars as can be, with a unit as short as can be; one chord that stays is no repeat.
    """
    best = (len(bars), 1)
    for length in range(1, min(_LONGEST_UNIT, len(bars) // 2) + 1):
        unit, times = bars[:length], 1
        while bars[length * times : length * (times + 1)] == unit:
            times += 1
        if times > 1 and len(_changes(unit)) > 1 and (best[1] == 1 or length * times > best[0] * best[1]):
            best = (length, times)
    return best


def _generator(document: SongDocument, semitones: int, seed: int, purpose: str) -> np.random.Generator:
    """Chance for one song in one key."""
    text = json.dumps([seed, semitones, purpose, document.group, document.name])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
