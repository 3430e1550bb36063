"""When two runs are the same, and what is said of it."""

from __future__ import annotations

import pytest

from etude.prime.checking import Run, compare
from etude.prime.number import PrimeError
from etude.prime.running import Ended

STOPPED = Ended(-9, "it ran for 60 s")


@pytest.mark.parametrize(
    ("original", "other", "said"),
    [
        (Run(b"a\nb\n", Ended(0)), Run(b"a\nb\n", Ended(0)), "the same 2 lines to its end"),
        (Run(b"a\n", Ended(3)), Run(b"a\n", Ended(3)), "ends with status 3 as before"),
        (Run(b"a\nb\n", STOPPED), Run(b"a\nb\nc\n", STOPPED), "the same 2 lines, as far as both were run"),
        (Run(b"a\n", STOPPED), Run(b"a\nb\n", Ended(0)), "the same 1 lines, as far as both were run"),
        (Run(b"", Ended(1)), Run(b"", Ended(1)), "nothing was compared; --input FILE"),
    ],
)
def test_runs_that_are_the_same(original: Run, other: Run, said: str) -> None:
    assert said in compare(original, other, "x.py")


@pytest.mark.parametrize(
    ("original", "other", "said"),
    [
        (Run(b"a\nb\n", Ended(0)), Run(b"", STOPPED), "ends by itself, and minified it does not"),
        (Run(b"a\n", Ended(0)), Run(b"a\nb\n", STOPPED), "ends by itself"),
        (Run(b"a\nb\n", Ended(0)), Run(b"a\nc\n", Ended(0)), "something else once it is minified, first in line 2"),
        (Run(b"a\n", Ended(0)), Run(b"a\n", Ended(1)), "something else"),
        (Run(b"a\nb\n", STOPPED), Run(b"a\n", Ended(0)), "something else"),
    ],
)
def test_runs_that_are_not(original: Run, other: Run, said: str) -> None:
    with pytest.raises(PrimeError, match=said):
        compare(original, other, "x.py")
