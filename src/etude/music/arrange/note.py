"""A note to play: the one value that arranging makes and that sound and scores read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

Part = Literal["chords", "bass", "drums"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True)
class Note:
    """Start and length in quarter notes, exact; MIDI pitch 0 to 127 (60 is middle C, in drums a General MIDI drum);
    velocity 1 to 127."""

    start: Fraction
    length: Fraction
    pitch: int
    velocity: int
    part: Part

    def __post_init__(self) -> None:
        if self.start < 0 or self.length <= 0:
            raise ValueError(f"a note starts at 0 or later and lasts, not {self.start} for {self.length} quarters")
        if not (0 <= self.pitch <= 127 and 1 <= self.velocity <= 127):
            raise ValueError(f"pitch must be 0 to 127 and velocity 1 to 127, not {self.pitch} and {self.velocity}")
        if self.part not in PARTS:
            raise ValueError(f"a note's part is one of {', '.join(PARTS)}, not {self.part!r}")

    @property
    def end(self) -> Fraction:
        """Where it stops, in quarter notes."""
        return self.start + self.length
