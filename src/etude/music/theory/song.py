"""A song on paper: a title, a key, a metre, a tempo, and sections of bars that hold chords."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from etude.errors import EtudeError

from .chord import Chord
from .key import Key

MIN_TEMPO, MAX_TEMPO = 20.0, 400.0
_METER = re.compile(r"(\d{1,2})/(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Meter:
    """Beats in a bar, and the note value that is one beat: `Meter(6, 8)`."""

    beats: int = 4
    unit: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.beats <= 16 or self.unit not in (1, 2, 4, 8, 16):
            raise EtudeError(f"not a metre: {self.beats}/{self.unit}")

    @staticmethod
    def parse(text: str) -> Meter:
        match = _METER.fullmatch(text.strip())
        if match is None:
            raise EtudeError(f"not a metre: {text!r}; write one like 4/4 or 6/8")
        return Meter(int(match.group(1)), int(match.group(2)))

    @property
    def pulses(self) -> int:
        """The beats that are felt: the dotted ones in 6/8, 9/8 and 12/8, those of the upper number elsewhere."""
        return self.beats // 3 if self.unit >= 8 and self.beats % 3 == 0 else self.beats

    @property
    def quarters(self) -> Fraction:
        """The length of a bar in quarter notes."""
        return Fraction(self.beats * 4, self.unit)

    def __str__(self) -> str:
        return f"{self.beats}/{self.unit}"


@dataclass(frozen=True, slots=True)
class Bar:
    """Chords and the share of the bar that each takes; the shares are positive and sum to one."""

    chords: tuple[tuple[Chord, Fraction], ...]

    def __post_init__(self) -> None:
        if any(share <= 0 for _, share in self.chords) or sum(share for _, share in self.chords) != 1:
            raise EtudeError("the shares of a bar's chords must be positive and sum to one")

    @staticmethod
    def of(*chords: Chord) -> Bar:
        """A bar shared equally by its chords."""
        return Bar(tuple((chord, Fraction(1, len(chords))) for chord in chords))

    def transpose(self, semitones: int) -> Bar:
        return Bar(tuple((chord.transpose(semitones), share) for chord, share in self.chords))


@dataclass(frozen=True, slots=True)
class Section:
    """Bars under a label such as `verse`, `chorus` or `A`; the label may be empty."""

    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One chord from where it enters to where another does; `start` and `length` in bars from the song's beginning."""

    chord: Chord
    start: Fraction
    length: Fraction


@dataclass(frozen=True, slots=True)
class Song:
    """Tempo in quarter notes a minute."""

    title: str
    key: Key
    sections: tuple[Section, ...]
    meter: Meter = Meter()
    tempo: float = 120.0
    genre: str = ""

    def __post_init__(self) -> None:
        if not MIN_TEMPO <= self.tempo <= MAX_TEMPO:
            raise EtudeError(f"tempo must be {MIN_TEMPO:g} to {MAX_TEMPO:g} quarter notes a minute, not {self.tempo:g}")

    @property
    def bars(self) -> tuple[Bar, ...]:
        return tuple(bar for section in self.sections for bar in section.bars)

    @property
    def seconds(self) -> float:
        """How long the song lasts as written."""
        return float(len(self.bars) * self.meter.quarters * 60 / Fraction(self.tempo))

    def changes(self) -> tuple[Change, ...]:
        """The chords in order, each with its whole length: a chord that stays over a bar line is one change."""
        return merge_changes(self.bars)

    def transpose(self, semitones: int) -> Song:
        sections = tuple(
            Section(section.label, tuple(bar.transpose(semitones) for bar in section.bars)) for section in self.sections
        )
        return replace(self, key=self.key.transpose(semitones), sections=sections)


def merge_changes(bars: Iterable[Bar]) -> tuple[Change, ...]:
    """The chords of consecutive bars with their whole lengths; `start` counts from the first of these bars."""
    changes: list[Change] = []
    position = Fraction(0)
    for bar in bars:
        for chord, share in bar.chords:
            if changes and changes[-1].chord == chord:
                last = changes[-1]
                changes[-1] = Change(chord, last.start, last.length + share)
            else:
                changes.append(Change(chord, position, share))
            position += share
    return tuple(changes)


def split_into_bars(changes: Iterable[tuple[Chord, Fraction]]) -> Iterator[Bar]:
    """Lay chords of given lengths (in bars) out in bars; the last bar is filled up with its last chord."""
    parts: list[tuple[Chord, Fraction]] = []
    room = Fraction(1)
    for chord, length in changes:
        left = length
        while left > 0:
            share = min(left, room)
            parts.append((chord, share))
            left -= share
            room -= share
            if room == 0:
                yield Bar(tuple(parts))
                parts, room = [], Fraction(1)
    if parts:
        chord, share = parts[-1]
        parts[-1] = (chord, share + room)
        yield Bar(tuple(parts))
