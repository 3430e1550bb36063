"""A song's chords become a band: a groove for the genre and the metre, written down as a drum machine would show it.

A groove is a few lines of text that fill one bar each; a step lasts the bar divided by the number of characters, and
`|` parts bars that take turns. `.` rests and `-` holds what was struck. Chords: `X`, `x`, `o` strike the whole chord
(loud, medium, soft) and `a` to `d` one voice from the lowest up, which rings on. Bass: `R` or `r` the bass note, `F`
its fifth, `O` its octave, `w` the next note of a walk; a bass line never rests, so that it marks every change. Drums:
`X`, `x`, `o` again, a line for each drum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from random import Random
from typing import NamedTuple

from etude.music.theory import Chord, Meter, Song

from .note import Note, Part
from .voicing import Voicing, voice

# General MIDI drums.
KICK, STICK, SNARE, FLOOR_TOM, CLOSED_HAT, PEDAL_HAT, TOM, CRASH, RIDE, SHAKER = 36, 37, 38, 41, 42, 44, 47, 49, 51, 82
# General MIDI programs, counted from 0.
ELECTRIC_PIANO, STEEL_GUITAR, CLEAN_GUITAR, ACOUSTIC_BASS, FINGERED_BASS = 4, 25, 27, 32, 33

BASS_LOWEST, BASS_HIGHEST, BASS_HOME = 28, 50, 35  # E1, D3 and B1
_STRIKES = {"X": 98, "x": 80, "o": 58, "a": 84, "b": 70, "c": 76, "d": 74}
_BASS_STRIKES = {"R": 98, "r": 84, "F": 88, "O": 84, "w": 90}
_SECTION_DYNAMICS = {"chorus": 6, "bridge": 2, "intro": -6, "outro": -4, "coda": -4}
_TAP = Fraction(1, 8)  # quarters: how long a drum's note is written; what it sounds like is the drum's affair
_FLAM = Fraction(1, 4)  # quarters: a stroke so soon after a new chord would be heard as a mistake


@dataclass(frozen=True)
class Groove:
    """Lines in the notation of this module; `programs` are the General MIDI instruments of chords and bass."""

    chords: str
    bass: str
    drums: dict[int, str] = field(default_factory=dict)
    fill: tuple[int, ...] = ()
    """Drums that share the last beat before a new section or phrase."""
    crash: int = CRASH
    swing: bool = False
    programs: tuple[int, int] = (ELECTRIC_PIANO, FINGERED_BASS)


_POP = Groove(
    "X--x--x-|X--x--x-|X--x--x-|X--x-xx-",
    "R--rR-r-|R--rR-r-|R--rR-r-|R--rR-FO",
    {KICK: "X..xX...|X..xX..o", SNARE: "..X...X.", CLOSED_HAT: "xoxoxoxo"},
    (SNARE, SNARE, TOM, FLOOR_TOM),
)
_ROCK = Groove(
    "X-xxX-x-|X-xxXxx-",
    "RrrrRrrr|RrrrRrrr|RrrrRrrr|RrrrRrFO",
    {KICK: "X...XX..|X..xX...", SNARE: "..X...X.", CLOSED_HAT: "XoXoXoXo"},
    (SNARE, SNARE, TOM, FLOOR_TOM),
    programs=(CLEAN_GUITAR, FINGERED_BASS),
)
_SWING = Groove(
    "X--x----|x--x--x-|x----x--|X-.x--.o",
    "wwww",
    {
        RIDE: "x.xox.xo",
        PEDAL_HAT: "..x...x.",
        KICK: "o.o.o.o.",
        SNARE: "........|.......o|........|...o.o..",
    },
    (SNARE, SNARE),
    RIDE,
    True,
    (ELECTRIC_PIANO, ACOUSTIC_BASS),
)
_BOSSA = Groove(
    "X-.x--x-|.x--x-.x",
    "R--FR--F",
    {KICK: "x..xx..x", STICK: "x..x..x.|..x..x..", SHAKER: "xoxoxoxo"},
    (STICK, STICK),
    RIDE,
    programs=(ELECTRIC_PIANO, ACOUSTIC_BASS),
)
_FOLK = Groove(
    "acbdacbd",
    "R---F---",
    {KICK: "o...o...", STICK: "....o...", SHAKER: "xoxoxoxo"},
    (STICK, STICK),
    SHAKER,
    programs=(STEEL_GUITAR, ACOUSTIC_BASS),
)
_GENRES = (
    ("bossa", _BOSSA), ("latin", _BOSSA), ("jazz", _SWING), ("standard", _SWING), ("swing", _SWING), ("blues", _SWING),
    ("rock", _ROCK), ("folk", _FOLK), ("country", _FOLK), ("carol", _FOLK), ("classical", _FOLK), ("ballad", _FOLK),
)  # fmt: skip


def arrange(song: Song, seed: int = 0) -> tuple[Note, ...]:
    """Chords, bass and drums for the whole song, sorted by start; no note sounds after the song's last bar.

    `seed` varies velocities a little and where a walking bass goes. Every change of chord is heard: the bass marks
    where it enters, and the chords strike it unless the groove rests there and comes later. In `N.C.` only the drums
    go on. The last chord of the last bar is struck once and held to the end of that bar.
    """
    bars = song.bars
    if not bars:
        return ()
    groove, random = _groove(song), Random(seed)
    bar_length = song.meter.quarters
    total = len(bars) * bar_length
    spans = _spans(song)
    ending = max(spans[-1].start, total - bar_length)  # from here on, the final chord is held
    final = spans[-1]._replace(start=ending)
    played = [span._replace(end=min(span.end, ending)) for span in spans if span.start < ending]
    loudness = _loudness(song)
    notes = [
        *_chord_notes(groove, played, bar_length, random),
        *_bass_notes(groove, [*played, final], bar_length, random),
        *_drum_notes(groove, song, ending, random),
    ]
    notes += [Note(ending, total - ending, pitch, _STRIKES["X"] - 4, "chords") for pitch in final.voicing]
    finished = (_finish(note, total, groove.swing, loudness[int(note.start / bar_length)]) for note in notes)
    return _separate(sorted(finished, key=lambda note: (note.start, note.part, note.pitch)))


def programs(song: Song) -> tuple[int, int]:
    """The General MIDI programs, counted from 0, of the chords and the bass of this song's groove."""
    return _groove(song).programs


