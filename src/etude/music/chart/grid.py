"""A song as a chart in plain text, to be read at a glance: four bars a row, Roman numerals below the chords."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from etude.music.theory import Bar, Song

MIN_WIDTH = 20
_MIN_CELL = 8
_REPEAT = "%"


@dataclass(frozen=True, slots=True)
class Placed:
    """A chord in its bar: its symbol and numeral in the song's key, where it enters and how long it stays (bar = 1)."""

    name: str
    numeral: str
    start: Fraction
    share: Fraction

    @property
    def width(self) -> int:
        return max(len(self.name), len(self.numeral)) + 1


Cell = tuple[Placed, ...]


def heading(song: Song) -> tuple[str, str]:
    """The title, and one line of facts: key, metre, tempo, genre, bars, duration."""
    minutes, seconds = divmod(round(song.seconds), 60)
    bars = len(song.bars)
    facts = [str(song.key), str(song.meter), f"♩ = {song.tempo:g}", " ".join(song.genre.split())]
    facts += [f"{bars} bar{'' if bars == 1 else 's'}", f"{minutes}:{seconds:02}"]
    return " ".join(song.title.split()) or "Untitled", " · ".join(fact for fact in facts if fact)


def cells(song: Song) -> list[tuple[str, list[Cell]]]:
    """Each section's label and bars; a bar like the one before it in its section is `%`."""
    return [
        (
            " ".join(section.label.split()),
            [
                (Placed(_REPEAT, "", Fraction(0), Fraction(1)),)
                if i and bar == section.bars[i - 1]
                else _cell(song, bar)
                for i, bar in enumerate(section.bars)
            ],
        )
        for section in song.sections
    ]


def render(song: Song, width: int = 80) -> str:
    """The chart, lines at most `width` characters long (only a single chord symbol that is longer goes beyond).

    Bars stand in rows of four, or of two or one where four do not fit, in columns that are aligned over the whole song;
    a chord stands where it enters in its bar. Raises `ValueError` for a width below 20.
    """
    if width < MIN_WIDTH:
        raise ValueError(f"a chart needs a width of {MIN_WIDTH} or more, not {width}")
    sections = cells(song)
    bars = [bar for _, section in sections for bar in section]
    narrowest = max((sum(chord.width for chord in bar) for bar in bars), default=_MIN_CELL)
    by_share = max((-(-chord.width // chord.share) for bar in bars for chord in bar), default=_MIN_CELL)
    # A row is `| ` and then a cell and `| ` for each bar, the last blank left out.
    room = {per_row: (width - 1) // per_row - 2 for per_row in (4, 2, 1)}
    per_row = next((n for n in (4, 2) if room[n] >= max(narrowest, _MIN_CELL)), 1)
    cell_width = min(max(by_share, narrowest, _MIN_CELL), max(room[per_row], _MIN_CELL))
    title, facts = heading(song)
    unbroken = facts.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}·\N{NO-BREAK SPACE}", " · ")
    lines = [*textwrap.wrap(title, width), *textwrap.wrap(unbroken, width)]
    for label, section in sections:
        lines.append("")
        lines += textwrap.wrap(f"[{label}]", width) if label else []
        for i in range(0, len(section), per_row):
            lines += (line for line in _row(section[i : i + per_row], cell_width) if line.strip())
    return "\n".join(line.replace("\N{NO-BREAK SPACE}", " ").rstrip() for line in lines) + "\n"


def _cell(song: Song, bar: Bar) -> Cell:
    start, placed = Fraction(0), []
    for chord, share in bar.chords:
        placed.append(Placed(song.key.name(chord), song.key.numeral(chord), start, share))
        start += share
    return tuple(placed)


def _row(bars: Sequence[Cell], width: int) -> list[str]:
    """The lines of a row of bars: two, but more where the chords of one bar do not fit beside each other."""
    if len(bars) == 1 and sum(chord.width for chord in bars[0]) > width and len(bars[0]) > 1:
        parts: list[list[Placed]] = [[]]
        for chord in bars[0]:
            if parts[-1] and sum(each.width for each in (*parts[-1], chord)) > width:
                parts.append([])
            parts[-1].append(chord)
        lines = []
        for i, part in enumerate(parts):
            names, numerals = _fill(part, width)
            lines += [("| " if i == 0 else "  ") + names + ("|" if i == len(parts) - 1 else ""), "  " + numerals]
        return lines
    filled = [_fill(bar, width) for bar in bars]
    return ["| " + "| ".join(names for names, _ in filled) + "|", "  " + "  ".join(numerals for _, numerals in filled)]


def _fill(chords: Sequence[Placed], width: int) -> tuple[str, str]:
    """Names and numerals where their chords enter, moved just as far as they must to leave room for each other."""
    names = numerals = ""
    left = sum(chord.width for chord in chords)
    for chord in chords:
        at = max(len(names), len(numerals), min(int(chord.start * width), width - left))
        names = names.ljust(at) + chord.name + " "
        numerals = numerals.ljust(at) + chord.numeral + " "
        left -= chord.width
    return names.ljust(width), numerals.ljust(width)
