"""One melody of equal notes, on a staff and below it in sargam letters, drawn as SVG.

Pages of A4 stand below one another in one drawing, as many as it needs. Everything is drawn by the paths in this file:
no music font is needed to see it, and the same melody gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 794, 1123  # of a page, in pixels at 96 an inch: A4
_MARGIN, _FOOT = 56.0, 40.0
_SPACE = 6.4  # between two lines of the staff
_SYSTEM = 112.0  # from staff to staff
_FIRST_PAGE, _OTHER_PAGES = 186.0, 80.0  # where the first staff of a page begins
_SLOTS = 32  # at most so many notes stand on a staff
_LETTERS = -14.8  # the foot of the sargam letters, in steps of the staff
_INK, _PALE = "#1b1b1b", "#8a8a8a"
_NAMES = "CDEFGAB"
_SHARPS, _FLATS = "FCGDAEB", "BEADGCF"
# Steps above the staff's middle line (a B) of the signs of a key, as engravers place them in the treble clef.
_SHARP_STEPS = {"F": 4, "C": 1, "G": 5, "D": 2, "A": -1, "E": 3, "B": 0}
_FLAT_STEPS = {"B": 0, "E": 3, "A": -1, "D": 2, "G": -2, "C": 1, "F": -3}


@dataclass(frozen=True, slots=True)
class Written:
    """One note of the melody."""

    step: int
    """on the staff: 0 is its middle line, 1 the space above"""
    alter: int
    """-2 to 1: semitones from the white key of that name, as it sounds"""
    letter: str
    """its sargam letter"""
    octave: int
    """dots above the letter (below, where negative)"""
    label: str
    """what stands small below the letter"""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What stands on the pages beside the notes."""

    title: str
    lines: tuple[str, ...]
    """below the title"""
    signature: int
    """sharps of the key; flats where negative"""
    ottava: int
    """octaves that the notes sound below what is written; a small number at the clef says so"""
    groups: tuple[int, ...]
    """a cycle's groups of notes: each group has a beam, each cycle a bar line"""
    marks: tuple[str, ...]
    """what stands below each group's first note; "" for nothing"""


