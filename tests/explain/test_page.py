"""The page: one file that needs nothing else, with the numbers of the trace, and nothing of the prompt as markup."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import numpy as np
import pytest

from etude.explain import Trace
from etude.explain.page import render_page
from etude.model import TextModel


def data_of(page: str) -> Any:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def weights_of(data: Any, layer: int, head: int) -> np.ndarray:
    """A map as the page's own script reads it: the newest rows, zeros after the diagonal."""
    t, first = len(data["tokens"]), data["attention"]["first"]
    found, numbers = np.zeros((t - first, t)), iter(data["attention"]["maps"][layer][head])
    for row in range(t - first):
        found[row, : first + row + 1] = [next(numbers) / 1000 for _ in range(first + row + 1)]
    assert next(numbers, None) is None
    return found


def test_the_page_has_the_numbers_of_the_trace(chord_trace: Trace) -> None:
    data = data_of(render_page(chord_trace))
    assert [token["text"] for token in data["tokens"]] == ["<song>", "D", "A", "Bm", "G", "D", "A"]
    assert [token["p"] for token in data["tokens"]] == [token.probability for token in chord_trace.tokens]
    for layer in range(2):
        for head in range(2):
            wanted = chord_trace[f"h.{layer}.attn.weights"][head]
            assert np.abs(weights_of(data, layer, head) - wanted).max() <= 0.0005 + 1e-7
    assert len(data["stages"]) == len(data["norms"]) == len(data["lens"]) == 3
    norm = np.sqrt((chord_trace["h.0.resid_post"][4] ** 2).sum())
    assert data["norms"][1][4] == pytest.approx(norm, rel=1e-3)
    assert [each[0] for each in data["steps"][-1]] == [choice.text for choice in chord_trace.steps[-1]]
    assert data["lens"][2] == data["steps"]
    assert [each["name"] for each in data["operations"]] == [each.name for each in chord_trace.operations]


def test_the_page_needs_no_network_and_says_so_to_the_browser(chord_trace: Trace) -> None:
    page = render_page(chord_trace)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\bsrc=|@import|url\(|<link", page)
    assert "{{" not in page
    assert page.isascii() is False and page.encode().decode() == page


def test_what_looks_like_markup_stays_text(hostile_trace: Trace) -> None:
    page = render_page(hostile_trace)
    assert page.count("</script>") == 2  # the data's end and the program's
    assert page.count("<script") == 2 and page.count("</title>") == 1
    assert "<img" not in page
    tokens = data_of(page)["tokens"]
    assert tokens[1]["text"] == "</script><img␣src=x␣onerror=alert(3)>[/bold]"
    frame = hostile_trace._repr_html_()
    assert frame.count("<") == 2 and frame.count('"') == 6
    (inside,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(inside) == page


def test_of_many_tokens_the_newest_rows_are_drawn(names_model: TextModel, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = names_model.trace("abcde" * 6)
    monkeypatch.setattr("etude.explain.page._MOST_WEIGHTS", 4 * 100)  # 100 for each of the four maps
    data = data_of(render_page(trace))
    assert data["attention"]["first"] == 28  # rows of 29, 30 and 31 keys
    wanted = trace["h.1.attn.weights"][1, 28:]
    assert np.abs(weights_of(data, 1, 1) - wanted).max() <= 0.0005 + 1e-7
    monkeypatch.setattr("etude.explain.page._MOST_WEIGHTS", 0)
    assert data_of(render_page(trace))["attention"]["first"] == 30  # one row at least


def test_equal_traces_give_equal_pages(chord_trace: Trace) -> None:
    assert render_page(chord_trace) == render_page(chord_trace)
