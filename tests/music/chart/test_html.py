"""The chart in HTML: the same chart, closed tags, nothing from the song unescaped."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from etude.music.chart import parse_progression, render_html
from etude.music.theory import Key, Section, Song

TAGS = {"div", "h3", "h4", "p", "table", "tr", "td", "span", "b", "br"}


class Page(HTMLParser):
    """Collects text and cells, and checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.rows: list[int] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS and {name for name, _ in attrs} <= {"style", "class"}
        assert not any("url" in (value or "") for _, value in attrs)
        if tag == "tr":
            self.rows.append(0)
        elif tag == "td":
            self.rows[-1] += 1
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def song(text: str, title: str = "Rain", genre: str = "") -> Song:
    return Song(title, Key("Bb"), parse_progression(text).sections, genre=genre)


def test_the_chart_holds_heading_labels_chords_and_numerals() -> None:
    page = Page(render_html(song("[Verse] A# D# F7/A Gbdim7 G G [Chorus] | Cm F |", genre="folk")))
    assert " ".join(page.words).split(" 0:14 ")[0] == "Rain Bb major · 4/4 · ♩ = 120 · folk · 7 bars ·"
    chords = "Verse Bb I Eb IV F7/A V7/7 F#dim7 #v°7 G VI % Chorus Cm ii F V"
    assert " ".join(page.words).split(" 0:14 ")[1] == chords
    assert page.rows == [4, 4, 4]


def test_it_takes_the_colours_of_the_page() -> None:
    html = render_html(song("D A"))
    assert "currentColor" in html and "#" not in html.replace("&#", "") and "background:transparent" in html


@settings(deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_texts_are_escaped(title: str, genre: str, label: str) -> None:
    bars = parse_progression("D").bars
    Page(render_html(Song(title, Key("D"), (Section(label, bars),), genre=genre)))


def test_markup_in_a_title_is_text() -> None:
    html = render_html(Song("<script>alert('x')</script>", Key("D"), (Section('<b onclick="">', ()),), genre="a&b"))
    assert "<script" not in html and "<b onclick" not in html and "a&amp;b" in html
    Page(html)
