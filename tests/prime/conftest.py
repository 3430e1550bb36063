"""The published prime, where it lies beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[3] / "shared"


@pytest.fixture(scope="session")
def reference_prime() -> Path:
    path = SHARED / "reference" / "prime.txt"
    if not path.is_file():
        pytest.skip("the published prime is not beside the checkout (prime.txt in ../shared/reference)")
    return path