class _Span(NamedTuple):
    """A chord and the quarters between which it sounds."""

    start: Fraction
    end: Fraction
    chord: Chord
    voicing: Voicing


class _Hit(NamedTuple):
    start: Fraction
    end: Fraction
    symbol: str


def _spans(song: Song) -> list[_Span]:
    changes, quarters = song.changes(), song.meter.quarters
    voicings = voice([change.chord for change in changes])
    return [
        _Span(change.start * quarters, (change.start + change.length) * quarters, change.chord, voicing)
        for change, voicing in zip(changes, voicings, strict=True)
    ]


# ---------------------------------------------------------------------------------------------- which groove


def _groove(song: Song) -> Groove:
    genre, meter = song.genre.lower(), song.meter
    style = next((groove for word, groove in _GENRES if word in genre), _POP)
    if meter.pulses < meter.beats:
        return _compound(style, meter.pulses)
    if meter.quarters == 4 and meter.unit <= 4:
        return style
    if meter.quarters == 3 and meter.unit == 4:
        return _waltz(style)
    return _plain(style, meter)


def _waltz(style: Groove) -> Groove:
    drums = {KICK: "X..|x..", SNARE: ".oo", CLOSED_HAT: "xxx"}
    waltz = replace(style, chords=".x.x.-" if style is _ROCK else ".xx", bass="R--|F--", drums=drums)
    if style is _SWING:
        drums = {RIDE: "x.xox.", PEDAL_HAT: "..x...", KICK: "o....."}
        return replace(style, chords="X--x--|x--x-x", bass="www", drums=drums)
    if style is _FOLK:
        return replace(style, chords="acbdcb", bass="R--|F--", drums={KICK: "o..", SHAKER: "xoo"})
    return waltz


