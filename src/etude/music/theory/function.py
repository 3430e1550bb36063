"""What a chord does in a key after the chord before it, in a few words a songwriter uses."""

from __future__ import annotations

from .chord import Chord
from .key import Key

_MAJOR_DEGREES = {
    0: "tonic", 2: "supertonic", 4: "mediant", 5: "subdominant", 7: "dominant", 9: "submediant", 11: "leading tone",
}  # fmt: skip
_MINOR_DEGREES = {
    0: "tonic", 2: "supertonic", 3: "mediant", 5: "subdominant", 7: "dominant", 8: "submediant", 10: "subtonic",
}  # fmt: skip
_MOTIONS = {
    1: "up a half step", 2: "up a step", 3: "up a minor third", 4: "up a major third", 5: "down a fifth",
    6: "across a tritone", 7: "up a fifth", 8: "down a major third", 9: "down a minor third", 10: "down a step",
    11: "down a half step",
}  # fmt: skip


def describe(chord: Chord, previous: Chord | None, key: Key) -> str:
    """The chord's role in the key, then how its root moves from `previous`: `subdominant; root up a half step`."""
    if chord.root is None:
        return "silence"
    motion = ""
    if previous is not None and previous.root is not None:
        steps = (chord.root - previous.root) % 12
        motion = f"root {_MOTIONS[steps]}" if steps else "same root"
        shared = len(chord.pitch_classes & previous.pitch_classes)
        if steps and shared >= 2:
            motion += f", {shared} notes shared"
    role = _role(chord, key)
    return f"{role}; {motion}" if motion else role


def _role(chord: Chord, key: Key) -> str:
    """Why the chord is here: by its degree, as a dominant of another, from the parallel key, or outside the key."""
    assert chord.root is not None
    interval = (chord.root - key.pitch_class) % 12
    degrees = _MAJOR_DEGREES if key.mode == "major" else _MINOR_DEGREES
    major_third = 4 in chord.intervals
    seventh = 10 in chord.intervals
    if key.contains(chord):
        role = degrees.get(interval, "diatonic")
        return f"{role} in first inversion" if _is_inversion(chord) else role
    if interval == 7 and major_third:
        return "dominant"
    if interval == 5 and seventh and major_third:
        return "subdominant seventh, as in the blues"
    if interval == 0 and major_third and key.mode == "major":
        return "dominant of the subdominant" if seventh else "tonic, coloured"
    if chord.intervals[:2] == (0, 3) and 6 in chord.intervals and 7 not in chord.intervals:
        target = (interval + 1) % 12
        return f"leads up to the {degrees[target]}" if target in degrees else "passing diminished"
    # A major triad or dominant seventh a fifth above a degree of the key leads to it; with a seventh, from a half step
    # above as well.
    parallel = Key.of(key.pitch_class, "minor" if key.mode == "major" else "major")
    if major_third and not seventh and parallel.contains(chord):
        return f"borrowed from the parallel {parallel.mode}"
    if major_third and 11 not in chord.intervals:
        target = (interval + 5) % 12
        if target in degrees and target not in (0, 11) and (seventh or interval in (2, 4, 9, 11)):
            return f"dominant of the {degrees[target]}"
        if seventh and interval not in degrees and (interval - 1) % 12 in degrees:
            return f"tritone substitute, falls to the {degrees[(interval - 1) % 12]}"
    if parallel.contains(chord):
        return f"borrowed from the parallel {parallel.mode}"
    if interval in degrees:
        return f"{degrees[interval]}, coloured"
    return "outside the key"


def _is_inversion(chord: Chord) -> bool:
    assert chord.root is not None and chord.bass is not None
    return (chord.bass - chord.root) % 12 in (3, 4)
