"""The bench of decoders, with a model that is small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

from etude.bench.decode import BANDWIDTH, SUBJECTS, Subject, Worker, bench, rows, weight_bytes, write_models
from etude.bench.memory import Memory
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig

SMALL = GPTConfig("gpt2", 300, 1024, 1, 2, 64, bos_token_id=256, eos_token_id=256)


@pytest.mark.slow
def test_subjects_are_measured_in_turns_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [subject for subject in SUBJECTS if subject.library.startswith("etude")][:2]
    absent = Subject("llama.cpp", "Q9_9", ("no_such_module",))
    monkeypatch.setattr("etude.bench.decode.SUBJECTS", (*ours, absent))
    monkeypatch.setattr("etude.bench.memory.Memory", type("Fast", (), {"bandwidth": lambda self: 1e10}))
    said: list[str] = []
    found = {(row["subject"], row["metric"]): row for row in bench(said.append, rounds=2, config=SMALL)}
    assert "llama.cpp is not installed and is left out: pip install 'etude[bench]'" in said
    for subject in ours:
        assert found[subject.name, "64 tokens after 16"]["value"] > 0
        assert found[subject.name, "prompt of 512"]["unit"] == "tokens/s"
        assert 0 < found[subject.name, "share of the bandwidth"]["value"] < 100
        assert found[subject.name, "load"]["value"] > 0
    assert not any("Q9_9" in subject for subject, _ in found)


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    facts = {name: {"weights": 1e6, "load": 1.0, "memory": 2e6} for name in ("etude compiled int8", "llama.cpp Q8_0")}
    times = {
        ("etude compiled int8", "decode"): [1.0, 2.0, 8.0],
        ("llama.cpp Q8_0", "decode"): [2.0, 3.0, 8.0],
        ("etude compiled int8", "read"): [1.0, 1.0, 1.0],
        ("llama.cpp Q8_0", "read"): [0.5, 0.5, 0.5],
    }
    found = {(row["subject"], row["metric"]): row["value"] for row in rows(times, [1e9, 1e9, 1e9], facts)}
    assert found["etude compiled int8 over llama.cpp Q8_0", "64 tokens after 16"] == 1.5
    assert found["etude compiled int8 over llama.cpp Q8_0", "prompt of 512"] == 0.5
    assert found["etude compiled int8", "64 tokens after 16"] == 64
    assert found["etude compiled int8", "share of the bandwidth"] == pytest.approx(100 * 1e6 * 64 / 2.0 / 1e9)
    assert found[BANDWIDTH, "bandwidth"] == 1


def test_weights_are_counted_as_they_are_stored(tmp_path: Path) -> None:
    config = GPTConfig("gpt2", 384, 16, 2, 2, 64, bos_token_id=256, eos_token_id=256)
    write_models(tmp_path, config, {"llama.cpp"})
    small = 4 * (16 * 64 + 2 * 13 * 64 + 2 * 64)  # positions, norms and biases are float32 and not counted
    for kind in ("float32", "Q8_0", "Q4_0"):
        counted = weight_bytes(Subject("llama.cpp", kind, ()), config)
        tensors = (tmp_path / f"{kind}.gguf").stat().st_size - small
        assert counted < tensors < counted + 40_000  # and the vocabulary with its header


def test_a_subject_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(EtudeError, match=r"etude array float32 failed: .*no such model directory"):
        Worker(Subject("etude array", "float32", ("numpy",)), tmp_path)


def test_memory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.bench.memory._BYTES", 1 << 20)
    memory: Any = Memory()
    assert memory.bandwidth(2) > 1e6
    assert memory._sums.sum() == (1 << 20) // 4


def test_every_subject_runs_the_same_model(tmp_path: Path) -> None:
    write_models(tmp_path, SMALL, set())
    assert json.loads((tmp_path / "model" / "config.json").read_text())["n_embd"] == 64
    assert len({subject.name for subject in SUBJECTS}) == len(SUBJECTS)
