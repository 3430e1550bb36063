"""What models are asked about chords, and what they answer: prompts as people write them, and suggestions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from etude.errors import EtudeError
from etude.music.chart import parse_progression
from etude.music.theory import Chord, Key

Prompt = str | Sequence[Chord | str]


def unsaid(message: str) -> None:
    """Where nobody listens to remarks."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A possible next chord. `symbol` and `numeral` are as the key has them; `probability` is over all chords."""

    chord: Chord
    symbol: str
    probability: float
    numeral: str
    reason: str


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Ranked next chords after `prompt`; `unfamiliar` are chords the model had to read as a simpler one."""

    prompt: tuple[Chord, ...]
    key: Key
    candidates: tuple[Candidate, ...]
    unfamiliar: tuple[Chord, ...]

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{c.symbol}</b></td><td>{c.numeral}</td><td>{c.probability:.1%}</td><td>{c.reason}</td></tr>"
            for c in self.candidates
        )
        heads = "".join(f"<th>{head}</th>" for head in ("chord", "numeral", "probability", "reason"))
        return f"<table><caption>{self.key}</caption><tr>{heads}</tr>{rows}</table>"


def read_prompt(prompt: Prompt) -> tuple[Chord, ...]:
    """The changes of a prompt: chords in order, immediate repeats merged."""
    chords = parse_progression(prompt).chords if isinstance(prompt, str) else tuple(map(as_chord, prompt))
    if not chords:
        raise EtudeError("the prompt has no chords; give one at least, such as C")
    return tuple(chord for i, chord in enumerate(chords) if i == 0 or chord != chords[i - 1])


def as_chord(chord: Chord | str) -> Chord:
    """A chord, or the chord that a symbol says."""
    return Chord.parse(chord) if isinstance(chord, str) else chord


def detect_key(prompt: Prompt, chords: Sequence[Chord]) -> Key:
    """The progression's key, spelled with flats where the prompt writes more of them than sharps."""
    flats = None
    if isinstance(prompt, str):
        signs = re.findall(r"(?:^|[\s|,/])[A-G]([b#♭♯])", prompt)
        n_flats = sum(sign in "b♭" for sign in signs)
        flats = 2 * n_flats > len(signs) if signs else None
    return Key.detect(chords, prefer_flats=flats)