def draw(sheet: Sheet, notes: Sequence[Written | None]) -> Iterator[str]:
    """The lines of the drawing. A note of None is a rest."""
    cycle = sum(sheet.groups)
    per_system = cycle * max(1, _SLOTS // cycle)
    systems = max(1, -(-len(notes) // per_system))
    first = int((HEIGHT - _FOOT - _FIRST_PAGE) / _SYSTEM)
    later = int((HEIGHT - _FOOT - _OTHER_PAGES) / _SYSTEM)
    pages = 1 + max(0, -(-(systems - first) // later))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * pages}" width="{WIDTH}" '
        f'height="{HEIGHT * pages}" font-family="Georgia, \'Times New Roman\', serif" fill="{_INK}">'
    )
    yield f"<title>{escape(sheet.title)}</title>"
    yield f"<defs>{_DEFINITIONS}</defs>"
    yield f'<rect width="{WIDTH}" height="{HEIGHT * pages}" fill="white"/>'
    yield from _head(sheet)
    for page in range(pages):
        top = page * HEIGHT
        if page:
            yield f'<path d="M0 {top}H{WIDTH}" stroke="#ddd"/>'
        here = range(first) if page == 0 else range(first + (page - 1) * later, first + page * later)
        for place, system in enumerate(here):
            if system < systems:
                staff = top + (_FIRST_PAGE if page == 0 else _OTHER_PAGES) + place * _SYSTEM
                begin = system * per_system
                yield from _system(sheet, notes[begin : begin + per_system], staff, per_system, begin + 1)
        yield _text(WIDTH / 2, top + HEIGHT - 28, f"{page + 1} / {pages}", 10, "middle", _PALE)
    yield "</svg>"


def _head(sheet: Sheet) -> Iterator[str]:
    yield _text(WIDTH / 2, 74, sheet.title, 24, "middle")
    for index, line in enumerate(sheet.lines):
        yield _text(WIDTH / 2, 100 + 19 * index, line, 12, "middle", _PALE if index else _INK)


def _system(sheet: Sheet, notes: Sequence[Written | None], top: float, per_system: int, number: int) -> Iterator[str]:
    """One staff; `top` is its uppermost line."""
    middle = top + 2 * _SPACE
    signs = _signature(sheet.signature)
    begin = _MARGIN + 4.2 * _SPACE + len(signs) * 1.15 * _SPACE + 0.9 * _SPACE
    width = (WIDTH - _MARGIN - begin) / per_system
    end = begin + width * len(notes) if len(notes) < per_system else WIDTH - _MARGIN
    yield f'<g transform="translate(0 {middle:.1f})">'
    lines = "".join(f"M{_MARGIN:g} {_y(step):g}H{end:.1f}" for step in (-4, -2, 0, 2, 4))
    yield f'<path d="{lines}" stroke="{_INK}" stroke-width=".8"/>'
    yield f'<use href="#clef" x="{_MARGIN + 1.9 * _SPACE:.1f}" y="{_y(-2):g}"/>'
    if sheet.ottava:
        at = _y(-8.9) if sheet.ottava > 0 else _y(6.2)
        yield _text(_MARGIN + 2.1 * _SPACE, at, {1: "8", 2: "15"}[abs(sheet.ottava)], 9, "middle", style="italic")
    for index, (sign, step) in enumerate(signs):
        yield f'<use href="#{sign}" x="{_MARGIN + (4.4 + 1.15 * index) * _SPACE:.1f}" y="{_y(step):g}"/>'
    yield _text(_MARGIN, _y(7.5), str(number), 8, "start", _PALE)
    yield from _notes(sheet, notes, begin, width)
    yield from _bars(sheet, notes, begin, width, end)
    yield from _letters(sheet, notes, begin, width)
    yield "</g>"


def _notes(sheet: Sheet, notes: Sequence[Written | None], begin: float, width: float) -> Iterator[str]:
    """Heads, accidentals, ledger lines, stems and beams."""
    key = _altered(sheet.signature)
    heads, signs, ledgers, stems, beams = [], [], [], [], []
    said: dict[int, int] = {}  # what holds at each step of the staff until the bar line
    cycle = sum(sheet.groups)
    for start, size in _grouped(sheet.groups, len(notes)):
        if start % cycle == 0:
            said = {}
        group = [
            (begin + (start + index + 0.55) * width, note)
            for index, note in enumerate(notes[start : start + size])
            if note is not None
        ]
        for index, note in enumerate(notes[start : start + size]):
            if note is None:
                heads.append(f'<use href="#rest" x="{begin + (start + index + 0.55) * width:.1f}" y="0"/>')
        if not group:
            continue
        up = sum(note.step for _, note in group) < 0
        side = 0.56 * _SPACE * (1 if up else -1)
        tips = [_y(note.step) + (-1 if up else 1) * 3.3 * _SPACE for _, note in group]
        if len(group) == 1:
            slope, tip = 0.0, tips[0]
        else:
            rise = _y(group[-1][1].step) - _y(group[0][1].step)
            slope = max(-0.9 * _SPACE, min(0.9 * _SPACE, 0.4 * rise)) / (group[-1][0] - group[0][0])
            offsets = [at - slope * (x - group[0][0]) for (x, _), at in zip(group, tips, strict=True)]
            tip = min(offsets) if up else max(offsets)
        for x, note in group:
            y = _y(note.step)
            heads.append(f'<use href="#head" x="{x:.1f}" y="{y:g}"/>')
            holds = said.get(note.step, key.get(_NAMES[(note.step + 6) % 7], 0))
            if holds != note.alter:
                signs.append(f'<use href="#{_sign(note.alter)}" x="{x - 1.5 * _SPACE:.1f}" y="{y:g}"/>')
                said[note.step] = note.alter
            for step in [*range(6, note.step + 1, 2), *range(-6, note.step - 1, -2)]:
                ledgers.append(f"M{x - 0.95 * _SPACE:.1f} {_y(step):g}h{1.9 * _SPACE:.1f}")
            stems.append(f"M{x + side:.1f} {y:.1f}V{tip + slope * (x - group[0][0]):.1f}")
        inward = 1 if up else -1
        if len(group) == 1:
            x = group[0][0] + side
            for flag in (0, 1):
                at = tip + inward * flag * 0.85 * _SPACE
                wide, tall = 0.6 * _SPACE, inward * _SPACE
                stems.append(f"M{x:.1f} {at:.1f}q{1.5 * wide:.1f} {0.6 * tall:.1f} {wide:.1f} {1.9 * tall:.1f}")
        else:
            left, right = group[0][0] + side - 0.4, group[-1][0] + side + 0.4
            for flag in (0, 1):
                at = tip + inward * flag * 0.75 * _SPACE
                across, fall, thick = right - left, slope * (right - left), inward * 0.48 * _SPACE
                beams.append(f"M{left:.1f} {at:.1f}l{across:.1f} {fall:.1f}v{thick:.1f}l{-across:.1f} {-fall:.1f}z")
    if ledgers:
        yield f'<path d="{"".join(ledgers)}" stroke="{_INK}" stroke-width=".9"/>'
    if stems:
        yield f'<path d="{"".join(stems)}" stroke="{_INK}" stroke-width=".85" fill="none"/>'
    if beams:
        yield f'<path d="{"".join(beams)}"/>'
    yield "".join(heads + signs)


def _bars(sheet: Sheet, notes: Sequence[Written | None], begin: float, width: float, end: float) -> Iterator[str]:
    cycle = sum(sheet.groups)
    places = [begin + at * width for at in range(cycle, len(notes), cycle)] + [end]
    yield (
        f'<path d="{"".join(f"M{at:.1f} {_y(4):g}V{_y(-4):g}" for at in places)}" stroke="{_INK}" stroke-width=".9"/>'
    )
    base = _y(_LETTERS)
    inner = [begin + start * width for start, _ in _grouped(sheet.groups, len(notes)) if start]
    if inner:
        strokes = "".join(f"M{at:.1f} {base - 9:.1f}v12" for at in inner)
        yield f'<path d="{strokes}" stroke="{_PALE}" stroke-width=".6"/>'


def _letters(sheet: Sheet, notes: Sequence[Written | None], begin: float, width: float) -> Iterator[str]:
    """Sargam, its octave dots, the hand's marks, and the labels."""
    base = _y(_LETTERS)
    places = [begin + (index + 0.55) * width for index in range(len(notes))]
    letters = ["-" if note is None else note.letter for note in notes]
    yield f'<g font-size="12" text-anchor="middle">{_row(places, base, letters)}</g>'
    dots = [
        f'<circle cx="{x:.1f}" cy="{base - 11.5 - 3 * dot if note.octave > 0 else base + 4 + 3 * dot:.1f}" r="1"/>'
        for x, note in zip(places, notes, strict=True)
        if note is not None
        for dot in range(abs(note.octave))
    ]
    yield "".join(dots)
    marks = len(sheet.groups)
    for index, (start, _) in enumerate(_grouped(sheet.groups, len(notes))):
        if sheet.marks[index % marks]:
            yield _text(places[start], base + 25, sheet.marks[index % marks], 8, "middle", style="italic")
    labels = ["\u00b7" if note is None else note.label for note in notes]
    yield (
        f'<g font-size="8.5" text-anchor="middle" fill="{_PALE}" font-family="ui-monospace, monospace">'
        f"{_row(places, base + 15, labels)}</g>"
    )


def _row(places: Sequence[float], y: float, words: Sequence[str]) -> str:
    """A word at each place: one `text` each, since not all that draw SVG know lists of places."""
    return "".join(
        f'<text x="{x:.1f}" y="{y:.1f}">{escape(word)}</text>' for x, word in zip(places, words, strict=True)
    )


def _grouped(groups: Sequence[int], length: int) -> Iterator[tuple[int, int]]:
    """Where each group begins, and its size, until `length` notes are in one."""
    start, index = 0, 0
    while start < length:
        size = min(groups[index % len(groups)], length - start)
        yield start, size
        start, index = start + size, index + 1


def _y(step: float) -> float:
    """Pixels below the staff's middle line."""
    return -step * _SPACE / 2


def _signature(sharps: int) -> list[tuple[str, int]]:
    if sharps >= 0:
        return [("sharp", _SHARP_STEPS[name]) for name in _SHARPS[:sharps]]
    return [("flat", _FLAT_STEPS[name]) for name in _FLATS[:-sharps]]


def _altered(sharps: int) -> dict[str, int]:
    """What the key's signs do to the notes that they name."""
    return dict.fromkeys(_SHARPS[:sharps], 1) if sharps >= 0 else dict.fromkeys(_FLATS[:-sharps], -1)


def _sign(alter: int) -> str:
    return {-2: "double-flat", -1: "flat", 0: "natural", 1: "sharp"}[alter]


def _text(x: float, y: float, text: str, size: float, anchor: str, fill: str = _INK, style: str = "normal") -> str:
    italic = "" if style == "normal" else f' font-style="{style}"'
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}" fill="{fill}"{italic}>'
        f"{escape(text)}</text>"
    )


def _drawn(name: str, *paths: tuple[str, str]) -> str:
    """A sign from paths in units of the staff's spaces."""
    parts = "".join(f'<path d="{path}" {style}/>' for path, style in paths)
    return f'<g id="{name}"><g transform="scale({_SPACE})">{parts}</g></g>'


def _line(width: float) -> str:
    return f'fill="none" stroke="{_INK}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"'


def _disc(x: float, y: float, radius: float) -> str:
    """A filled circle as a path."""
    return f"M{x - radius:.2f} {y:.2f}" + "".join(f"a{radius} {radius} 0 1 0 {side * radius} 0" for side in (2, -2))


_FLAT = ("M-.32 -1.75V.62C.1 .3 .42 0 .42 -.28C.42 -.62 -.05 -.66 -.32 -.3", _line(0.14))
_BOWL = ("M-.32 .62C.1 .3 .5 .02 .5 -.3C.48 -.66 .2 -.62 .02 -.5C.36 -.44 .2 0 -.32 .4z", "")
_DEFINITIONS = "".join(
    (
        _drawn("head", ("M-.6 .16C-.66 -.2 -.1 -.5 .26 -.46C.6 -.42 .68 -.1 .5 .12C.28 .42 -.52 .6 -.6 .16z", "")),
        _drawn(
            "sharp",
            ("M-.22 -1.3V1.42M.22 -1.42V1.3", _line(0.11)),
            ("M-.46 -.32L.46 -.6M-.46 .6L.46 .32", _line(0.26)),
        ),
        _drawn(
            "natural",
            ("M-.26 -1.35V.66M.26 -.66V1.35", _line(0.11)),
            ("M-.26 -.38L.26 -.56M-.26 .56L.26 .38", _line(0.24)),
        ),
        _drawn("flat", _FLAT, _BOWL),
        f'<g id="double-flat"><use href="#flat" x="{-0.7 * _SPACE:g}"/><use href="#flat" x="{0.1 * _SPACE:g}"/></g>',
        _drawn(
            "rest",
            ("M.5 -.75L.02 1.6", _line(0.12)),
            ("M.48 -.7C.3 -.42 0 -.4 -.22 -.52M.28 .3C.1 .58 -.2 .6 -.42 .48", _line(0.14)),
            (_disc(-0.24, -0.62, 0.2) + _disc(-0.44, 0.38, 0.2), ""),
        ),
        _drawn(
            "clef",
            (
                "M.12 .42C-.5 .2 -.42 -.74 .3 -.8C1.3 -.86 1.42 .95 .12 1C-1.5 1.02 -1.75 -.7 -.62 -1.8"
                "C.1 -2.5 .72 -3 .62 -3.9C.54 -4.72 -.1 -4.45 -.06 -3.4"
                "C0 -2.4 .38 -.3 .56 1.5C.66 2.5 -.2 2.7 -.55 2.2",
                _line(0.17),
            ),
            ("M.3 -.8C1.3 -.86 1.42 .95 .12 1C1.02 .8 .98 -.55 .3 -.62z", ""),
            ("M.12 1C-1.5 1.02 -1.75 -.7 -.62 -1.8C-1.4 -.7 -1.2 .78 .12 1z", ""),
            ("M-.62 -1.8C.1 -2.5 .72 -3 .62 -3.9C.52 -3.2 .06 -2.72 -.56 -2z", ""),
            (_disc(-0.3, 2.05, 0.34), ""),
        ),
    )
)
