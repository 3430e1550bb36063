"""Comma-separated values: the rows that Python's own reader gives, whatever the size of a cell."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etude.corpus import tables
from etude.corpus.lines import Content, CorpusError, opened
from etude.corpus.tables import MAX_CELL_BYTES, read_rows


def rows(content: bytes) -> list[tuple[bytes | None, ...]]:
    raw = io.BufferedReader(io.BytesIO(content))
    return [row.cells for row in read_rows(Content(raw, "table"), "table")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a,b\n1,2\n", [(b"a", b"b"), (b"1", b"2")]),
        (b'\xef\xbb\xbf"a",b\r\n"1,""x""\n2",\r\n', [(b"a", b"b"), (b'1,"x"\n2', b"")]),
        (b'\n\n"",\n,', [(b"", b""), (b"", b"")]),
        (b"a", [(b"a",)]),
        (b"", []),
        (b'a"b",c', [(b'a"b"', b"c")]),
        (b'"a"b,c', [(b"ab", b"c")]),
        ("é,☃".encode(), [("é".encode(), "☃".encode())]),
    ],
)
def test_rows(content: bytes, expected: list[tuple[bytes, ...]]) -> None:
    assert rows(content) == expected


CELLS = st.lists(st.lists(st.text(alphabet='ab,"\n é', max_size=6), min_size=1, max_size=4), max_size=5)


@given(CELLS, st.integers(1, 9))
@settings(max_examples=100)
def test_what_is_written_comes_back_in_pieces_of_any_size(cells: list[list[str]], chunk: int) -> None:
    written = io.StringIO()
    csv.writer(written).writerows(cells)
    expected = [tuple(cell.encode() for cell in row) for row in cells if row != [""]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_CHUNK", chunk)
        assert rows(written.getvalue().encode()) == expected


@given(st.binary(max_size=40))
@settings(max_examples=100)
def test_any_bytes_are_rows_or_one_line(content: bytes) -> None:
    try:
        rows(b"," + content)  # which is not gzip
    except CorpusError as error:
        assert "\n" not in str(error) and "never closes" in str(error)


def test_numbers_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"1\n\n1",2\n\nx,y\n"open')
    with opened(path) as content:
        found = read_rows(content, "a.csv")
        assert [next(found).number for _ in range(3)] == [1, 2, 6]
        with pytest.raises(CorpusError, match=r"a\.csv, line 7: a quote opens in this row and never closes"):
            next(found)


@pytest.mark.parametrize("quote", [b"", b'"'])
def test_a_cell_that_is_too_large_is_read_past(quote: bytes) -> None:
    large = quote + b"x" * (MAX_CELL_BYTES + 1) + quote
    just = quote + b"x" * MAX_CELL_BYTES + quote
    found = rows(b"a,b\n" + large + b",2\n3," + large + b"\n" + just + b",4\n")
    assert found[1:3] == [(None, b"2"), (b"3", None)]
    assert found[3] == (b"x" * MAX_CELL_BYTES, b"4")


def test_a_cell_of_quotes_is_read_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_CELL_BYTES", 1000)
    assert rows(b'"' + b'""' * 1001 + b'",b') == [(None, b"b")]
    assert rows(b'"' + b'""' * 1000 + b'",b') == [(b'"' * 1000, b"b")]


def test_too_many_cells() -> None:
    assert len(rows(b"," * 999)[0]) == 1000
    with pytest.raises(CorpusError, match="line 2: more than 1,000 cells"):
        rows(b"a\n" + b"," * 1000)
