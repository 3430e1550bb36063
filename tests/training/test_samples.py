"""Samples of a model in training: how much of them is copied, and that they are a function of weights and seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etude.gpt.config import GPTConfig, parameter_shapes
from etude.training import samples
from etude.training.samples import samples_text, verbatim_share, write_samples


def by_hand(sample: list[int], stream: list[int], window: int) -> float:
    covered = [False] * len(sample)
    for i in range(len(sample) - window + 1):
        if any(stream[j : j + window] == sample[i : i + window] for j in range(len(stream) - window + 1)):
            covered[i : i + window] = [True] * window
    return sum(covered) / max(1, len(sample))


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=90), st.integers(1, 9))
def test_the_share_is_that_of_a_search_by_hand(sample: list[int], stream: list[int], window: int) -> None:
    found = verbatim_share([sample], np.array(stream, np.int32), window)
    assert found == pytest.approx(by_hand(sample, stream, window))


def test_copies_are_found_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_CHUNK", 100)  # so that a copy may lie across two parts
    stream = np.random.default_rng(0).integers(0, 60, 1000)
    new = [60] * 40
    for start in (0, 50, 85, 99, 100, 960):
        copy = stream[start : start + 40].tolist()
        assert verbatim_share([new + copy + new, new], stream, 32) == pytest.approx(40 / 160), start
        assert verbatim_share([new + copy[:31] + new], stream, 32) == 0
    monkeypatch.setattr(samples, "SEARCHED", 500)
    assert verbatim_share([stream[400:440].tolist()], stream, 32) == 1
    assert verbatim_share([stream[600:640].tolist()], stream, 32) == 0
    assert verbatim_share([], stream, 32) == verbatim_share([[]], stream, 32) == 0


def test_unseen_plays_are_not_verbatim_and_seen_ones_are(shared_plays: object) -> None:
    """What the windows are chosen for: of the last tenth of the plays less than 1 in 1,000 stands in the rest."""
    assert hasattr(shared_plays, "read_bytes")
    ids = np.frombuffer(shared_plays.read_bytes(), np.uint8)
    cut = len(ids) * 9 // 10
    unseen = [ids[start : start + 160].tolist() for start in range(cut, len(ids) - 160, 1000)]
    assert verbatim_share(unseen, ids[:cut], samples.VERBATIM_CHARACTERS) < 0.001
    assert verbatim_share([ids[5000:5160].tolist()], ids[:cut], samples.VERBATIM_CHARACTERS) == 1


def test_samples_are_a_function_of_weights_and_seed() -> None:
    config = GPTConfig("gpt2", 12, 8, 1, 2, 8, bos_token_id=9, eos_token_id=9)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    found = write_samples(config, weights, 10, 9, 3, 20, 1, 9)
    assert found == write_samples(config, weights, 10, 9, 3, 20, 1, 9)
    assert found[:1] == write_samples(config, weights, 10, 9, 1, 20, 1, 9)
    assert found != write_samples(config, weights, 10, 9, 3, 20, 2, 9)
    assert all(0 <= token < 9 for sample in found for token in sample)  # an end ends, and 10 and 11 mean nothing
    assert max(map(len, found)) <= 20


def test_the_file_of_samples_is_for_the_eye() -> None:
    validation = {"nats_per_token": {"value": 2.5, "se": 0.1}}
    line = {"step": 1500, "validation": validation, "samples": {"texts": ["a\nb", "c"], "verbatim": 0.125}}
    assert samples_text([line]) == "== step 1,500: 2.5000 nats a token, 12.5% verbatim ==\n\na\nb\n--\n\nc\n--\n"
