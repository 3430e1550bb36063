"""A trace in the terminal: short, or with every operation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .trace import Choice, Trace
from .words import visible

_SHORT = 24  # positions that a short view lists
_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDEST = 60  # positions that a row of attention has


def show(trace: Trace, console: Console, verbose: bool = False, only: Sequence[str] = ("*",)) -> None:
    """Tokens, the next ones, what each layer would say and where it looks; `verbose`: merges and operations as well.

    The console must read no markup, as tokens may look like it.
    """
    c, t = trace.config, len(trace.tokens)
    operations = trace.only(only)
    sizes = f"{c.n_layer} layers, {c.n_head} heads, {c.n_embd} wide, {trace.n_parameters:,} parameters"
    console.print(f"{trace.model} ({c.architecture}): {sizes}", soft_wrap=True)
    skipped = 0 if verbose else max(0, t - _SHORT)
    if skipped:
        console.print(f"\nThe last {_SHORT} of {t:,} tokens (-v has all)")
    console.print(_tokens(trace, skipped))
    if verbose:
        _merges(trace, console)
    console.print(_next(trace.steps[-1], visible(trace.tokens[-1].word.text)))
    console.print(_lens(trace))
    _attention(trace, console)
    if verbose:
        table = _table("every operation, in order", "name", ">shape", ">mean", ">std", "first values")
        for each in operations:
            shape = " × ".join(map(str, each.shape))
            first = " ".join(f"{value:.4g}" for value in each.first[:4]) + " …"
            table.add_row(each.name, shape, f"{each.mean:.4g}", f"{each.std:.4g}", first)
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    """`>` before a column's name puts it to the right."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return table


def _said(choice: Choice) -> str:
    return f"{visible(choice.text)} {choice.percent:.1f}%"


def _tokens(trace: Trace, skipped: int) -> Table:
    table = _table("tokens, and the likeliest after each", ">#", ">id", "token", ">probability", ">rank", "next")
    for i, (token, choices) in list(enumerate(zip(trace.tokens, trace.steps, strict=True)))[skipped:]:
        probability = "" if token.probability is None else f"{token.probability:.2%}"
        own = "" if i < trace.n_prompt else " (added)"
        rank = "" if token.rank is None else f"{token.rank:,}"
        following = "  ".join(map(_said, choices[:3]))
        table.add_row(str(i), str(token.id), visible(token.word.text) + own, probability, rank, following)
    return table


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


def _next(choices: Sequence[Choice], last: str) -> Table:
    table = _table(f"after {last}", "next", ">id", ">logit", ">percent", "")
    for choice in choices:
        bar = "█" * round(choice.percent / 5)
        table.add_row(visible(choice.text), str(choice.id), f"{choice.logit:.3f}", f"{choice.percent:.2f}%", bar)
    return table


def _lens(trace: Trace) -> Table:
    """What each layer would say after the last token."""
    table = _table("logit lens: the likeliest next token, were this layer the last", "after", "1st", "2nd", "3rd")
    for name, rows in trace.lens.items():
        cells = [*map(_said, rows[-1][:3]), "", "", ""][:3]
        table.add_row("embeddings" if name == "resid_pre" else f"layer {name.split('.')[1]}", *cells)
    return table


def _attention(trace: Trace, console: Console) -> None:
    """Where the last token looks, a row a layer, with the tokens numbered beneath."""
    t = len(trace.tokens)
    shown = min(t, _WIDEST)
    newest = f"the newest {shown} of {t:,} tokens" if shown < t else "from the first token to the last"
    console.print(f"attention of the last token, mean of the heads ({newest})\n", soft_wrap=True)
    for layer in range(trace.config.n_layer):
        weights = trace[f"h.{layer}.attn.weights"][:, -1, -shown:].mean(axis=0)  # [h, t, n] -> [shown]
        marks = "".join(_BLOCKS[i] for i in np.ceil(weights * (len(_BLOCKS) - 1)).astype(int))
        most = int(weights.argmax()) + t - shown
        label = f"{visible(trace.tokens[most].word.text)} {weights.max():.0%}"
        console.print(f"  layer {layer:<3} {marks}  most: {label}", soft_wrap=True)
    console.print()
