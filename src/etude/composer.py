"""Where the model meets the music: chords in, a whole song out.

A form is letters: `AABA`. The prompt opens the first section and the model writes on in bars; a letter that returns
brings its bars back; a new letter begins on another chord than the sections before it, and hears only the last bars
before it, because a model that hears a whole section copies it; the last section ends on the cadence, of a few, that
the model finds likeliest. All in the model's full chord form (see `tokens.chords`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from etude.engines.array import ArrayEngine
from etude.errors import EtudeError
from etude.model import ChordModel, Prompt, as_chord, detect_key, read_prompt
from etude.music.chart import parse_progression, render_html
from etude.music.theory import Bar, Chord, Key, Meter, Section, Song, merge_changes, split_into_bars
from etude.sampling import Sampling, choose, probabilities
from etude.tokens.chords import GENRES, anchor_of, section_tag

MAX_BARS = 512
MAX_SECTIONS = 32
LETTERS = "ABCD"
DEFAULT_FORM = "AABA"
SECTION_BARS = 8
HEARD_BARS = 2
DRAFTS = 8
TEMPOS = {"jazz": 144.0, "rock": 120.0, "folk": 96.0, "carol": 92.0, "c-pop": 84.0, "standards": 120.0}
DEFAULT_GENRE, DEFAULT_TEMPO = "pop", 104.0
DEFAULT_SAMPLING = Sampling(temperature=0.9, top_p=0.92)

# Roots in semitones above the tonic, with qualities, for the bars before the last; the last bar is the tonic's.
_CADENCES: dict[str, tuple[tuple[tuple[int, str], ...], ...]] = {
    "major": (((7, ""),), ((7, "7"),), ((5, ""),), ((5, ""), (7, "")), ((2, "m7"), (7, "7")), ((10, ""),)),
    "minor": (((7, "7"),), ((7, ""),), ((5, "m"),), ((2, "m7b5"), (7, "7")), ((10, ""),), ((8, ""), (10, ""))),
}


_TONICS = {"major": ("", "maj7", "6"), "minor": ("m", "m7", "m6")}


class ComposeError(EtudeError):
    """A song that cannot be made as asked; the message says why and what to change."""


@dataclass(frozen=True, slots=True)
class Composition:
    """A song, the prompt it grew from, and what the model added: `continuation`, a change an entry."""

    song: Song
    prompt: tuple[Chord, ...]
    continuation: tuple[Chord, ...]
    seed: int
    unfamiliar: tuple[Chord, ...]

    def _repr_html_(self) -> str:
        return render_html(self.song)


def compose(
    prompt: Prompt,
    model: ChordModel,
    *,
    bars: int | None = None,
    form: str | None = None,
    chords: int | None = None,
    key: Key | str | None = None,
    tempo: float | None = None,
    meter: Meter | None = None,
    genre: str | None = None,
    sampling: Sampling = DEFAULT_SAMPLING,
    seed: int = 0,
    title: str = "",
) -> Composition:
    """Write a song from a progression.

    `form` is letters (default AABA), `bars` the song's length (default 8 a letter, more where the prompt is longer);
    `chords` instead asks for just so many changes after the prompt, a bar each, without a form. `key` says which key
    the prompt is in (default: detected), `tempo` is in quarter notes a minute. Raises `ChordError`, `ComposeError`.
    """
    changes = read_prompt(prompt)
    key = Key.parse(key) if isinstance(key, str) else key or detect_key(prompt, changes)
    genre = DEFAULT_GENRE if genre is None else genre
    if genre not in GENRES:
        raise ComposeError(f"unknown genre {genre!r}; known: {', '.join(GENRES)}")
    blank = Song(title, key, (), meter or Meter(), TEMPOS.get(genre, DEFAULT_TEMPO) if tempo is None else tempo, genre)
    if chords is not None:
        if bars is not None or form is not None:
            raise ComposeError("chords asks for changes without a form: leave bars and form out, or chords")
        if not 1 <= chords <= MAX_BARS:
            raise ComposeError(f"chords must be 1 to {MAX_BARS}, not {chords}")
        generated = model.generate(changes, chords, sampling, seed)
        written = _prompt_bars(prompt)
        song = replace(blank, sections=(Section("", (*written, *map(Bar.of, generated))),))
        return Composition(song, changes, generated, seed, model.unfamiliar(changes))
    openings, typed_form = _openings(prompt)
    plan = _plan(typed_form if form is None else form, bars, {k: len(s.bars) for k, s in openings.items()})
    writer = _Writer(model, blank, sampling, np.random.default_rng(seed))
    song = replace(blank, sections=writer.write(plan, openings))
    before = len(merge_changes(openings["A"].bars))
    continuation = tuple(change.chord for change in song.changes()[before:])
    return Composition(song, changes, continuation, seed, model.unfamiliar(changes))


def _prompt_bars(prompt: Prompt) -> tuple[Bar, ...]:
    return parse_progression(prompt).bars if isinstance(prompt, str) else tuple(Bar.of(as_chord(c)) for c in prompt)


def _openings(prompt: Prompt) -> tuple[dict[str, Section], str]:
    """What the prompt gives to each letter, its sections being A, B, ... as they come, and the form it spells."""
    if not isinstance(prompt, str):
        return {"A": Section("", _prompt_bars(prompt))}, DEFAULT_FORM
    typed = parse_progression(prompt).sections
    sections: dict[str, Section] = {}
    for section in typed:
        if sections.setdefault(section.label.casefold(), section).bars != section.bars:
            raise ComposeError(f"the section {section.label!r} stands twice with other bars; give one another name")
    if len(sections) > len(LETTERS):
        raise ComposeError(f"the prompt names {len(sections)} sections; a form has at most {len(LETTERS)}")
    letters = dict(zip(sections, LETTERS, strict=False))
    form = "".join(letters[section.label.casefold()] for section in typed)
    return {letters[label]: section for label, section in sections.items()}, form if len(typed) > 1 else DEFAULT_FORM


def _plan(form: str, bars: int | None, openings: dict[str, int]) -> list[tuple[str, int]]:
    """Letters and lengths in bars: equal shares, no section shorter than what the prompt gives to it."""
    letters = list(form.upper())
    if not letters or len(letters) > MAX_SECTIONS or not set(letters) <= set(LETTERS) or letters[0] != "A":
        raise ComposeError(
            f"a form is 1 to {MAX_SECTIONS} letters from A to D that begin with A, such as AABA, not {form!r}"
        )
    unused = sorted(set(openings) - set(letters))
    if unused:
        raise ComposeError(f"the form {form} leaves out {', '.join(unused)}, which the prompt has bars for")
    # A letter's first section holds what the prompt gives it, and the last section has a cadence's two bars beside.
    shortest = []
    for index, letter in enumerate(letters):
        given = openings.get(letter, 0) if letters.index(letter) == index else 0
        shortest.append(given + 2 if given and index == len(letters) - 1 else max(2, given))
    if bars is None:
        share = max(SECTION_BARS, -(-max(openings.values()) // 4) * 4)
        bars = sum(max(share, least) for least in shortest)
    if not 2 <= bars <= MAX_BARS:
        raise ComposeError(f"a song has 2 to {MAX_BARS} bars, not {bars}")
    if bars < sum(shortest):
        raise ComposeError(
            f"{bars} bars are too few for the form {form} and this prompt: ask for {sum(shortest)} or more, "
            "or for fewer sections"
        )
    share, rest = divmod(bars, len(letters))
    lengths = [max(least, share + (index < rest)) for index, least in enumerate(shortest)]
    while sum(lengths) > bars:  # what the prompt needs more than a share comes from the longest of the others
        spare = [length - least for length, least in zip(lengths, shortest, strict=True)]
        lengths[spare.index(max(spare))] -= 1
    return list(zip(letters, lengths, strict=True))


def _variety(bars: Sequence[Bar]) -> int:
    """How many different bars there are, less what the longest run of one bar repeats."""
    runs = [len(list(run)) for _, run in groupby(bars)]
    return len(set(bars)) - max(runs, default=1) + 1


_Draft = tuple[tuple[Bar, ...], ArrayEngine, NDArray[np.float32], Fraction]


class _Writer:
    """Writes a song section by section."""

    def __init__(self, model: ChordModel, blank: Song, sampling: Sampling, rng: np.random.Generator) -> None:
        self.tokenizer, self.blank, self.sampling, self.rng = model.tokenizer, blank, sampling, rng
        self.engine: ArrayEngine = model.engine()
        self.chord_mask = model.chord_mask
        self.anchor = 0
        self.tonics: list[Chord] = []
        self.running = Fraction(1)  # the length that holds until another is given
        self.logits: NDArray[np.float32] = np.zeros(0, np.float32)
        self.grid = Fraction(1, blank.meter.pulses)  # chords enter on beats

    def write(self, plan: Sequence[tuple[str, int]], openings: dict[str, Section]) -> tuple[Section, ...]:
        opening = openings["A"].bars
        self.anchor = anchor_of((chord for bar in opening for chord, _ in bar.chords), self.blank.key.pitch_class)
        self.tonics = self._tonics(opening)
        longest = {letter: max(length for other, length in plan if other == letter) for letter, _ in plan}
        known: dict[str, tuple[Bar, ...]] = {}
        sections: list[Section] = []
        for index, (letter, length) in enumerate(plan):
            given = openings.get(letter, Section("", ()))
            label = given.label or letter
            last = index == len(plan) - 1
            if letter in known and not last:
                sections.append(Section(label, known[letter][:length]))
                continue
            ending = min(2, length) if last else 0
            start = known.get(letter, given.bars)
            start = start[: length - ending] if last else start
            avoid = {bars[0].chords[0][0] for bars in known.values()} if not start else set()
            self._begin(label, sections[-1].bars[-HEARD_BARS:] if sections else ())
            self._hear(start)
            wanted = length if last else longest[letter]
            written = self._varied(wanted - ending, start, avoid)
            if last:
                written = (*written, *self._cadence(ending, written))
            known.setdefault(letter, written)
            sections.append(Section(label, written[:length]))
        return tuple(sections)

    def _tonics(self, opening: Sequence[Bar]) -> list[Chord]:
        """The chords to end on: the tonic as the prompt has it, or else the usual ones."""
        mode, tonic = self.blank.key.mode, self.blank.key.pitch_class
        third = 4 if mode == "major" else 3
        own = [c for bar in opening for c, _ in bar.chords if c.root == c.bass == tonic and third in c.intervals]
        return own[:1] or [self._chord_above(0, quality) for quality in _TONICS[mode]]

    def _begin(self, label: str, before: Sequence[Bar]) -> None:
        """Start afresh: the header, the last bars before, the new section's tag."""
        blank = self.blank
        self.logits = self.engine.start(self.tokenizer.header(blank.genre, blank.meter, blank.key, self.anchor))
        self.running = Fraction(1)
        self._hear(before)
        self._feed(self.tokenizer.tag_id(section_tag(label)))

    def _feed(self, token: int) -> None:
        self.logits = self.engine.step(token)

    def _hear(self, bars: Sequence[Bar]) -> None:
        """Let the engine read bars that are already decided."""
        for change in merge_changes(bars):
            self._feed(self.tokenizer.chord_id(self.tokenizer.nearest(change.chord), self.anchor))
            for token in self.tokenizer.length_tokens(change.length, self.running):
                self._feed(token)
            self.running = change.length

    def _varied(self, bars: int, start: tuple[Bar, ...], avoid: set[Chord]) -> tuple[Bar, ...]:
        """A few drafts: the first that is varied enough, half a different bar a bar, else the most varied.

        A small model likes to go round in a loop of two bars; a listener does not.
        """
        engine, logits, running = self.engine, self.logits, self.running
        best: tuple[int, _Draft] | None = None
        for _ in range(DRAFTS):
            self.engine, self.logits, self.running = engine.fork(), logits, running
            written = self._continue(bars, start, avoid)
            variety = _variety(written[len(start) :])
            if best is None or variety > best[0]:
                best = variety, (written, self.engine, self.logits, self.running)
            if 2 * variety >= bars - len(start):
                break
        assert best is not None
        written, self.engine, self.logits, self.running = best[1]
        return written

    def _continue(self, bars: int, start: tuple[Bar, ...], avoid: set[Chord]) -> tuple[Bar, ...]:
        """Chords and lengths from the model until `bars` bars are full; the first new chord is none of `avoid`."""
        changes = [(change.chord, change.length) for change in merge_changes(start)]
        room = Fraction(bars - len(start))
        while room > 0:
            allowed = self.chord_mask.copy()
            if changes:
                allowed[self.tokenizer.chord_id(self.tokenizer.nearest(changes[-1][0]), self.anchor)] = False
            for chord in avoid if not changes else ():
                allowed[self.tokenizer.chord_id(self.tokenizer.nearest(chord), self.anchor)] = False
            allowed[self.tokenizer.n_chords - 1] = False  # a song that falls silent by itself is no help
            token = choose(self.logits, self.sampling, self.rng, allowed)
            self._feed(token)
            length = self._length(room)
            changes.append((self.tokenizer.chord(token, self.anchor), length))
            room -= length
        return tuple(split_into_bars(changes))

    def _length(self, room: Fraction) -> Fraction:
        """How long the chord just written lasts: on the metre's beats, to the end of its bar or in whole bars."""
        position = -room % 1  # within the bar

        def fits_here(length: Fraction) -> bool:
            whole_bars = position == 0 and length in (1, 2)
            return length <= room and (whole_bars or (length <= 1 - position and length % self.grid == 0))

        fits = {token: length for token, length in self.tokenizer.length_ids.items() if fits_here(length)}
        tokens = [token for token, length in fits.items() if length != self.running]
        scores = self.logits[tokens].astype(np.float64)  # [options]
        if len(tokens) < len(fits):  # saying the next chord at once keeps the running length: one option, their sum
            scores = np.append(scores, np.logaddexp.reduce(self.logits[self.chord_mask].astype(np.float64)))
        option = choose(scores, self.sampling, self.rng)
        if option < len(tokens):
            self._feed(tokens[option])
            self.running = fits[tokens[option]]
        return self.running

    def _cadence(self, bars: int, before: Sequence[Bar]) -> Iterator[Bar]:
        """The ending of so many bars (1 or 2): the likeliest cadence here, with the tonic for the last bar."""
        mode, last = self.blank.key.mode, before[-1].chords[-1][0] if before else None
        approaches = [[self._chord_above(*step) for step in steps] for steps in _CADENCES[mode]] if bars > 1 else [[]]
        endings = [[*approach, tonic] for approach in approaches for tonic in self.tonics if [last] != approach[:1]]
        *approach, tonic = max(endings, key=self._likelihood)
        return iter((self._on_beats(approach), Bar.of(tonic)) if approach else (Bar.of(tonic),))

    def _on_beats(self, chords: Sequence[Chord]) -> Bar:
        """One or two chords in a bar, the first with the odd beat of an odd metre."""
        if len(chords) == 1:
            return Bar.of(chords[0])
        share = -(-self.grid.denominator // 2) * self.grid
        return Bar(((chords[0], share), (chords[1], 1 - share))) if share < 1 else Bar.of(chords[1])

    def _chord_above(self, interval: int, quality: str) -> Chord:
        root = (self.blank.key.pitch_class + interval) % 12
        return Chord(root, quality, root)

    def _likelihood(self, chords: Sequence[Chord]) -> float:
        """Mean log-probability of chords that would follow now, lengths left open."""
        engine, logits, total = self.engine.fork(), self.logits, 0.0
        for chord in chords:
            token = self.tokenizer.chord_id(self.tokenizer.nearest(chord), self.anchor)
            total += math.log(probabilities(logits, self.chord_mask)[token])
            logits = engine.step(token)
        return total / len(chords)
