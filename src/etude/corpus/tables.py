"""Tables of comma-separated values, in pieces: cells of any size are read past, and memory stays flat.

As RFC 4180 has it: cells stand between commas, rows between ends of lines, and in a cell between double quotes all of
these are text and a quote is written twice. Python's own reader keeps a whole cell, however large, and its limit is a
setting of the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .lines import Content, CorpusError, Watch

MAX_CELL_BYTES = 1 << 20
MAX_ROW_BYTES = 4 << 20
MAX_CELLS = 1_000
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """`number` is the line that it begins on; a cell is None where it is larger than `MAX_CELL_BYTES`, or the cells
    before it are larger than `MAX_ROW_BYTES` together."""

    number: int
    cells: tuple[bytes | None, ...]


def read_rows(content: Content, name: str, watch: Watch = lambda count: None) -> Iterator[Row]:
    """Every row that is not blank. Raises `CorpusError` for a quote that never closes and for too many cells."""
    scanner = _Scanner(content, watch)
    while not scanner.at_end():
        number, cells, size = scanner.line, list[bytes | None](), 0
        while True:
            cell = scanner.quoted() if scanner.take(b'"') else b""
            if cell is _OPEN:
                raise CorpusError(f"{name}, line {number}: a quote opens in this row and never closes; mend the file")
            rest = scanner.plain()  # all of a plain cell; behind a closing quote there should be nothing
            whole = None if cell is None or rest is None or size > MAX_ROW_BYTES else cell + rest
            cells.append(whole)
            size += len(whole or b"")
            if len(cells) > MAX_CELLS:
                raise CorpusError(f"{name}, line {number}: more than {MAX_CELLS:,} cells; is it a table?")
            if not scanner.take(b","):
                break
        scanner.end_line()
        if cells != [b""]:
            yield Row(number, tuple(cells))


_OPEN = b"never closed"  # told apart by identity


class _Scanner:
    """Where in the file, and the piece of it that is in memory."""

    def __init__(self, content: Content, watch: Watch) -> None:
        self._content, self._watch = content, watch
        self._piece, self._at = content.read(_CHUNK).removeprefix(b"\xef\xbb\xbf"), 0
        self.line = 1

    def at_end(self) -> bool:
        """Whether nothing is left; afterwards a byte is at hand."""
        if self._at == len(self._piece):
            self._piece, self._at = self._content.read(_CHUNK), 0
            self._watch(self._content.news())
        return not self._piece

    def take(self, mark: bytes) -> bool:
        """Go past a byte if it is this one."""
        if self.at_end() or self._piece[self._at] != mark[0]:
            return False
        self._at += 1
        return True

    def quoted(self) -> bytes | None:
        """Past the closing quote: what stands before it; None where that is too large, `_OPEN` where there is none."""
        cell = _Cell()
        while not self.at_end():
            end = self._piece.find(b'"', self._at)
            self._add(cell, len(self._piece) if end < 0 else end)
            if end >= 0:
                self._at += 1
                if not self.take(b'"'):
                    return cell.content()
                cell.add(b'"')
        return _OPEN

    def plain(self) -> bytes | None:
        """Up to a comma or the end of the line."""
        cell = _Cell()
        while not self.at_end():
            line = self._piece.find(b"\n", self._at)
            comma = self._piece.find(b",", self._at, line if line >= 0 else len(self._piece))
            end = comma if comma >= 0 else line
            self._add(cell, len(self._piece) if end < 0 else end)
            if end >= 0:
                break
        content = cell.content()
        return None if content is None else content.removesuffix(b"\r")

    def end_line(self) -> None:
        """Past the end of a line, or at the end of all."""
        self.line += self.take(b"\n")

    def _add(self, cell: _Cell, end: int) -> None:
        part = self._piece[self._at : end]
        self.line += part.count(b"\n")
        cell.add(part)
        self._at = end


class _Cell:
    """The parts of a cell, as long as they are not too many."""

    def __init__(self) -> None:
        self._parts, self._size = list[bytes](), 0

    def add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_CELL_BYTES:
            self._parts = []
        elif part:
            self._parts.append(part)

    def content(self) -> bytes | None:
        return None if self._size > MAX_CELL_BYTES else b"".join(self._parts)
