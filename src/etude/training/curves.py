"""`loss.svg`: how a run's loss fell, drawn from its metrics alone, so that equal metrics give equal bytes.

Drawn here and not by a library, because every run has one, also where the core install trains, and because a second at
every validation would be too much.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOSS_SVG = "loss.svg"
_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 20, 46, 54  # margins of the frame
_COLUMNS = 600  # the curve is told by so many points at most
_SMOOTHED = 50  # a smoothed point is the mean of a fiftieth of the run, at its end

Floats = NDArray[np.float64]


class Curves:
    """The losses and validations of a run so far, from the lines of its metrics."""

    def __init__(self) -> None:
        self._steps, self._losses = array("q"), array("d")  # of millions of steps a list would be large
        self._validated: list[tuple[int, float]] = []
        self._unit = "token"

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in one line of `metrics.jsonl`."""
        if "loss" in line:
            self._steps.append(line["step"])
            self._losses.append(line["loss"])
        document = line.get("validation", {})
        for unit in ("token", "chord"):
            if f"nats_per_{unit}" in document:
                self._validated.append((line["step"], document[f"nats_per_{unit}"]["value"]))
                self._unit = unit

    def svg(self, title: str) -> str:
        """The picture, a whole SVG document. Training loss faint as it was and as a line smoothed, validations as dots.

        A smoothed point is the mean of the newest 1/50 of all steps up to it.
        """
        steps, losses = np.array(self._steps, np.float64), np.array(self._losses, np.float64)  # [n] each
        validated = np.array(self._validated, np.float64).reshape(-1, 2)  # [m, 2]
        if not len(steps):
            steps, losses = np.array([0.0]), np.array([0.0])
        x_ticks = _ticks(0, float(steps[-1]))
        smooth = _smooth(losses)
        # One loss that is far off must not flatten all others, and the first is often far above what follows.
        seen = np.concatenate([np.quantile(losses, [0.002, 0.998]), smooth, validated[:, 1]])
        y_ticks = _ticks(float(seen.min()), float(seen.max()))
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * steps / x_ticks[-1]
        bottom, top = y_ticks[0], y_ticks[-1]

        def height(values: Floats) -> Floats:
            share = (np.clip(values, bottom, top) - bottom) / (top - bottom)
            return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

        parts = [_frame(x_ticks, y_ticks, title)]
        low, high, at = _ranges(x, height(losses))
        outline = [*zip(at, high, strict=True), *reversed([*zip(at, low, strict=True)])]
        parts.append(f'<path d="{_path(outline)}Z" fill="#4878a8" fill-opacity="0.25" stroke="#4878a8" '
                     'stroke-opacity="0.3" stroke-width="1"/>')  # fmt: skip
        every = max(1, len(x) // _COLUMNS)
        kept = np.unique(np.append(np.arange(0, len(x), every), len(x) - 1))
        line = _path([*zip(x[kept], height(smooth)[kept], strict=True)])
        parts.append(f'<path d="{line}" fill="none" stroke="#2b5c8a" stroke-width="1.8"/>')
        legend = [("#2b5c8a", f"training, nats a token: {smooth[-1]:.3f}")]
        if len(validated):
            at_x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * validated[:, 0] / x_ticks[-1]
            dots = [*zip(at_x, height(validated[:, 1]), strict=True)]
            parts.append(f'<path d="{_path(dots)}" fill="none" stroke="#c25a1c" stroke-opacity="0.5"/>')
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.2" fill="#c25a1c"/>' for a, b in dots]
            best = int(validated[:, 1].argmin())
            said = f"{validated[best, 1]:.3f} at step {int(validated[best, 0]):,}"
            legend.append(("#c25a1c", f"validation, nats a {self._unit}: best {said}"))
        for row, (colour, words) in enumerate(legend):
            place = _TOP + 18 + 19 * row
            parts.append(
                f'<rect x="{_WIDTH - _RIGHT - 292}" y="{place - 9}" width="11" height="11" fill="{colour}"/>'
                f'<text x="{_WIDTH - _RIGHT - 274}" y="{place + 1}">{words}</text>'
            )
        return "\n".join([*parts, "</svg>", ""])


def _frame(x_ticks: Sequence[float], y_ticks: Sequence[float], title: str) -> str:
    """The empty picture: title, axes with their units, ticks and a grid."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="26" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for value in y_ticks:
        y = bottom - (bottom - _TOP) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#e4e4e4"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(value, y_ticks)}</text>')
    for value in x_ticks:
        x = _LEFT + (right - _LEFT) * value / x_ticks[-1]
        lines.append(f'<path d="M{x:.1f} {bottom}v5" stroke="#333"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{_number(value, x_ticks)}</text>')
    lines += [
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#333"/>',
        f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 14}" text-anchor="middle">optimiser steps</text>',
        f'<text transform="translate(18 {(_TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">loss, nats</text>',
    ]
    return "\n".join(lines)


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers, from at most `low` to at least `high`."""
    span = max(high - low, 1e-3 * max(1.0, abs(high)))
    size = 10 ** math.floor(math.log10(span / 4))
    size = next(size * factor for factor in (1, 2, 2.5, 5, 10) if span / (size * factor) <= 6)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [size * number for number in range(first, max(last, first + 1) + 1)]


def _number(value: float, ticks: Sequence[float]) -> str:
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    whole = round((ticks[1] - ticks[0]) * 10**digits, 6) % 1 == 0
    return f"{value:,.{digits if whole else digits + 1}f}"


def _smooth(losses: Floats) -> Floats:
    """For each loss the mean of the newest 1/50 of those up to it, one at least. [n]"""
    sums = np.concatenate([[0.0], np.cumsum(losses)])  # [n + 1]
    ends = np.arange(1, len(losses) + 1)
    starts = ends - np.maximum(1, -(-ends // _SMOOTHED))
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts))


def _ranges(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    """The least and largest y of neighbouring points, and their x: [at most _COLUMNS + 1] each."""
    starts = np.arange(0, len(x), max(1, len(x) // _COLUMNS))
    return np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts), x[starts]


def _path(points: Sequence[tuple[Any, Any]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
