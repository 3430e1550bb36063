"""Chord voicings for two hands above a bass: the right tones, a clear register and little movement between chords.

A voicing is a tuple of ascending MIDI pitches. `voice` takes a whole progression, because the best place for a chord
depends on its neighbours on both sides: it is the cheapest path through all candidate voicings (dynamic programming).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from etude.music.theory import Chord

LOWEST, HIGHEST = 52, 79  # E3 to G5
MIDDLE = 64.0  # where the mean of a voicing likes to be: E4
WIDEST = 16  # semitones from the lowest to the highest voice: a tenth, the reach of a hand
# Under these pitches a second is mud (after the arrangers' "low interval limits"): semitone, then whole tone.
LOWEST_SECOND = {1: 60, 2: 57}

Voicing = tuple[int, ...]


@cache
def voiced_intervals(chord: Chord) -> tuple[int, ...]:
    """Which of `chord.intervals` sound above the bass, in semitones above the root, ascending; () for `N.C.`.

    Third (or suspension), seventh (or sixth), altered tones and the highest extension come first, then other added
    tones, then the root, and the perfect fifth last: C9 gives up its fifth, C13 also its root, which the bass has.
    """
    tones = set(chord.intervals)
    thirds = tones & {3, 4} or tones & {2, 5}
    sevenths = tones & {10, 11} or (tones & {9} if tones & {6, 7} else set())
    altered = [tone for tone in (1, 3, 8, 6) if tone in tones]
    extensions = [tone for tone in (9, 5, 2) if tone in tones]
    # A foreign bass leaves the root to the chord; a root under its own flat ninth grinds, and the bass plays it anyway.
    foreign_bass = chord.bass != chord.root
    supports = [7, 0] if 1 in tones and not foreign_bass else [0, 7]
    names = list(dict.fromkeys([*sorted(thirds)[::-1], *sorted(sevenths), *altered, *extensions[:1]]))
    wanted = dict.fromkeys([*names, *([0] if foreign_bass else []), *extensions, *supports])
    voices = 4 if len(names) + foreign_bass <= 4 else 5
    return tuple(sorted([tone for tone in wanted if tone in tones][:voices]))


def movement(before: Voicing, after: Voicing) -> float:
    """Semitones that the voices move in all; between voicings of different size, each voice goes to the nearest."""
    if not before or not after:
        return 0.0
    return float(_movements((before,), (after,))[0, 0])


def voice(chords: Sequence[Chord]) -> tuple[Voicing, ...]:
    """A voicing for each chord, () for `N.C.`; deterministic, within E3 to G5, 3 to 5 notes.

    Minimises the sum of movement, counting the top voice (which is heard as a melody) half as much again, and of the
    faults of each voicing (`_faults`). Exact, by the Viterbi algorithm (1967) over all candidates.
    """
    sounding = [chord for chord in chords if not chord.is_no_chord]
    if not sounding:
        return tuple(() for _ in chords)
    cost = _fault_row(sounding[0])  # [n]
    came_from: list[NDArray[np.intp]] = []
    for before, after in pairwise(sounding):
        total = cost[:, None] + _transition(before, after)  # [n_before, n_after]
        came_from.append(total.argmin(axis=0))
        cost = total.min(axis=0) + _fault_row(after)
    best = int(cost.argmin())
    path = [best]
    for back in reversed(came_from):
        path.append(int(back[path[-1]]))
    voiced = iter([_candidates(chord)[index] for chord, index in zip(sounding, reversed(path), strict=True)])
    return tuple(() if chord.is_no_chord else next(voiced) for chord in chords)


@cache
def _candidates(chord: Chord) -> tuple[Voicing, ...]:
    assert chord.root is not None
    places = [
        [pitch for pitch in range(LOWEST, HIGHEST + 1) if (pitch - chord.root - interval) % 12 == 0]
        for interval in voiced_intervals(chord)
    ]
    # A chord of two tones, C5, is played as three notes: one of the two is doubled.
    choices = [places] if len(places) > 2 else [[*places, extra] for extra in places]
    pitches = {tuple(sorted(voicing)) for choice in choices for voicing in product(*choice)}
    voicings = sorted(voicing for voicing in pitches if len(set(voicing)) == len(voicing))
    clear = [v for v in voicings if v[-1] - v[0] <= WIDEST and not _is_muddy(v)]
    return tuple(clear or voicings)  # no chord of the songbooks comes to the second; a symbol such as Cmaddb9add9 may


def _is_muddy(voicing: Voicing) -> bool:
    return any(low < LOWEST_SECOND.get(high - low, 0) for low, high in pairwise(voicing))


def _faults(voicing: Voicing) -> float:
    """What an arranger would dislike, in semitones of movement that it is worth to avoid it."""
    steps = [high - low for low, high in pairwise(voicing)]
    minor_ninths = sum(high - low == 13 for low in voicing for high in voicing)
    clusters = sum(first + second <= 3 for first, second in pairwise(steps))
    return (
        0.4 * abs(sum(voicing) / len(voicing) - MIDDLE)  # drifts out of the middle
        + 4.0 * minor_ninths
        + 2.0 * clusters
        + 1.5 * steps.count(1)
        + 3.0 * (steps[-1] == 1)  # a semitone under the melody
        + 0.7 * max(0, voicing[-1] - voicing[0] - 12)
        + 1.0 * sum(max(0, step - 7) for step in steps)  # a hole in the middle
    )


@cache
def _fault_row(chord: Chord) -> NDArray[np.float64]:
    return np.array([_faults(voicing) for voicing in _candidates(chord)])


@lru_cache(maxsize=4096)
def _transition(before: Chord, after: Chord) -> NDArray[np.float64]:
    old, new = _candidates(before), _candidates(after)
    tops = np.abs(np.array([v[-1] for v in old])[:, None] - np.array([v[-1] for v in new]))  # [n_old, n_new]
    total: NDArray[np.float64] = _movements(old, new) + 0.5 * tops
    return total


def _movements(before: Sequence[Voicing], after: Sequence[Voicing]) -> NDArray[np.float64]:
    old, new = np.array(before), np.array(after)  # [n_old, voices], [n_new, voices]
    if old.shape[1] == new.shape[1]:  # in order, which is the least movement there is
        total: NDArray[np.float64] = np.abs(old[:, None] - new).sum(axis=2, dtype=np.float64)
        return total
    apart = np.abs(old[:, None, :, None] - new[None, :, None, :])  # [n_old, n_new, voices_old, voices_new]
    larger = 3 if old.shape[1] < new.shape[1] else 2
    nearest: NDArray[np.float64] = apart.min(axis=5 - larger).sum(axis=2, dtype=np.float64)
    return nearest
