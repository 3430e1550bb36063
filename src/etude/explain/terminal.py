"""A trace in the terminal: short, or with every operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table

from .trace import Choice, Trace
from .words import visible

_SHORT = 24  # positions that a short view lists
_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDEST = 48  # positions that a row of attention has
_LABEL, _GAP = 16, 3  # cells of a token's text, and between columns


def show(trace: Trace, console: Console, verbose: bool = False, only: Sequence[str] = ("*",)) -> None:
    """Tokens, the next ones, what each layer would say and where it looks; `verbose`: merges and operations as well.

    The console must read no markup, as tokens may look like it.
    """
    t = len(trace.tokens)
    operations = trace.only(only)
    console.print(f"{trace.model}, {trace.facts}\n", soft_wrap=True)
    skipped = 0 if verbose else max(0, t - _SHORT)
    if skipped:
        console.print(f"the last {_SHORT} of {t:,} tokens; -v has all")
    _tokens(trace, skipped, console)
    if verbose:
        _merges(trace, console)
    _next(trace, console, 0 if verbose else t - 1)
    _lens(trace, console)
    _attention(trace, console)
    if verbose:
        rows = [
            (
                each.name,
                str(list(each.shape)),
                f"{each.mean:.4g}",
                f"{each.std:.4g}",
                " ".join(f"{value:.3g}" for value in each.first[:3]) + " …",
            )
            for each in operations
        ]
        _table(console, "every operation, in order", ("name", ">shape", ">mean", ">std", "first values"), rows)


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table under its title; `>` before a column's name puts it to the right. The last column is cut to what fits."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column[:1] == ">" else "left", no_wrap=True)
    *others, _ = zip(columns, *rows, strict=True)
    taken = sum(max(map(cell_len, cells)) + _GAP for cells in others)
    for *cells, last in rows:
        table.add_row(*cells, _cut(last, max(_LABEL, console.width - taken)))
    console.print(title, soft_wrap=True)
    console.print(table)
    console.print()


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _label(text: str) -> str:
    return _cut(visible(text), _LABEL)


def _said(choice: Choice) -> str:
    return f"{_label(choice.text)} {_percent(choice.percent)}"


def _percent(x: float) -> str:
    return "<0.01%" if x < 0.01 else f"{x:.2f}%" if x < 0.1 else f"{x:.1f}%"


def _tokens(trace: Trace, skipped: int, console: Console) -> None:
    rows = []
    for i, (token, choices) in list(enumerate(zip(trace.tokens, trace.steps, strict=True)))[skipped:]:
        probability = "" if token.probability is None else _percent(100 * token.probability)
        rank = "" if token.rank is None else f"{token.rank:,}"
        rows.append(
            (str(i), str(token.id), _label(token.word.text), probability, rank, "  ".join(map(_said, choices[:3])))
        )
    columns = (">#", ">id", "token", ">probability", ">rank", "likeliest after it")
    added = len(trace.tokens) - trace.n_prompt
    own = f"; the last {added} are the model's own" if added else ""
    _table(console, f"tokens, with the probability given to each before it was read{own}", columns, rows)


def _merges(trace: Trace, console: Console) -> None:
    """Every token that merges made, from its bytes on."""
    merged = {token.id: token.word for token in trace.tokens if len(token.word.merges) > 1}
    if merged:
        console.print("merges, a step apart")
    for token, word in merged.items():
        steps = " → ".join("|".join(map(visible, state)) for state in word.merges)
        console.print(f"  {token:>6}  {steps}", soft_wrap=True)
    if merged:
        console.print()


def _next(trace: Trace, console: Console, first: int) -> None:
    """The likeliest after each token from `first` on."""
    for token, choices in list(zip(trace.tokens, trace.steps, strict=True))[first:]:
        rows = [
            (_label(c.text), str(c.id), f"{c.logit:.3f}", _percent(c.percent), "█" * round(c.percent / 4))
            for c in choices
        ]
        _table(console, f"next after {visible(token.word.text)}", ("token", ">id", ">logit", ">percent", ""), rows)


def _lens(trace: Trace, console: Console) -> None:
    """What each layer would say after the last token."""
    rows = [
        ("embeddings" if name == "resid_pre" else f"layer {name.split('.')[1]}", *map(_said, choices[-1][:3]))
        for name, choices in trace.lens(slice(-1, None)).items()
    ]
    _table(console, "logit lens: next, if the model stopped after", ("", "likeliest", "second", "third"), rows)


def _attention(trace: Trace, console: Console) -> None:
    """Where the last token looks, a row a layer, with the tokens numbered beneath."""
    t = len(trace.tokens)
    shown = min(t, _WIDEST)
    newest = f"the newest {shown} of {t:,} tokens" if shown < t else "first token to last"
    console.print(f"attention of the last token, mean of the heads ({newest})\n", soft_wrap=True)
    for layer in range(trace.config.n_layer):
        weights = trace[f"h.{layer}.attn.weights"][:, -1, -shown:].mean(axis=0)  # [h, t, n] -> [shown]
        marks = "".join(_BLOCKS[i] for i in np.ceil(weights * (len(_BLOCKS) - 1)).astype(int))
        most = int(weights.argmax()) + t - shown
        label = f"{_label(trace.tokens[most].word.text)} {weights.max():.0%}"
        console.print(f"  layer {layer:<3} {marks}  most: {label}", soft_wrap=True)
    console.print()
