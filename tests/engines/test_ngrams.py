"""Which rows know the last tokens by sight."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.engines.ngrams import ngram_rows
from etude.gpt.config import NGRAMS

ROWS = 1 << 10


def test_a_row_depends_on_the_ngram_alone_and_each_length_has_its_own() -> None:
    ids = np.array([[7, 1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 5]])
    rows = ngram_rows(ids, ROWS)  # [1, t, lengths]
    assert rows.shape == (1, 12, len(NGRAMS))
    assert (rows[0, 5] == rows[0, 11]).all()  # after 1 2 3 4 5 both times
    assert rows[0, 4, -1] != rows[0, 10, -1]  # 7 1 2 3 4 and 9 1 2 3 4
    assert (rows[0, 4, :-1] == rows[0, 10, :-1]).all()
    for index in range(len(NGRAMS)):
        known = rows[0, NGRAMS[index] - 1 :, index]
        assert (known > index * ROWS).all() and (known <= (index + 1) * ROWS).all()


def test_an_ngram_that_begins_before_the_context_has_row_0() -> None:
    rows = ngram_rows(np.array([[5, 6, 7]]), ROWS)
    assert (rows[0] > 0).tolist() == [[length <= at + 1 for length in NGRAMS] for at in range(3)]


def test_order_counts_and_rows_are_evenly_used() -> None:
    a, b = np.divmod(np.arange(100 * 100), 100)
    rows = ngram_rows(np.stack([a, b], axis=1), ROWS)[:, 1, 0]  # of all pairs of 100 tokens
    assert rows[1 * 100 + 2] != rows[2 * 100 + 1]
    counts = np.bincount(rows - 1, minlength=ROWS)
    assert counts.max() < 30  # 9.8 on average; chance alone gives at most about 25


@given(st.lists(st.integers(0, 50_256), min_size=1, max_size=12), st.integers(0, 11))
@settings(max_examples=50, deadline=None)
def test_what_comes_later_changes_nothing(ids: list[int], cut: int) -> None:
    cut = min(cut, len(ids) - 1) + 1
    assert (ngram_rows(np.array([ids]), ROWS)[:, :cut] == ngram_rows(np.array([ids[:cut]]), ROWS)).all()
