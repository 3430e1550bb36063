"""A tanpura's loop has no seam, and a tabla's strokes are short and at their pitches."""

from __future__ import annotations

import numpy as np
import pytest

from etude.music.sound import RATE
from etude.music.sound.accompaniment import stroke, tanpura
from etude.prime.notes import TALAS


def test_the_drone_is_a_loop_of_its_strings() -> None:
    loop = tanpura(147.2, 7, 4 * RATE)
    assert len(loop) == 4 * RATE
    assert np.sqrt(np.mean(loop.astype(float) ** 2)) == pytest.approx(1, abs=1e-3)
    steps = np.abs(np.diff(np.concatenate([loop, loop[:1]])))
    assert steps[-1] <= np.percentile(steps, 99), "the seam is no click"
    assert np.abs(loop).max() < 7, "no pulses that make the melody soft"
    spectrum = np.abs(np.fft.rfft(loop))
    hertz = np.fft.rfftfreq(len(loop), 1 / RATE)
    for pitch in (73.6, 147.2, 110.28):  # low Sa, Sa, Pa below it
        near = spectrum[np.abs(hertz - pitch) < 1.0].max()
        between = np.median(spectrum[np.abs(hertz - pitch) < 12])
        assert near > 5 * between, pitch


def test_every_stroke_of_every_tala_sounds_and_ends() -> None:
    names = {name for tala in TALAS.values() for beat in tala.strokes for name in beat.split("-")}
    for name in names:
        sound = stroke(name, 147.2)
        assert 0.05 < np.abs(sound).max() < 1.6, name
        assert len(sound) < RATE
        assert np.abs(sound[-20:]).max() < 0.02, name
    with pytest.raises(ValueError, match="Boom"):
        stroke("Boom", 147.2)
