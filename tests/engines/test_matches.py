"""The look-up of earlier occurrences, against a slow and plain definition of it."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from etude.engines.matches import MatchFinder, find_matches
from etude.gpt.config import MAX_MATCH, N_MATCH


def plainly(ids: list[int]) -> tuple[list[int], list[int]]:
    """For the last token of `ids`: try every earlier end, longest match first, then the latest."""
    last = len(ids) - 1
    ends = []
    for j in range(last):
        length = 0
        while length <= j and ids[j - length] == ids[last - length]:
            length += 1
        ends.append((length, j))
    found: list[int] = []
    lengths: list[int] = []
    for length, j in sorted(ends, reverse=True):
        if length and ids[j + 1] not in found and len(found) < N_MATCH:
            found.append(ids[j + 1])
            lengths.append(min(length, MAX_MATCH))
    return found + [0] * (N_MATCH - len(found)), lengths + [0] * (N_MATCH - len(lengths))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80))
def test_longest_then_latest_and_all_different(ids: list[int]) -> None:
    found, lengths = find_matches(np.array([ids]))
    for t in range(len(ids)):
        assert (found[0, t].tolist(), lengths[0, t].tolist()) == plainly(ids[: t + 1])


def test_rows_of_a_batch_do_not_mix_and_forks_go_their_own_way() -> None:
    a, b = [1, 2, 1, 2, 1], [3, 3, 3, 1, 2]
    found, lengths = find_matches(np.array([a, b]))
    for row, ids in enumerate((a, b)):
        alone = find_matches(np.array([ids]))
        assert (found[row] == alone[0][0]).all()
        assert (lengths[row] == alone[1][0]).all()
    finder = MatchFinder()
    for token in (1, 2, 1):
        finder.add(np.array([token]))
    twin = finder.fork()
    twin.add(np.array([9]))
    assert finder.add(np.array([2]))[0][0, 0] == 1
