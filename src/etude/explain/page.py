"""A trace as one HTML page without a network: `page.html` with the numbers put into it.

The page draws from one JSON document, and puts text in as text alone, so that no token can be read as markup.
"""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from .trace import Choice, Trace
from .words import visible

_MOST_WEIGHTS = 3_000_000  # attention weights on a page: some 8 MB; of more tokens the newest are drawn


def render_page(trace: Trace) -> str:
    """The page: tokens by confidence, next tokens, attention maps, logit lens, the residual stream, all operations."""
    data = json.dumps(_data(trace), ensure_ascii=False, separators=(",", ":"))
    # No "<" is left that could end the script which holds the data.
    data = data.replace("<", "\\u003c")
    template = files("etude.explain").joinpath("page.html").read_text(encoding="utf-8")
    start, end = template.replace("{{title}}", escape(f"{trace.model} explained", quote=False), 1).rsplit("{{data}}", 1)
    return start + data + end


def frame(trace: Trace) -> str:
    """The page in a frame, for a notebook."""
    page = escape(render_page(trace), quote=True)
    return f'<iframe srcdoc="{page}" style="width:100%;height:52em;border:0" title="trace"></iframe>'


def _data(trace: Trace) -> dict[str, Any]:
    c, lens = trace.config, trace.lens()
    stream = {name: trace[name] for name in lens}
    return {
        "model": trace.model,
        "facts": trace.facts,
        "prompt": trace.n_prompt,
        "tokens": [
            {
                "id": token.id,
                "text": visible(token.word.text),
                "bytes": None if token.word.bytes is None else token.word.bytes.hex(" "),
                "merges": [[visible(part) for part in state] for state in token.word.merges],
                "p": token.probability,
                "rank": token.rank,
            }
            for token in trace.tokens
        ],
        "steps": [list(map(_choice, choices)) for choices in trace.steps],
        "lens": [[list(map(_choice, row[:3])) for row in rows] for rows in lens.values()],
        "stages": ["embeddings", *(f"layer {layer}" for layer in range(c.n_layer))],
        "norms": [[_short(norm) for norm in np.linalg.norm(x, axis=-1)] for x in stream.values()],
        "attention": _attention(trace),
        "operations": [
            {
                "name": each.name,
                "shape": str(list(each.shape)),
                "numbers": [_short(x) for x in (each.mean, each.std, each.smallest, each.largest)],
                "first": [_short(x) for x in each.first],
            }
            for each in trace.operations
        ],
    }


def _attention(trace: Trace) -> dict[str, Any]:
    """For each layer and head the weights in thousandths: a row a query, the newest `t - first` of them, one after
    the other, and in each the keys up to the query itself."""
    t, c = len(trace.tokens), trace.config
    room = _MOST_WEIGHTS // (c.n_layer * c.n_head)
    first = t - 1
    while first and sum(range(first, t + 1)) <= room:
        first -= 1
    seen = np.tri(t, dtype=bool)[first:]  # [t - first, t]
    maps = [
        [np.round(head[first:][seen] * 1000).astype(int).tolist() for head in trace[f"h.{layer}.attn.weights"]]
        for layer in range(c.n_layer)
    ]
    return {"first": first, "maps": maps}


def _choice(choice: Choice) -> list[Any]:
    return [visible(choice.text), choice.id, _short(choice.logit), _short(choice.percent)]


def _short(x: float) -> float:
    return float(f"{x:.4g}")
