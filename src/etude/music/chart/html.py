"""A song as a chart in HTML, for notebooks: one fragment without scripts or other files, in the page's own colours."""

from __future__ import annotations

from html import escape

from etude.music.theory import Song

from .grid import Cell, cells, heading

_PER_ROW = 4
_CHART = "font-family:system-ui,sans-serif;color:inherit;max-width:56em"
_TABLE = "border-collapse:collapse;table-layout:fixed;width:100%;margin:0;color:inherit;background:transparent"
_BAR = "border:solid currentColor;border-width:0 1px;padding:.3em .5em;text-align:left;vertical-align:top"
_NUMERAL = "opacity:.65;font-size:.8em"


def render_html(song: Song) -> str:
    """The chart of `grid.render` as an HTML fragment; every text from the song is escaped."""
    title, facts = (escape(text) for text in heading(song))
    parts = [f'<div class="etude-chart" style="{_CHART}">', f"<h3>{title}</h3>", f"<p>{facts}</p>"]
    for label, bars in cells(song):
        parts += [f"<h4>{escape(label)}</h4>"] if label else []
        parts.append(f'<table style="{_TABLE}">')
        for i in range(0, len(bars), _PER_ROW):
            row = [_bar(bar) for bar in bars[i : i + _PER_ROW]]
            parts.append(f"<tr>{''.join(row)}{'<td></td>' * (_PER_ROW - len(row))}</tr>")
        parts.append("</table>")
    return "\n".join([*parts, "</div>"])


def _bar(bar: Cell) -> str:
    chords = "".join(
        f'<span style="flex:{chord.share.numerator / chord.share.denominator:.4g} 0 auto;margin-right:.4em">'
        f'<b>{escape(chord.name)}</b><br><span style="{_NUMERAL}">{escape(chord.numeral) or "&nbsp;"}</span></span>'
        for chord in bar
    )
    return f'<td style="{_BAR}"><div style="display:flex;flex-wrap:wrap">{chords}</div></td>'
