"""TensorBoard's event files, written by hand: a run's metrics as scalars and texts. No package is needed.

A file is a row of records (TFRecord), each an `Event` in protobuf's wire format. Here it is a function of the metrics
alone: an event's wall time is its step in seconds, so that a run that was killed and resumed has the same file, with no
step twice, as one that was not. Look at it over steps, as TensorBoard does by itself.
Sources: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, .../framework/summary.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from etude.files import atomic_write

EVENTS = "events.out.tfevents.etude"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_STRING = 7  # DT_STRING


class EventFile:
    """A run's event file, begun anew with the metrics so far. `add` keeps lines until `flush` appends them."""

    def __init__(self, directory: Path, lines: Iterable[Mapping[str, Any]]) -> None:
        self._path, self._pending = directory / EVENTS, bytearray()
        with atomic_write(self._path) as file:
            file.write(record(_field(1, _FIXED64, struct.pack("<d", 0.0)) + _string(3, b"brain.Event:2")))
            for line in lines:
                self.add(line)
            file.write(self._pending)
        self._pending.clear()

    def add(self, line: Mapping[str, Any]) -> None:
        """Take in one line of `metrics.jsonl`."""
        for tag, value in (("loss/training", line.get("loss")), ("learning_rate", line.get("rate"))):
            if value is not None:
                self._pending += record(_event(line["step"], _scalar(tag, value)))
        for name, value in line.get("validation", {}).items():
            if isinstance(value, Mapping) and isinstance(value.get("value"), float):
                self._pending += record(_event(line["step"], _scalar(f"validation/{name}", value["value"])))
        if "samples" in line:
            self._pending += record(_event(line["step"], _scalar("samples/verbatim", line["samples"]["verbatim"])))
            for number, text in enumerate(line["samples"]["texts"]):
                self._pending += record(_event(line["step"], _text(f"sample/{number}", text)))

    def flush(self) -> None:
        """Append what was added."""
        if self._pending:
            with open(self._path, "ab") as file:
                file.write(self._pending)
            self._pending.clear()


def record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and shifted, as a checksum that stands beside what it checks should be."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table() -> list[int]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0)) ^ (table >> np.uint32(1))
    return [int(entry) for entry in table]


_CRC = _crc_table()


def _event(step: int, value: bytes) -> bytes:
    """Event: wall_time = 1, step = 2, summary = 5, whose value = 1."""
    return _field(1, _FIXED64, struct.pack("<d", step)) + _field(2, _VARINT, _varint(step)) + _string(5, value)


def _scalar(tag: str, number: float) -> bytes:
    """Summary.Value: tag = 1, simple_value = 2."""
    return _string(1, _string(1, tag.encode()) + _field(2, _FIXED32, struct.pack("<f", number)))


def _text(tag: str, text: str) -> bytes:
    """Summary.Value: tag = 1, metadata = 9 with the plugin's name, tensor = 8 with one string.

    TensorBoard shows texts as Markdown, where four blanks keep a line as it is.
    """
    shown = "\n".join(f"    {line}" for line in text.split("\n"))
    metadata = _string(1, _string(1, b"text"))  # plugin_data = 1, plugin_name = 1
    shape = _string(2, _field(1, _VARINT, _varint(1)))  # dim = 2, size = 1
    tensor = _field(1, _VARINT, _varint(_STRING)) + _string(2, shape) + _string(8, shown.encode())
    return _string(1, _string(1, tag.encode()) + _string(8, tensor) + _string(9, metadata))


def _string(number: int, data: bytes) -> bytes:
    return _field(number, _BYTES, _varint(len(data)) + data)


def _field(number: int, wire_type: int, data: bytes) -> bytes:
    return _varint(number << 3 | wire_type) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more come."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
