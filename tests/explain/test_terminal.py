"""The terminal: what fits 80 columns, what -v adds, and tokens that look like markup."""

from __future__ import annotations

import io

from rich.cells import cell_len
from rich.console import Console

from etude.explain import Trace
from etude.explain.terminal import show
from etude.model import TextModel


def shown(trace: Trace, verbose: bool = False, only: tuple[str, ...] = ("*",)) -> str:
    file = io.StringIO()
    show(trace, Console(file=file, width=80, markup=False, emoji=False, highlight=False), verbose, only)
    return file.getvalue()


def test_short_says_tokens_next_lens_and_attention_in_80_columns(chord_trace: Trace) -> None:
    text = shown(chord_trace)
    lines = text.splitlines()
    assert lines[0].startswith("model, modern: 2 layers, 2 heads, 16 wide")
    assert max(map(cell_len, lines)) <= 80
    row = next(line.split() for line in lines if line.lstrip().startswith("6 "))
    token = chord_trace.tokens[6]
    assert row[1:3] == [str(token.id), "A"]
    assert str(token.rank) in row[4]
    best = chord_trace.steps[-1][0]
    assert f"{best.logit:.3f}" in text and f"{best.percent:.1f}%" in text
    for stage in ("embeddings", "layer 0", "layer 1"):
        assert stage in text
    weights = chord_trace["h.1.attn.weights"][:, -1].mean(axis=0)
    assert f"{chord_trace.tokens[int(weights.argmax())].word.text} {weights.max():.0%}" in lines[-2]
    assert "h.0.attn.q" not in text


def test_verbose_adds_every_operation_with_its_shape(chord_trace: Trace) -> None:
    text = shown(chord_trace, verbose=True)
    for each in chord_trace.operations:
        assert any(line.startswith(each.name + " ") and str(list(each.shape)) in line for line in text.splitlines())
    assert text.count("next after") == 7
    some = shown(chord_trace, verbose=True, only=("h.0.mlp.*",))
    assert "h.0.mlp.act" in some and "h.0.ln_1" not in some


def test_a_long_prompt_is_cut_and_says_so(names_model: TextModel) -> None:
    trace = names_model.trace("abcde" * 12, steps=2)
    text = shown(trace)
    assert f"the last 24 of {len(trace.tokens)} tokens; -v has all" in text
    assert f"the newest 48 of {len(trace.tokens)} tokens" in text
    assert "the model's own" in text
    assert shown(trace, verbose=True).count("next after") == len(trace.tokens)


def test_wide_tokens_are_cut_to_80_columns(hostile_trace: Trace) -> None:
    lines = shown(hostile_trace).splitlines()[2:]  # the first is the model's name, which is not cut
    assert max(map(cell_len, lines)) <= 80
    token = hostile_trace.tokens[2]
    (row,) = [line.split() for line in lines if line.startswith("2 ")]
    assert row[:3] == ["2", "6", "</script><img␣s…"]  # nothing else is cut but the last column
    assert row[4] == str(token.rank)


def test_markup_and_escapes_in_a_prompt_stay_text(names_model: TextModel) -> None:
    text = shown(names_model.trace("[red]\n"))
    assert "↵" in text and "␣" not in text.splitlines()[5]
    for letter in "[red]":
        assert any(line.split()[2:3] == [letter] for line in text.splitlines())
