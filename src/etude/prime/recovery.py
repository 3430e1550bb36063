"""From the notes of a song to the number: which digit each note is, and which notes were heard wrongly.

Ten notes can be given to ten digits in 3,628,800 ways. Four things tell which, and are asked in this order: an intro,
which sings the digits in order; the table that the listener gives; the comment in the file; and, where there is none of
these, the number itself. It begins as every gzip file does, so how many digits it has decides what its first digits
are: in a song of a program without any table the first nineteen notes can be read, and what they leave open is
tried. What is found is checked, never believed: the program's own checksum (CRC-32) must fit, and a wrong note makes
the number composite.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, islice, permutations
from math import gcd, log, log2, log10

from .hearing import Heard, doubtful
from .intro import scale_of, unframed
from .notes import DEFAULT_RAGA, INTONATIONS, RAGAS, Raga, frequency
from .number import PROOF_ROOM, Payload, PrimeError, decimal, decode, parse
from .primality import is_probable_prime

_GZIP = bytes.fromhex("1f8b08")  # how every gzip file begins
# First as `etude prime pack` writes it, without name and time; then without a name; then any.
_BEGINNINGS = (_GZIP + bytes(5), _GZIP + bytes(1), _GZIP)
_STRAY = 40.0  # cents that a pitch may be off
_NEARLY = 12.0  # cents a note: just and equal pitches differ by more where it matters
_LIKELIEST = 6  # of the ways to read the notes, in which wrong ones are looked for
_MAX_TABLES = 5040  # ways to give what is left of ten digits that are tried
_DOUBTS = 12  # the notes heard least surely, of which any may be wrong at once
_MAX_TRIALS = 50_000  # numbers with one digit changed that are opened
_CHANCE = 20  # a prime that is found among candidates must be so many times likelier than one by chance
_SMALL_PRIMES = 2 * 3 * 5 * 7 * 11 * 13 * 17 * 19 * 23 * 29 * 31 * 37 * 41 * 43 * 47 * 53 * 59 * 61 * 67 * 71 * 73 * 79


@dataclass(frozen=True)
class Recovered:
    """A number that was heard."""

    number: int
    digits: str
    table_from: str
    """what told which note is which digit: intro, table, comment, or number"""
    mended: int
    """how many notes were put right"""
    prime: bool
    """whether it is a probable prime; if not, a note is wrong, or a composite was sung"""
    payload: Payload | None
    """the program in it, whose checksum fits; None where it carries none"""


def recover(heard: Heard, table: str | None = None, raga: Raga | None = None) -> Recovered:
    """The number that was sung. `table` is the ten digits, commonest first; `raga` says which notes those are.

    Where a note was heard wrongly and nothing can tell which, the number is given all the same with `prime` False.
    Raises `PrimeError` where nothing tells which note is which digit.
    """
    scale = scale_of(heard.notes)
    if scale is not None:
        return _with_intro(heard, scale)
    if heard.tag is not None and not heard.tag.whole:
        raise PrimeError("a shortened song, as its file says: the rest of the number was not sung")
    best: Recovered | None = None
    for order, (source, names) in enumerate(_tables(heard, table, raga)):
        found = _recovered(heard, names, source, thorough=order < 2 or len(heard.notes) < 400)
        if source == "number" and found.payload is None:
            continue  # a guess that nothing bears out
        if found.prime:
            return found
        if best is None or (found.payload is not None) > (best.payload is not None):
            best = found
    if best is None:
        raise PrimeError(
            "nothing tells which note is which digit: no intro, no comment in the file, and the notes do not begin as "
            "a number with a program in it does, or too many are wrong; if you know the digits' order, give --table"
            + _miscounted(heard)
        )
    return best


def readings(heard: Heard, table: str, raga: Raga, sa: float | None = None) -> list[dict[int, str]]:
    """The digit of each note, by the ten digits in the order of a raga's ranks: every way in which the pitches fit the
    raga, but for those that fit worse; none where they do not.

    Sa is a pitch under which each note is within 40 cents of one of the raga's, tuned equally or justly. Ten pitches
    leave one such; two or three leave several, of which `sa` chooses, the pitch that the song says it was sung at,
    unless it was played higher or lower since.
    """
    heights = [1200 * log2(pitch) for pitch in heard.pitches]
    wanted = {
        digit: [1200 * log2(frequency(degree, 1.0, intonation)) for intonation in INTONATIONS]
        for digit, degree in zip(table, raga.degrees, strict=True)
    }
    found: dict[tuple[str, ...], tuple[float, bool]] = {}  # how far off it is in all, and whether its Sa is the song's
    for keynote in {height - places[0] for height in heights for places in wanted.values()}:
        names: list[str] = []
        total = 0.0
        for height in heights:
            strays = {digit: min(abs(height - keynote - place) for place in wanted[digit]) for digit in wanted}
            digit = min(strays, key=strays.__getitem__)
            if strays[digit] >= _STRAY or digit in names:
                break
            names.append(digit)
            total += strays[digit]
        if len(names) == len(heights):
            own = sa is not None and abs(keynote - 1200 * log2(sa)) < _STRAY
            before = found.get(tuple(names), (total, False))
            found[tuple(names)] = min(before[0], total), before[1] or own
    if any(own for _, own in found.values()):
        found = {names: each for names, each in found.items() if each[1]}
    least = min((total for total, _ in found.values()), default=0.0)
    return [
        dict(enumerate(names))
        for names, (total, _) in sorted(found.items(), key=lambda each: each[1][0])
        if total <= least + _NEARLY * len(heights)
    ]


# ---------------------------------------------------------------------------------------------- which digit is which


def _tables(heard: Heard, table: str | None, raga: Raga | None) -> Iterator[tuple[str, dict[int, str]]]:
    """Ways to read the notes, the most trustworthy first."""
    tag = heard.tag
    if table is not None:
        raga = raga or (tag.raga if tag else RAGAS[DEFAULT_RAGA])
        given = readings(heard, table, raga, tag.sa if tag else None)
        if len(given) != 1:
            fit = "fit it in more than one way, as so few do" if given else "are not its; name another by --raga"
            raise PrimeError(f"raga {raga.name}: the {len(heard.pitches)} pitches that are heard {fit}")
        yield "table", given[0]
        return
    if tag is not None:
        told = readings(heard, tag.table, tag.raga, tag.sa)
        if len(told) == 1:
            yield "comment", told[0]
    yield from (("number", names) for names in _by_beginning(heard))


def _by_beginning(heard: Heard) -> Iterable[dict[int, str]]:
    """The readings under which the number begins as a gzip file does: the likeliest few, best first.

    Where a reading opens the program it is the only one. Else those come first that make sense of a longer beginning,
    then those without a wrong note in it, then those that can be unpacked the furthest.
    """
    found: list[tuple[tuple[int, int], dict[int, str]]] = []
    tried: set[tuple[str, ...]] = set()
    for length, beginning in enumerate(_BEGINNINGS):
        for exact, names in islice(_readings(heard.notes, len(heard.pitches), beginning), _MAX_TABLES):
            key = tuple(names[number] for number in range(len(heard.pitches)))
            if key in tried:
                continue
            tried.add(key)
            number = parse(_begun(_spelt(heard.notes, names)))
            if _opened(number) is not None:
                return [names]
            found.append(((2 * length + (not exact), -_unpacked(number)), names))
    found.sort(key=lambda each: each[0])
    return [names for _, names in found[:_LIKELIEST]]


def _readings(notes: tuple[int, ...], pitches: int, beginning: bytes) -> Iterator[tuple[bool, dict[int, str]]]:
    """Digits for the notes under which a number of so many digits begins with these bytes.

    First all notes are believed (True), then all but one of those that are read so, each in turn (False).
    """
    known = first_digits(beginning, len(notes))
    for wrong in (None, *range(len(known))) if len(known) > 12 else (None,):
        names: dict[int, str] = {}
        fits = True
        for place, digit in enumerate(known):
            if place == wrong:
                continue
            number = notes[place]
            fits = names.get(number, digit) == digit and (number in names or digit not in names.values())
            if not fits:
                break
            names[number] = digit
        if not fits:
            continue
        left = [digit for digit in "0123456789" if digit not in names.values()]
        unnamed = [number for number in range(pitches) if number not in names]
        for choice in permutations(left, len(unnamed)):
            yield wrong is None, names | dict(zip(unnamed, choice, strict=True))


def first_digits(beginning: bytes, digits: int) -> str:
    """What all numbers of so many decimal digits whose bytes begin with these have in common, from the left.

    "" where there is none: a number's bytes begin with 1f for two or three lengths in ten only.
    """
    head = int.from_bytes(beginning, "big")
    more = round((digits - log10(head)) / log10(256))
    for room in (more - 1, more, more + 1):
        if room < 0:
            continue
        low, high = decimal(head << 8 * room), decimal(((head + 1) << 8 * room) - 1)
        if len(low) == len(high) == digits:
            return next((low[:i] for i in range(digits) if low[i] != high[i]), low)
    return ""


# ---------------------------------------------------------------------------------------------- which notes are wrong


def _recovered(heard: Heard, names: dict[int, str], source: str, thorough: bool) -> Recovered:
    spelt = _spelt(heard.notes, names)
    digits = _begun(spelt)
    number = parse(digits)
    payload = _opened(number)
    if payload is None and first_digits(_GZIP, len(digits)):
        repaired = _mend_member(digits, _spelt(heard.second, names), heard, thorough)
        if repaired is not None:
            number, payload = repaired, _opened(repaired)
    if source == "number" and payload is None:  # a guess that nothing bears out is not worth a test
        return Recovered(number, decimal(number).zfill(len(digits)), source, 0, False, None)
    prime = is_probable_prime(number, 0)
    if not prime and payload is not None:
        repaired = _mend_tail(number, payload, heard)
        if repaired is not None:
            number, prime, payload = repaired, True, _opened(repaired)
    said = decimal(number).zfill(len(digits))
    return Recovered(number, said, source, _differences(spelt, said), prime, payload)


def _with_intro(heard: Heard, scale: dict[int, str]) -> Recovered:
    """The number of a song that tells its table, and mends itself."""
    sung = _spelt(heard.notes, scale | dict.fromkeys(set(heard.notes) - scale.keys(), "0"))
    framed = unframed(sung)
    if framed is None:
        raise PrimeError(
            f"{len(sung):,} notes with an intro, of which more were heard wrongly than the parity notes can put right; "
            "try a better recording"
        )
    number = parse(framed.digits)
    return Recovered(number, framed.digits, "intro", framed.mended, is_probable_prime(number, 0), _opened(number))


def _mend_member(digits: str, second: str, heard: Heard, thorough: bool) -> int | None:
    """The number with a program in it that these digits are when a few of them are wrong; None if none is found.

    First any of the notes heard least surely become what else they may be; then, if `thorough`, each digit by itself
    becomes each other. The program's checksum decides: one number in four thousand million passes by chance.
    """
    number = parse(digits)
    places = doubtful(heard, _DOUBTS)
    changes = [(int(second[at]) - int(digits[at])) * int(10 ** (len(digits) - 1 - at)) for at in places]
    for count in range(1, len(changes) + 1):
        for chosen in combinations(changes, count):
            if _opened(number + sum(chosen)) is not None:
                return number + sum(chosen)
    order = doubtful(heard, len(digits)) if thorough else []
    for at in order[: _MAX_TRIALS // 9]:
        power = int(10 ** (len(digits) - 1 - at))
        for other in range(10):
            changed = number + (other - int(digits[at])) * power
            if changed != number and _opened(changed) is not None:
                return changed
    return None


def _mend_tail(number: int, payload: Payload, heard: Heard) -> int | None:
    """The prime that differs in one digit of what follows the program, which no checksum guards.

    A prime among many candidates would prove nothing, as one number in ln(N) is one: where they are too many, none is
    taken. The provable form, which ends in 0...01, leaves few.
    """
    digits, free = decimal(number), 8 * payload.free_bytes
    length = min(len(digits), len(decimal((1 << free) - 1)))
    ending = 1 << (free - PROOF_ROOM) if free > 2 * PROOF_ROOM else 1
    candidates = []
    for at in (at for at in doubtful(heard, len(digits)) if at >= len(digits) - length):
        power = int(10 ** (len(digits) - 1 - at))
        for other in range(10):
            changed = number + (other - int(digits[at])) * power
            if changed == number or changed >> free != number >> free or (changed - 1) % ending:
                continue
            candidates.append(changed)
    if _CHANCE * len(candidates) > number.bit_length() * log(2):
        return None
    return next((each for each in candidates if gcd(each, _SMALL_PRIMES) == 1 and is_probable_prime(each, 0)), None)


def _spelt(notes: Iterable[int], names: dict[int, str]) -> str:
    return "".join(names[note] for note in notes)


def _miscounted(heard: Heard) -> str:
    """What to add to a complaint where the file says how many digits it has, and there are not so many."""
    if heard.tag is None or heard.tag.digits == len(heard.notes):
        return ""
    return f" (its file says {heard.tag.digits:,} digits, and {len(heard.notes):,} notes are heard)"


def _differences(a: str, b: str) -> int:
    return sum(x != y for x, y in zip(a, b, strict=True))


def _begun(digits: str) -> str:
    """The digits, with a wrong note or two put right at the beginning, which is known."""
    known = first_digits(_BEGINNINGS[0], len(digits))
    wrong = _differences(known, digits[: len(known)])
    return known + digits[len(known) :] if len(known) > 12 and wrong <= 2 else digits


def _opened(number: int) -> Payload | None:
    with suppress(PrimeError):
        return decode(number)
    return None


def _unpacked(number: int) -> int:
    """How many bytes of the number are unpacked before an error is met."""
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    for at in range(0, len(content), 8):
        try:
            reader.decompress(content[at : at + 8], 1 << 16)
        except zlib.error:
            return at
        if reader.eof:
            return at
    return len(content)
