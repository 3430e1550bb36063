"""Digits and notes: which note a digit is sung on, in which raga, and at what pitch.

The ten digits are ranked by how often they stand in the number; a raga gives a note to each rank, so the commonest
digit is always Sa, the keynote. The default is the table of the first published song of a prime.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .number import PrimeError

SA = 147.2  # Hz: the D below middle C of the harmonium that the first such song was sampled from
MIN_SA, MAX_SA = 65.0, 600.0  # Hz
NOTES_A_MINUTE = 240.0  # a quarter of a second each
MIN_TEMPO, MAX_TEMPO = 20.0, 900.0  # notes a minute

Intonation = Literal["equal", "just"]
INTONATIONS: tuple[Intonation, ...] = ("equal", "just")

SWARAS = ("Sa", "komal Re", "Re", "komal Ga", "Ga", "Ma", "tivra Ma", "Pa", "komal Dha", "Dha", "komal Ni", "Ni")
# One letter each: of the two forms of a swara the capital is the higher, so m is Ma and M its tivra (sharp) form.
LETTERS = ("S", "r", "R", "g", "G", "m", "M", "P", "d", "D", "n", "N")

# What each semitone above Sa is in just intonation. There is no one canon; these are the common ratios of the primes up
# to five (Helmholtz, On the Sensations of Tone, appendix XX).
JUST = (
    (1, 1),
    (16, 15),
    (9, 8),
    (6, 5),
    (5, 4),
    (4, 3),
    (45, 32),
    (3, 2),
    (8, 5),
    (5, 3),
    (9, 5),
    (15, 8),
)


@dataclass(frozen=True, slots=True)
class Raga:
    """Ten notes of a raga, for the ten digits."""

    name: str
    degrees: tuple[int, ...]
    """semitones from Sa, for the commonest digit first"""
    about: str
    """its scale, and the notes that it dwells on"""
    drone: int
    """the tanpura's first string, in semitones above its Sa: Pa, or what stands for it where the raga has none"""

    @property
    def swaras(self) -> tuple[str, ...]:
        """The notes by name, commonest digit first; ' before a name is the octave below, after it the one above."""
        return tuple(swara(degree) for degree in self.degrees)


# Scales and the notes that a raga dwells on (vadi and samvadi, which here get the commonest digits after Sa) follow
# V. N. Bhatkhande, Hindustani Sangeet Paddhati (1909-1932). A raga is more than a scale: how it climbs, falls and
# ornaments cannot be kept by digits, and these are its ten notes only.
RAGAS: dict[str, Raga] = {
    raga.name: raga
    for raga in (
        Raga("nat-bhairav", (0, 7, 12, 2, 4, 5, 8, 11, 16, -1), "S R G m P d N: Bilawal's scale with komal Dha", 7),
        Raga("bilawal", (0, 9, 4, 7, 12, 2, 5, 11, 16, -1), "S R G m P D N, the major scale; dwells on Dha and Ga", 7),
        Raga("yaman", (0, 4, 11, 7, 2, 12, 6, 9, 14, -1), "S R G M P D N; dwells on Ga and Ni", 7),
        Raga("bhairav", (0, 8, 1, 7, 4, 5, 12, 11, 13, -1), "S r G m P d N; dwells on komal Dha and komal Re", 7),
        Raga("khamaj", (0, 4, 10, 7, 5, 12, 9, 2, 16, -1), "S R G m P D n, with N below Sa; dwells on Ga and Ni", 7),
        Raga("kafi", (0, 7, 3, 2, 5, 12, 10, 9, 14, -2), "S R g m P D n; dwells on Pa", 7),
        Raga("asavari", (0, 8, 3, 7, 5, 2, 12, 10, 15, -2), "S R g m P d n; dwells on komal Dha and komal Ga", 7),
        Raga("bhairavi", (0, 5, 7, 3, 8, 1, 12, 10, 15, -2), "S r g m P d n; dwells on Ma", 7),
        Raga("todi", (0, 8, 3, 1, 6, 12, 11, 7, 13, -1), "S r g M P d N; dwells on komal Dha and komal Ga", 7),
        Raga("marwa", (0, 1, 9, 4, 6, 11, 12, 13, -1, -3), "S r G M D N, no Pa; dwells on komal Re and Dha", 9),
        Raga("bhupali", (0, 4, 9, 7, 2, 12, 14, 16, -3, -5), "S R G P D, five notes; dwells on Ga and Dha", 7),
        Raga("durga", (0, 5, 9, 7, 2, 12, 14, 17, -3, -5), "S R m P D, five notes; dwells on Ma", 7),
        Raga("malkauns", (0, 5, 3, 8, 10, 12, 15, 17, -2, -4), "S g m d n, five notes, no Pa; dwells on Ma", 5),
    )
}
DEFAULT_RAGA = "nat-bhairav"


