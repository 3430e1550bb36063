"""`etude explain`: every number of a forward pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from etude.explain.document import write_json
from etude.explain.page import render_page
from etude.explain.terminal import show
from etude.files import atomic_write
from etude.model import TextModel, detect_key, load, read_prompt

from .options import JsonOption, read_prompt_text, say, warn_unfamiliar

_TOP, _PAGE_TOP = 3, 10  # next tokens, unless it is told


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def explain(
        model: Annotated[str, typer.Argument(help="A bundled model (chords) or a model directory.")],
        prompt: Annotated[str, typer.Argument(help="Text or chords; - reads it from standard input.")] = "",
        top: Annotated[
            int | None,
            typer.Option(
                "-k", "--top", help="Next tokens at each step.", min=1, show_default=f"{_TOP}, on a page {_PAGE_TOP}"
            ),
        ] = None,
        steps: Annotated[int, typer.Option(help="Go on by so many of the likeliest tokens.", min=0)] = 0,
        only: Annotated[
            list[str] | None,
            typer.Option(help="Names in --json and -v, such as 'h.0.attn.*'; repeatable.", show_default="all"),
        ] = None,
        verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Every operation, and the merges.")] = False,
        html: Annotated[Path | None, typer.Option(help="Write one page that needs no network.")] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show what a model computes from a prompt: tokens, probabilities, attention, what each layer would say.

        Example: etude explain chords "D A Bm F#m" --html page.html
        """
        loaded, text = load(model), read_prompt_text(prompt)
        count = top or (_PAGE_TOP if html else _TOP)
        patterns = only or ["*"]
        keep = patterns if as_json else []
        if isinstance(loaded, TextModel):
            trace = loaded.trace(text.removesuffix("\n") if prompt == "-" else text, count, steps, keep)
        else:
            changes = read_prompt(text)
            key, unfamiliar = detect_key(text, changes), loaded.unfamiliar(changes)
            warn_unfamiliar(unfamiliar, key, [loaded.tokenizer.nearest(chord) for chord in unfamiliar])
            trace = loaded.trace(text, count, steps, key, keep)
        trace.only(patterns)  # says which of them are no names, before anything is written
        if html:
            page = render_page(trace).encode()
            with atomic_write(html) as file:
                file.write(page)
            say(f"wrote {html} ({len(page):,} bytes)")
        if as_json:
            write_json(trace, sys.stdout, patterns)
        elif not html:
            show(trace, Console(markup=False, emoji=False, highlight=False), verbose, patterns)
