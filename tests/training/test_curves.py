"""The picture of a run's loss: what it says, and that it is a function of the metrics."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from etude.training.curves import Curves

SVG = "{http://www.w3.org/2000/svg}"


def lines(steps: int, validate_every: int = 0, unit: str = "token") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        found.append({"step": step, "loss": 1 + 3 * math.exp(-step / steps * 4) + 0.1 * (-1) ** step})
        if validate_every and step % validate_every == 0:
            value = 2 + abs(step - steps / 2) / steps
            found.append({"step": step, "validation": {f"nats_per_{unit}": {"value": value, "se": 0.1}}})
    return found


def draw(metrics: list[dict[str, Any]], title: str = "classic, seed 1: 5 steps") -> str:
    curves = Curves()
    for line in metrics:
        curves.add(line)
    return curves.svg(title)


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 5000])
def test_any_run_is_a_well_formed_picture_of_bounded_size(steps: int) -> None:
    text = draw(lines(steps, 2), "a < b & c")
    root = ElementTree.fromstring(text)
    words = [element.text for element in root.iter(f"{SVG}text")]
    assert words[0] == "a < b & c"
    assert {"optimiser steps", "loss, nats"} <= set(words)
    assert "nan" not in text
    assert len(draw(lines(steps))) < 60_000


def test_points_stand_where_their_axes_say() -> None:
    """The best validation, 2 nats at step 100, lies on the grid line that is labelled so."""
    root = ElementTree.fromstring(draw(lines(200, 50)))
    places = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in root.iter(f"{SVG}circle")]
    assert len(places) == 4
    x, y = max(places, key=lambda place: place[1])
    labels = {t.text: t for t in root.iter(f"{SVG}text")}
    assert float(labels["100"].get("x", "")) == pytest.approx(x, abs=0.1)
    (two,) = [label for words, label in labels.items() if words and re.fullmatch(r"2(\.0+)?", words)]
    assert float(two.get("y", "")) - 4 == pytest.approx(y, abs=0.1)
    assert "validation, nats a token: best 2.000 at step 100" in labels
    assert any(words and words.startswith("training, nats a token: 1.0") for words in labels)


def test_chords_are_validated_in_nats_a_chord() -> None:
    assert "validation, nats a chord: best" in draw(lines(20, 5, "chord"))


def test_equal_metrics_are_equal_bytes() -> None:
    assert draw(lines(300, 20)) == draw(lines(300, 20))
    assert draw(lines(300, 20)) != draw(lines(301, 20))
