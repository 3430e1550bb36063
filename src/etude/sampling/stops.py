"""Where a text stops: at a string that it must not contain, of which no part is ever shown."""

from __future__ import annotations

from collections.abc import Sequence

from .sampler import SamplingError


class StopFilter:
    """Lets a text through as it comes, up to a stop string: what may become one is held back until that is known.

    The text ends before the stop string that is complete first (of those complete at once, the longest), however the
    text was cut into pieces. Raises `SamplingError` for an empty stop string.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        if isinstance(stops, str) or not all(isinstance(stop, str) and stop for stop in stops):
            raise SamplingError("stop must be strings of one character at least, such as ['.']")
        self._stops, self._held = tuple(stops), ""
        self.stopped = False

    def feed(self, text: str) -> str:
        """What can be shown now, of this and of what was held back; nothing after a stop."""
        if self.stopped:
            return ""
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        start = len(text) - max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[start:]
        return text[:start]

    def finish(self) -> str:
        """What is still held back, where no more text comes."""
        rest, self._held = self._held, ""
        return rest

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """How many characters at the end of `text` are the beginning of `stop`, as many as may be."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
