"""The intro and the outro of a song: what lets a listener who knows nothing read it, and put wrong notes right.

    intro    the ten digits in order, and back again; how many digits follow (6); their check (10); that of both (2)
    song     the digits
    outro    Reed-Solomon parity of the digits: 64 notes for each 3,021 digits or part of them

No number begins like an intro: it would have each of ten notes once, and then the same ten backwards.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from .parity import mended, parity_digits, parity_length

SCALE = "0123456789"
INTRO_NOTES = 38


@dataclass(frozen=True, slots=True)
class Framed:
    """What stood between an intro and an outro."""

    digits: str
    mended: int
    """how many digits were put right"""


def framed(digits: str) -> str:
    """The digits of intro, song and outro."""
    facts = f"{len(digits):06d}{zlib.crc32(digits.encode()):010d}"
    return SCALE + SCALE[::-1] + facts + _check(facts) + digits + parity_digits(digits)


def scale_of(notes: Sequence[int]) -> dict[int, str] | None:
    """The digit of each note, from an intro's first twenty notes, two of which may be wrong; None without an intro."""
    if len(notes) < 20:
        return None
    pairs = list(zip(notes[:10], notes[19:9:-1], strict=True))  # each digit's note, sung upwards and downwards
    sure = {up for up, down in pairs if up == down}
    wrong = [at for at, (up, down) in enumerate(pairs) if up != down]
    if len(wrong) > 2 or len(sure) + len(wrong) != 10:
        return None
    found = [up for up, _ in pairs]
    for at in wrong:  # of the two notes, the one that no other digit has
        left = set(pairs[at]) - sure - {found[other] for other in wrong if other < at}
        if len(left) != 1:
            return None
        (found[at],) = left
    return dict(zip(found, SCALE, strict=True)) if len(set(found)) == 10 else None


def unframed(sung: str) -> Framed | None:
    """The digits of a song that was sung with an intro, wrong ones put right; None where there are too many.

    `sung` is everything that was heard, the twenty notes of the scale too.
    """
    facts, check = sung[20:36], sung[36:38]
    rest = sung[INTRO_NOTES:]
    length, told = int(facts[:6] or "0"), int(facts[6:] or "0")
    if _check(facts) != check:  # so the length is in doubt: what was heard may tell it as well
        length = next((n for n in range(len(rest), 0, -1) if n + parity_length(n) == len(rest)), 0)
    if length == 0 or len(rest) < length + parity_length(length):
        return None
    heard = rest[:length]
    digits = mended(heard, rest[length : length + parity_length(length)])
    if digits is None:
        return None
    if _check(facts) == check and zlib.crc32(digits.encode()) != told:
        return None
    return Framed(digits, sum(a != b for a, b in zip(heard, digits, strict=True)))


def _check(facts: str) -> str:
    return f"{int(facts or '0') % 97:02d}"
