"""What the words of a chord text are: chords, and all that people put between them.

A word is what stands between blanks; where several make one thing (`Verse 2:`, `[Solo guitar]`), they count as one.
What begins like a chord and has no clear reading (`D4`, `Bm5-/7`) is kept apart from what is none: it is never guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from etude.music.theory import Chord, ChordError
from etude.music.theory.chord import MAX_SYMBOL_LENGTH

KINDS = {
    "chord": "chords",
    "unread": "like a chord, but with no clear reading",
    "section": "section names",
    "repeat": "repeats",
    "bar": "bar lines, dashes and other marks",
    "fingering": "fingerings",
    "tablature": "tablature",
    "other": "other words",
}
_MAX_DISTINCT = 1 << 16  # examples of a kind that are counted; of more kinds of junk nobody wants to know
_LONGEST = 4 * MAX_SYMBOL_LENGTH  # characters of a word that may be chords
_SHOWN = 40  # characters of an example

# In English, Portuguese and Spanish, the languages of most chord sites.
_NAMES = "|".join(
    (
        r"intr[oó]?(?:d(?:u[cç][aã]o)?)?|pr[eé][- ]?(?:verse|chorus|refr[aã]o)|post[- ]?chorus|verses?|verso|estrofe",
        r"chorus|refrain|refr[aã]o|coro|estribillo|hook|bridge|puente|ponte|middle|solo|riff|fill|interl[uú]d(?:e|io)",
        r"instrumental|break(?:down)?|outro|final|ending|end|coda|tag|turnaround|vamp|part[ei]?",
    )
)
_WORD = re.compile(
    rf"""(?P<section>
        \[(?!\s*[A-G][^\]\s]*\s*\])[^][\n]{{1,40}}\]                    # [Verse 1], but not the chord of [Am]
        |[(\[{{*"'-]*(?:{_NAMES})(?:\s?[A-D](?!\w))?(?:\s?(?:\d{{1,2}}|[IVX]{{1,4}}))?\.?[:)\]}}*"'-]*(?=\s|$)
        |[^\W\d_][\w'-]{{2,24}}(?:\s\d{{1,2}})?:(?=\s|$)                # any word with a colon, but no chord's length
    )
    |(?P<repeat>[(\[]?(?:[x×]\s?\d{{1,2}}|\d{{1,2}}\s?[x×]|repeat|bis)[)\]:.,]*(?=\s|$))
    |(?P<word>\S+)""",  # noqa: RUF001
    re.VERBOSE | re.IGNORECASE,
)
_FINGERING = re.compile(r"[(\[]?(?:(?=[xX]*\d)[xX\d]{6}|[xX\d]{1,2}(?:-[xX\d]{1,2}){5})[)\],]?")
_TABLATURE = re.compile(r"-{3,}")
_STRING = re.compile(r"[A-Ga-g]?[#b]?[|:]*")
_PARTS = re.compile(r"[|,;:]+|\.{2,}|-+>?|>")  # between chords without blanks, as in |G|D| or G-D-Em
_AROUND = ",.;:|*'\"~^!?_=>"
_LIKE_A_CHORD = re.compile(r"[A-G][#b♯♭]?(?:m|M|maj|Maj|min|dim|aug|sus|add|[\d#b+\-()/,°ºøΔ])*(?:/[A-G][#b]?)?")


@dataclass(frozen=True, slots=True)
class Word:
    """`kind` is one of `KINDS`; `chords` are what a word of chords says, most often one."""

    kind: str
    text: str
    chords: tuple[Chord, ...] = ()


def read_words(text: str) -> Iterator[Word]:
    """The words of a text, in order."""
    for match in _WORD.finditer(text):
        if match.lastgroup == "word":
            yield from _word(match.group())
        else:
            found = read_chords(match.group())  # `C:` is a chord and a mark
            yield Word("chord", match.group(), found) if found else Word(str(match.lastgroup), match.group())


def read_chords(word: str) -> tuple[Chord, ...]:
    """The chords that a word says, with marks around it or between them; none where it says anything else."""
    return _read_chords(word) if len(word) <= _LONGEST else ()


@lru_cache(maxsize=1 << 14)
def _read_chords(word: str) -> tuple[Chord, ...]:
    for symbol in (word, word.strip(_AROUND), _unbracketed(word.strip(_AROUND))):
        chord = _chord(symbol)
        if chord is not None:
            return (chord,)
    parts = [_unbracketed(part.strip(_AROUND)) for part in _PARTS.split(word)]
    chords = tuple(_chord(part) for part in parts if part)
    return tuple(chord for chord in chords if chord is not None) if chords and None not in chords else ()


@dataclass(slots=True)
class WordCounts:
    """How many words of each kind, of how many texts, and which came most often."""

    texts: int = 0
    words: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter() for kind in KINDS})

    def add(self, text: str) -> None:
        self.texts += 1
        for word in read_words(text):
            self.words[word.kind] += 1
            seen, shown = self.examples[word.kind], word.text[:_SHOWN]
            if shown in seen or len(seen) < _MAX_DISTINCT:
                seen[shown] += 1

    def document(self, most: int = 8) -> dict[str, Any]:
        """As JSON: of each kind the words, their share of all, and the commonest `most`."""
        total = sum(self.words.values())
        kinds = {
            kind: {
                "words": self.words[kind],
                "share": self.words[kind] / total if total else None,
                "examples": [{"text": text, "words": count} for text, count in self.examples[kind].most_common(most)],
            }
            for kind in KINDS
        }
        return {"texts": self.texts, "words": total, "kinds": kinds}


def count_words(texts: Iterable[str]) -> WordCounts:
    """Of all texts."""
    counts = WordCounts()
    for text in texts:
        counts.add(text)
    return counts


def _word(word: str) -> Iterator[Word]:
    tablature = _TABLATURE.search(word)
    if tablature:
        bar = word.find("|", 0, tablature.start())
        head = word[: bar if bar >= 0 else tablature.start()]
        chords = () if _STRING.fullmatch(head) and head[1:] not in ("b", "#") else read_chords(head)
        if chords:  # `Ab|-----|`: no string of a guitar is called so
            yield Word("chord", head, chords)
            word = word[len(head) :]
        yield Word("tablature", word)
        return
    chords = read_chords(word)
    if _FINGERING.fullmatch(word):
        yield Word("fingering", word)
    elif chords:
        yield Word("chord", word, chords)
    elif not any(character.isalnum() for character in word):
        yield Word("bar", word)
    elif _LIKE_A_CHORD.fullmatch(_unbracketed(word.strip(_AROUND))[:MAX_SYMBOL_LENGTH]):
        yield Word("unread", word)
    else:
        yield Word("other", word)


def _chord(symbol: str) -> Chord | None:
    if not symbol or len(symbol) > MAX_SYMBOL_LENGTH or (symbol[0] not in "ABCDEFG" and symbol[0] not in "Nn"):
        return None
    try:
        return Chord.parse(symbol)
    except ChordError:
        return None


def _unbracketed(word: str) -> str:
    """Without brackets that are around all of it, or whose other half is elsewhere: `(G`, `G7(9))`, `[Am]`."""
    for opening, closing in ("()", "[]", "{}"):
        more = word.count(opening) - word.count(closing)
        if word.startswith(opening) and more >= 0 and (more or word.endswith(closing)):
            word = word[1:] if more else word[1:-1]
        elif word.endswith(closing) and more < 0:
            word = word[:-1]
    return word
