"""Progressions as a songwriter types them: `D A Bm F#m`, or `[Verse] | D A | Bm . . F#m | % | |: G | A :| x3`.

A line with bar lines is read bar by bar, and the chords of a bar share it equally; in a line without any, each chord is
a bar. A label begins a new line in this sense. What has no single clear reading is a `ChordError` with its place in the
whole text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from etude.music.theory import Bar, Chord, ChordError, Section

MAX_CHORDS = 2_000
MAX_LENGTH = 200_000
MAX_REPEATS = 16
MAX_LABEL_LENGTH = 40

_TOKEN = re.compile(
    r"(?P<skip>[\s,]+|(?:->|[-–—→])(?=[\s,]|$))"  # noqa: RUF001
    r"|\[(?P<bracketed>[^][\n|]*)\]"
    r"|(?P<label>[^\W\d_][\w'-]*(?:[ ]\d{1,2})?):(?=\s|$)"
    r"|(?P<line>:?\|{1,2}:?)"
    r"|[x×](?P<times>\d{1,3})(?=[\s,|]|$)|(?P<times_before>\d{1,3})[x×](?=[\s,|]|$)"  # noqa: RUF001
    r"|(?P<beat>[./])(?=[\s,|]|:\||$)"
    r"|(?P<same>%)(?=[\s,|]|:\||$)"
    r"|(?P<chord>(?:\([^()\n|]*\)|:(?!\|)|[^\s,|:])+|.)"
)


@dataclass(frozen=True, slots=True)
class Progression:
    """What was typed, repeats played out; one section with an empty label where no label was given."""

    sections: tuple[Section, ...]

    @property
    def bars(self) -> tuple[Bar, ...]:
        return tuple(bar for section in self.sections for bar in section.bars)

    @property
    def chords(self) -> tuple[Chord, ...]:
        """The chords in order, as written: a chord that is written twice is here twice."""
        return tuple(chord for bar in self.bars for chord, _ in bar.chords)


def parse_progression(text: str) -> Progression:
    """Read chords, bars and sections.

    Between chords stand blanks, commas, newlines, or a dash or an arrow with blanks around it. In a bar, `.` or `/`
    holds the chord before for one more beat; `%` repeats the bar before; `|: :|` is played twice, or three times with
    `x3` after it; `[Verse]` or `Verse:` begins a section. Raises `ChordError` (`position` counts from 0 in `text`) for
    anything else, for a text without chords and for more than `MAX_CHORDS` chords, repeats played out.
    """
    if len(text) > MAX_LENGTH:
        raise ChordError(text, MAX_LENGTH, f"longer than {MAX_LENGTH:,} characters")
    reader = _Reader(text)
    end = -1
    for line in text.split("\n"):
        start, end = end + 1, end + 1 + len(line)
        tokens = [token for token in _TOKEN.finditer(text, start, end) if token.lastgroup != "skip"]
        labels = [i for i, token in enumerate(tokens) if token.lastgroup in ("bracketed", "label")]
        for first, past in pairwise(sorted({0, *labels, len(tokens)})):
            reader.in_bars = any(token.lastgroup == "line" for token in tokens[first:past])
            for token in tokens[first:past]:
                reader.read(token)
            reader.close_bar()
            reader.after_line = False
    return Progression(reader.finish())


@dataclass
class _Reader:
    text: str
    in_bars: bool = False
    after_line: bool = False  # a plain bar line stands right before, on this line
    beats: list[Chord] = field(default_factory=list)  # the open bar
    held: list[int] = field(default_factory=list)  # how many beats each of them holds
    bars: list[Bar] = field(default_factory=list)  # the open section
    label: tuple[str, re.Match[str]] | None = None
    sections: list[Section] = field(default_factory=list)
    last_chord: Chord | None = None
    last_bar: Bar | None = None
    repeat: tuple[int, re.Match[str]] | None = None  # where the open repeat begins, in bars
    repeated: list[Bar] = field(default_factory=list)  # the repeat that was just closed
    chords: int = 0

    def read(self, match: re.Match[str]) -> None:
        kind, symbol = match.lastgroup, match.group()
        if kind in ("bracketed", "label"):
            self.begin_section(match, " ".join(match[kind].split()))
        elif kind == "line":
            self.bar_line(match)
        elif kind in ("times", "times_before") and self.repeated:
            self.play_again(match, int(match[kind]))
        elif kind == "same":
            self.same_bar(match)
        elif kind == "beat":
            self.beat(match)
        else:
            try:
                chord = Chord.parse(symbol)
            except ChordError as error:
                position = match.start() + error.position
                raise ChordError(self.text, position, error.reason, error.suggestions, symbol) from None
            self.hold(match, chord)
        if kind not in ("line", "times", "times_before"):
            self.repeated = []
        self.after_line = kind == "line" and ":" not in symbol

    def error(self, match: re.Match[str], reason: str) -> ChordError:
        return ChordError(self.text, match.start(), reason, symbol=match.group())

    def count(self, chords: int, match: re.Match[str]) -> None:
        self.chords += chords
        if self.chords > MAX_CHORDS:
            raise self.error(match, f"more than {MAX_CHORDS:,} chords")

    def hold(self, match: re.Match[str], chord: Chord) -> None:
        """Begin a chord in the open bar; without bar lines it is the whole bar."""
        self.count(1, match)
        self.beats.append(chord)
        self.held.append(1)
        self.last_chord = chord
        if not self.in_bars:
            self.close_bar()

    def beat(self, match: re.Match[str]) -> None:
        if not self.in_bars:
            raise self.error(match, "a held beat needs bar lines around it, as in | D . . A |")
        if self.beats:
            self.held[-1] += 1
        elif self.last_chord is None:
            raise self.error(match, "no chord before it to hold")
        else:
            self.hold(match, self.last_chord)

    def same_bar(self, match: re.Match[str]) -> None:
        if self.last_bar is None:
            raise self.error(match, "no bar before it to repeat")
        rest = self.text[match.end() :].lstrip(" \t")[:1]
        if self.beats or (self.in_bars and rest not in ("", "|", ":", "\n", "\r")):
            raise self.error(match, "it stands for a whole bar, alone between its bar lines")
        self.count(len(self.last_bar.chords), match)
        self.bars.append(self.last_bar)

    def close_bar(self) -> None:
        if self.beats:
            whole = sum(self.held)
            self.last_bar = Bar(tuple((c, Fraction(n, whole)) for c, n in zip(self.beats, self.held, strict=True)))
            self.bars.append(self.last_bar)
            self.beats, self.held = [], []

    def bar_line(self, match: re.Match[str]) -> None:
        symbol = match.group()
        if self.after_line and ":" not in symbol:
            raise self.error(match, "an empty bar; write % to repeat the bar before or N.C. for silence")
        self.close_bar()
        if symbol.startswith(":"):
            if self.repeat is None or self.repeat[0] == len(self.bars):
                raise self.error(match, "no repeat is open here; it begins with |:")
            self.repeated, self.repeat = self.bars[self.repeat[0] :], None
            self.play_again(match, 2)
        if symbol.endswith(":"):
            if self.repeat is not None:
                raise self.error(match, "the repeat before is still open; it ends with :|")
            self.repeat = (len(self.bars), match)

    def play_again(self, match: re.Match[str], times: int) -> None:
        """Play the bars that were just repeated `times` times in all."""
        if not 1 <= times <= MAX_REPEATS:
            raise self.error(match, f"a repeat is played 1 to {MAX_REPEATS} times")
        if match.lastgroup != "line":  # `:|` has played them twice already
            del self.bars[-len(self.repeated) :]
            self.chords -= sum(len(bar.chords) for bar in self.repeated)
        self.count((times - 1) * sum(len(bar.chords) for bar in self.repeated), match)
        self.bars += self.repeated * (times - 1)
        if match.lastgroup != "line":
            self.repeated = []

    def begin_section(self, match: re.Match[str], label: str) -> None:
        if not label or len(label) > MAX_LABEL_LENGTH:
            raise self.error(match, f"a section's label has 1 to {MAX_LABEL_LENGTH} characters")
        if len(label) > 1 and _is_chord(label):
            raise self.error(match, f"a label that is also a chord; write {label} alone for the chord")
        self.end_section()
        self.label = (label, match)

    def end_section(self) -> None:
        self.close_bar()
        if self.repeat is not None:
            raise self.error(self.repeat[1], "this repeat is not closed in its section; it ends with :|")
        if self.label is not None and not self.bars:
            raise self.error(self.label[1], "no chords in this section")
        if self.bars:
            self.sections.append(Section(self.label[0] if self.label else "", tuple(self.bars)))
            self.bars = []

    def finish(self) -> tuple[Section, ...]:
        self.end_section()
        if not self.sections:
            raise ChordError(self.text, 0, "no chords in it; write some, as in D A Bm F#m")
        return tuple(self.sections)


def _is_chord(text: str) -> bool:
    try:
        Chord.parse(text)
    except ChordError:
        return False
    return True