@dataclass(frozen=True, slots=True)
class Tala:
    """A rhythmic cycle: the drum's strokes, a beat each, in its parts."""

    name: str
    theka: tuple[tuple[str, ...], ...]
    """the strokes of each part; a beat of several has them joined by a hyphen"""
    marks: tuple[str, ...]
    """what a hand does at each part: X at the first beat, 0 for a wave, a number for a clap"""

    @property
    def strokes(self) -> tuple[str, ...]:
        """The strokes of the whole cycle."""
        return tuple(stroke for part in self.theka for stroke in part)

    @property
    def beats(self) -> int:
        return len(self.strokes)


def _tala(name: str, theka: str, marks: str) -> Tala:
    return Tala(name, tuple(tuple(part.split()) for part in theka.split("|")), tuple(marks.split()))


# The thekas as tabla players teach them (Bhatkhande; D. Courtney, Fundamentals of Tabla, 1980).
TALAS: dict[str, Tala] = {
    tala.name: tala
    for tala in (
        _tala("teental", "Dha Dhin Dhin Dha | Dha Dhin Dhin Dha | Dha Tin Tin Ta | Ta Dhin Dhin Dha", "X 2 0 3"),
        _tala("ektal", "Dhin Dhin | Dha-Ge Ti-Ra-Ki-Ta | Tun Na | Ka Ta | Dha-Ge Ti-Ra-Ki-Ta | Dhin Na", "X 0 2 0 3 4"),
        _tala("jhaptal", "Dhin Na | Dhin Dhin Na | Tin Na | Dhin Dhin Na", "X 2 0 3"),
        _tala("keherwa", "Dha Ge Na Ti | Na Ke Dhin Na", "X 0"),
        _tala("rupak", "Tin Tin Na | Dhin Na | Dhin Na", "0 1 2"),
        _tala("dadra", "Dha Dhin Na | Dha Tin Na", "X 0"),
    )
}


def ranking(digits: str) -> str:
    """The ten digits, commonest first; of equally common ones the first to appear, and digits that are missing last.

    `ranking("3390")` is "3901245678".
    """
    counts = Counter(digits)
    first = {digit: digits.find(digit) if digit in counts else len(digits) + int(digit) for digit in "0123456789"}
    return "".join(sorted("0123456789", key=lambda digit: (-counts[digit], first[digit])))


def frequency(degree: int, sa: float = SA, intonation: Intonation = "equal") -> float:
    """The pitch in Hz of a note so many semitones from Sa (which is given in Hz)."""
    if intonation == "equal":
        return float(sa * 2 ** (degree / 12))
    numerator, denominator = JUST[degree % 12]
    return float(sa * 2 ** (degree // 12) * numerator / denominator)


def swara(degree: int) -> str:
    """The name of a note so many semitones from Sa: "komal Dha", "Sa'" an octave above, "'Ni" below."""
    octave, semitone = divmod(degree, 12)
    return "'" * -octave + SWARAS[semitone] + "'" * octave


def find_raga(name: str) -> Raga:
    """The raga of that name, in any case. Raises `PrimeError` that lists those there are."""
    raga = RAGAS.get("-".join(name.lower().split()))
    if raga is None:
        raise PrimeError(f"no raga {name!r} is known; these are: {', '.join(RAGAS)}")
    return raga


def find_tala(name: str) -> Tala:
    """The tala of that name, in any case. Raises `PrimeError` that lists those there are."""
    tala = TALAS.get(name.lower())
    if tala is None:
        raise PrimeError(f"no tala {name!r} is known; these are: {', '.join(TALAS)}")
    return tala


_NOTE = re.compile(r"([A-Ga-g])([#b]?)(-?\d)")
_HZ = re.compile(r"(\d+(?:\.\d+)?)\s*(?:hz)?", re.IGNORECASE)


def parse_pitch(text: str) -> float:
    """A pitch in Hz: "147.2", "147.2 Hz", or a note such as "D3" or "Bb2", where A4 is 440 Hz. Raises `PrimeError`."""
    if match := _HZ.fullmatch(text.strip()):
        hertz = float(match[1])
        if 0 < hertz < math.inf:
            return hertz
    if match := _NOTE.fullmatch(text.strip()):
        semitone = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}[match[1].upper()]
        semitone += {"": 0, "#": 1, "b": -1}[match[2]]
        return float(440.0 * 2 ** ((semitone + 12 * int(match[3]) + 12 - 69) / 12))
    raise PrimeError(f"no pitch {text!r}; give it in Hz, such as 147.2, or as a note, such as D3")


def check_sa(sa: float) -> float:
    """The keynote, if it can be sung. Raises `PrimeError`."""
    if not MIN_SA <= sa <= MAX_SA:
        raise PrimeError(f"Sa at {sa:g} Hz cannot be sung here; {MIN_SA:g} to {MAX_SA:g} Hz can")
    return sa


def check_table(table: str) -> str:
    """The ten digits in the order of their ranks, if they are. Raises `PrimeError`."""
    if sorted(table) != list("0123456789"):
        raise PrimeError(f"no table {table!r}; give the ten digits, commonest first, such as 3092854716")
    return table


def degrees_of(digits: Sequence[str], table: str, raga: Raga) -> list[int]:
    """The notes of digits, in semitones from Sa."""
    by_digit = dict(zip(table, raga.degrees, strict=True))
    return [by_digit[digit] for digit in digits]
