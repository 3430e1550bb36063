"""Event files for TensorBoard: what its own reader finds in them, and that metrics alone decide their bytes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from etude.training.events import EVENTS, EventFile, masked_crc, record

LINES: list[dict[str, Any]] = [
    {"step": 1, "loss": 4.25, "rate": 0.001},
    {"step": 300, "loss": 3.5, "rate": 0.0005},
    {
        "step": 300,
        "validation": {"tokens": 9, "nats_per_token": {"value": 3.75, "se": 0.1}},
        "samples": {"texts": ["Over the hills,\n*and* far", "ü"], "verbatim": 0.25},
    },
]


def records(content: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        found.append(content[at + 12 : at + 12 + length])
        assert record(found[-1]) == content[at : at + 16 + length]
        at += 16 + length
    return found


def test_the_checksum_is_that_of_castagnoli() -> None:
    """Of RFC 3720, appendix B.4: 32 bytes of 0 give 8a9136aa; the mask is that of TensorFlow's record writer."""
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % (1 << 32)


def test_lines_that_were_added_later_are_as_if_they_had_been_there(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    EventFile(whole, LINES)
    events = EventFile(parts, LINES[:1])
    events.add({"step": 2, "loss": 1.0})  # of a run that was killed
    events.flush()
    events = EventFile(parts, LINES[:1])
    for line in LINES[1:]:
        events.add(line)
        events.flush()
    content = (whole / EVENTS).read_bytes()
    assert (parts / EVENTS).read_bytes() == content
    found = records(content)
    assert len(found) == 1 + 2 + 2 + 1 + 1 + 2
    assert b"brain.Event:2" in found[0]
    assert b"loss/training" in found[1]
    assert struct.pack("<f", 4.25) in found[1]


def test_tensorboard_reads_them(tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs TensorBoard's own reader"
    )
    EventFile(tmp_path, LINES)
    reader = accumulator.EventAccumulator(str(tmp_path))
    reader.Reload()
    found = {tag: [(event.step, event.value) for event in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}
    assert found.keys() == {"loss/training", "learning_rate", "validation/nats_per_token", "samples/verbatim"}
    assert found["loss/training"] == [(1, 4.25), (300, 3.5)]
    assert [value for _, value in found["learning_rate"]] == pytest.approx([0.001, 0.0005])
    assert found["validation/nats_per_token"] == [(300, 3.75)]
    assert found["samples/verbatim"] == [(300, 0.25)]
    assert reader.SummaryMetadata("sample/0").plugin_data.plugin_name == "text"
    (text,) = reader.Tensors("sample/0")
    assert text.step == 300
    assert text.tensor_proto.string_val[0].decode() == "    Over the hills,\n    *and* far"
    assert reader.Tensors("sample/1")[0].tensor_proto.string_val[0].decode() == "    ü"
