"""A stop string ends a text, and no part of it is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.sampling import SamplingError, StopFilter

texts = st.text("abc", max_size=30)
stop_lists = st.lists(st.text("abc", min_size=1, max_size=5), max_size=3)


def cut(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: the shortest beginning that contains a stop string, without the longest that it ends with."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(texts, stop_lists, st.data())
def test_the_text_ends_before_the_first_stop_string_however_it_comes(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    wanted, stopped = cut(text, stops)
    filtered, shown, position = StopFilter(stops), "", 0
    while position < len(text):
        size = data.draw(st.integers(1, 6))
        shown += filtered.feed(text[position : position + size])
        position += size
        assert wanted.startswith(shown)  # never more than will stand
    assert filtered.stopped is stopped
    assert shown + filtered.finish() == wanted


@pytest.mark.parametrize(
    ("stops", "text", "shown"),
    [(["bc", "abca"], "abca", "a"), (["abca", "bc"], "xabc", "xa"), (["bc", "abc"], "abc", ""), (["aab"], "aaab", "a")],
)
def test_the_first_that_is_complete_counts_and_then_the_longest(stops: list[str], text: str, shown: str) -> None:
    assert cut(text, stops) == (shown, True)
    assert StopFilter(stops).feed(text) == shown
    letters = StopFilter(stops)
    assert "".join(map(letters.feed, text)) == shown


@given(texts, stop_lists)
def test_only_what_may_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    filtered, shown = StopFilter(stops), ""
    for character in text:
        shown += filtered.feed(character)
    if not filtered.stopped:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize("stops", [[""], ["a", ""], "abc", [3]])
def test_what_is_no_stop_string(stops: list[str]) -> None:
    with pytest.raises(SamplingError, match="one character at least"):
        StopFilter(stops)