def _compound(style: Groove, beats: int) -> Groove:
    """6/8, 9/8, 12/8: each beat is three steps; what fills two beats is repeated, and cut where the beats are odd."""

    def fill(two_beats: str) -> str:
        return (two_beats * (beats // 2 + 1))[: 3 * beats]

    drums = {KICK: fill("X....o"), SNARE: fill("...X.."), CLOSED_HAT: fill("xooxoo")}
    if style is _FOLK:
        drums = {KICK: fill("o....."), SHAKER: fill("xooxoo")}
    elif style is _SWING:
        drums = {KICK: fill("o....."), PEDAL_HAT: fill("...x.."), RIDE: fill("x.xx.x")}
    chords = fill("acbdcb") if style is _FOLK or beats <= 2 else fill("X--x-x")
    return replace(style, chords=chords, bass=fill("R--R-r"), drums=drums, swing=False)


def _plain(style: Groove, meter: Meter) -> Groove:
    """Any other metre, as groups of two to four units: 5/4 is 3+2, 7/8 is 2+2+3, 3/2 is 2+2+2 quarters."""
    units = meter.beats * max(1, 4 // meter.unit)  # half and whole notes are counted in quarters
    left, groups = units, []
    while left > 5 or left == 4:
        groups.append(2 if meter.unit != 4 else 4)
        left -= groups[-1]
    groups += {0: [], 1: [1], 2: [2], 3: [3], 5: [3, 2] if meter.unit == 4 else [2, 3]}[left]
    line = "".join("s" + "." * (size - 1) for size in groups)  # s: a group begins
    hold = line.replace(".", "-")
    backbeat = ("X".ljust(groups[-1], ".") if len(groups) > 1 else "X" * (units > 1)).rjust(units, ".")
    cymbal = RIDE if style is _SWING else SHAKER if style is _FOLK else CLOSED_HAT
    drums = {
        KICK: ("X" + line[1 : -groups[-1]].replace("s", "x")).ljust(units, "."),
        STICK if style is _FOLK else SNARE: backbeat.lower() if style in (_FOLK, _SWING) else backbeat,
        cymbal: line.replace("s", "x").replace(".", "o"),
    }
    walks = style is _SWING and meter.unit <= 4
    return replace(
        style,
        chords=hold.replace("s", "x"),
        bass="w" * units if walks else hold.replace("s", "R"),
        drums=drums,
        swing=style.swing and meter.unit <= 4,
    )


# ---------------------------------------------------------------------------------------------- chords and bass


def _hits(lines: str, span: _Span, bar_length: Fraction) -> list[_Hit]:
    """What a groove strikes while a chord lasts. A chord that enters while the groove holds another is struck there,
    and one that the groove would pass over is struck and held."""
    patterns = lines.split("|")
    hits: list[_Hit] = []
    for bar in range(int(span.start / bar_length), -int(-span.end // bar_length)):
        pattern = patterns[bar % len(patterns)]
        step = bar_length / len(pattern)
        for start, stop, symbol in _strokes(pattern):
            hit = _Hit(bar * bar_length + start * step, bar * bar_length + stop * step, symbol)
            if hit.end > span.start and hit.start < span.end:
                hits.append(_Hit(max(hit.start, span.start), min(hit.end, span.end), symbol))
    if not hits:
        return [_Hit(span.start, span.end, "x")]
    while len(hits) > 1 and hits[1].start - hits[0].start < _FLAM:
        hits[:2] = [hits[0]._replace(end=hits[1].end)]
    return hits


def _strokes(pattern: str) -> Iterator[tuple[int, int, str]]:
    """(first step, step after the last, symbol) of each stroke in one bar of a line."""
    for index, symbol in enumerate(pattern):
        if symbol in ".-":
            continue
        stop = index + 1
        while stop < len(pattern) and pattern[stop] == "-":
            stop += 1
        yield index, stop, symbol


def _chord_notes(groove: Groove, spans: list[_Span], bar_length: Fraction, random: Random) -> Iterator[Note]:
    for span in spans:
        if not span.voicing:
            continue
        struck = [(hit, _voices(hit.symbol, span.voicing)) for hit in _hits(groove.chords, span, bar_length)]
        if {pitch for _, pitches in struck for pitch in pitches} != set(span.voicing):  # too short to be broken
            struck[0] = (struck[0][0], span.voicing)
        for stroke, pitches in struck:
            hit = stroke
            if hit.symbol in "abcd":  # rings on
                hit = hit._replace(end=min(span.end, (hit.start // bar_length + 1) * bar_length))
            for pitch in pitches:
                yield _note(hit, pitch, _STRIKES[hit.symbol], "chords", random)


def _voices(symbol: str, voicing: Voicing) -> Voicing:
    """What a symbol of the chords' line strikes; of three voices `d` is the highest, of five the highest two."""
    first = "abcd".find(symbol)
    if first < 0:
        return voicing
    return voicing[first : first + 1 if first < 3 else None] or voicing[-1:]


def _bass_notes(groove: Groove, spans: list[_Span], bar_length: Fraction, random: Random) -> Iterator[Note]:
    """The last span is the held final chord."""
    pitch, rising = BASS_HOME, True
    for index, span in enumerate(spans):
        chord = span.chord
        if chord.bass is None or chord.root is None:
            continue
        is_final = index == len(spans) - 1
        hits = [_Hit(span.start, span.end, "R")] if is_final else _hits(groove.bass, span, bar_length)
        following = None if is_final else spans[index + 1].chord.bass
        for place, hit in enumerate(hits):
            if place == 0:
                pitch = root = _nearest(chord.bass, (2 * pitch + BASS_HOME) / 3)
            elif hit.symbol == "w":
                leads = place == len(hits) - 1 and following not in (None, chord.bass)
                pitch, rising = _walk(chord, pitch, rising, following if leads else None, random)
            elif hit.symbol == "F":
                fifth = next((tone for tone in (7, 6, 8) if tone in chord.intervals), 0)
                pitch = _nearest((chord.root + fifth) % 12 if chord.bass == chord.root else chord.bass, root)
            elif hit.symbol == "O":
                pitch = root + 12 if root + 12 <= BASS_HIGHEST else root
            else:
                pitch = root
            yield _note(hit, pitch, _BASS_STRIKES.get(hit.symbol, 84), "bass", random)


def _nearest(pitch_class: int, to: float) -> int:
    octaves = [pitch for pitch in range(BASS_LOWEST, BASS_HIGHEST + 1) if pitch % 12 == pitch_class]
    return min(octaves, key=lambda pitch: abs(pitch - to))


def _walk(chord: Chord, pitch: int, rising: bool, following: int | None, random: Random) -> tuple[int, bool]:
    """The next step of a walking bass, and whether it rises: a chord tone, or before a new bass note one that leads to
    it, a semitone beside it or the fifth above it."""
    around = [other for other in range(BASS_LOWEST, BASS_HIGHEST + 1) if 0 < abs(other - pitch) <= 7]
    if following is not None:
        leading = [other for other in around if (other - following) % 12 in (1, 7, 11)]
        chosen = min(leading, key=lambda other: (abs(abs(other - pitch) - 2), other))
        return chosen, chosen > pitch
    assert chord.root is not None
    tones = [other for other in around if (other - chord.root) % 12 in chord.intervals]
    if random.random() < 0.2 or not BASS_LOWEST + 4 <= pitch <= BASS_HIGHEST - 4:
        rising = pitch < BASS_HOME + 3
    ahead = [other for other in tones if (other > pitch) == rising] or tones
    chosen = min(ahead or [pitch], key=lambda other: abs(other - pitch))
    return chosen, rising


# ---------------------------------------------------------------------------------------------- drums and finish


def _drum_notes(groove: Groove, song: Song, ending: Fraction, random: Random) -> Iterator[Note]:
    bar_length = song.meter.quarters
    beat = Fraction(12, song.meter.unit) if song.meter.pulses < song.meter.beats else Fraction(1)
    section_starts, phrase_ends = _form(song)
    for bar in range(len(song.bars)):
        start, end = bar * bar_length, (bar + 1) * bar_length
        fills = bar in phrase_ends and groove.fill and bar_length >= 2 * beat and end <= ending
        if bar in section_starts and start < ending:
            yield _tap(start, groove.crash, 92 if groove.crash == CRASH else 84, random)
        for drum, lines in groove.drums.items():
            patterns = lines.split("|")
            pattern = patterns[bar % len(patterns)]
            step = bar_length / len(pattern)
            for index, _, symbol in _strokes(pattern):
                time = start + index * step
                if time >= ending or (fills and time >= end - beat and drum != KICK):
                    continue
                if bar in section_starts and index == 0 and drum in (groove.crash, CLOSED_HAT, RIDE):
                    continue  # one cymbal is enough
                yield _tap(time, drum, _STRIKES[symbol], random)
        if fills:
            for index, drum in enumerate(groove.fill):
                yield _tap(end - beat + index * beat / len(groove.fill), drum, 66 + 6 * index, random)
    if not song.bars[-1].chords[-1][0].is_no_chord:
        yield _tap(ending, KICK, 84, random)
        yield _tap(ending, groove.crash, 74, random)


def _form(song: Song) -> tuple[set[int], set[int]]:
    """Bars where a section begins, and bars that end a section of four bars or more, or eight bars within one."""
    starts: set[int] = set()
    ends: set[int] = set()
    bar = 0
    for section in song.sections:
        if bar and section.bars:
            starts.add(bar)
        for phrase in range(8, len(section.bars) - 3, 8):
            ends.add(bar + phrase - 1)
        bar += len(section.bars)
        if len(section.bars) >= 4:
            ends.add(bar - 1)
    return starts, ends


def _loudness(song: Song) -> list[int]:
    """What to add to the velocities in each bar: a chorus is louder than an intro."""
    added: list[int] = []
    for section in song.sections:
        change = next((value for word, value in _SECTION_DYNAMICS.items() if word in section.label.lower()), 0)
        added += [change] * len(section.bars)
    return added


def _note(hit: _Hit, pitch: int, velocity: int, part: Part, random: Random) -> Note:
    return Note(hit.start, hit.end - hit.start, pitch, velocity + random.randint(-4, 4), part)


def _tap(time: Fraction, drum: int, velocity: int, random: Random) -> Note:
    return _note(_Hit(time, time + _TAP, ""), drum, velocity, "drums", random)


def _finish(note: Note, total: Fraction, swing: bool, louder: int) -> Note:
    start, end = note.start, min(note.end, total)
    if swing:
        start, end = _swung(start), _swung(end)
    return Note(start, end - start, note.pitch, min(127, max(1, note.velocity + louder)), note.part)


def _separate(notes: list[Note]) -> tuple[Note, ...]:
    """End each note where its own pitch is struck again."""
    separate: list[Note] = []
    struck: dict[tuple[Part, int], Fraction] = {}
    for note in reversed(notes):
        again = struck.get((note.part, note.pitch), note.end)
        separate.append(note if note.end <= again else replace(note, length=again - note.start))
        struck[note.part, note.pitch] = note.start
    return tuple(reversed(separate))


def _swung(time: Fraction) -> Fraction:
    """Swing as a bend of time: the first half of every quarter note takes two thirds of it."""
    beat, within = divmod(time, 1)
    return beat + (within * Fraction(4, 3) if within <= Fraction(1, 2) else (1 + 2 * within) / 3)
