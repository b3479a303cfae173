"""What every page is checked with: its sections, that it is whole, and odd values to put into files."""

from __future__ import annotations

import html.parser
import random
import re
from collections.abc import Iterator, Sequence

import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from sflam.report.charts.figure import Panel, draw
from sflam.report.pages import comparison, inline, rounds, run

RUN = {
    *("curves", "timeline", "allocation", "energy", "plan", "rounds", "devices"),
    *("configuration", "environment", "repeat"),
}
COMPARISON = {
    *("results", "target", "curves", "sweeps", "devices", "timeline", "allocation"),
    *("configuration", "environment", "repeat"),
}
EVIL = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>\"'"


class Elements(html.parser.HTMLParser):
    """What a browser would see: every element with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def expect_whole(text: str, sections: set[str]) -> Elements:
    """Check that a page fetches and runs nothing, and has its sections."""
    found = Elements(text)
    tags = {tag for tag, _ in found.seen}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base"}
    for _, attributes in found.seen:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "xlink:href")]
        assert attributes.get("href", "#").startswith("#")
    assert set(re.findall(r"url\((.)", text)) <= {"#"} and "@import" not in text
    ids = [attributes["id"] for _, attributes in found.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = {link for _, attributes in found.seen if (link := attributes.get("href"))}
    assert {link.removeprefix("#") for link in referred} <= set(ids)
    assert {output["id"] for tag, output in found.seen if tag == "section"} == sections
    assert "default-src 'none'" in [
        output.get("content", "")[:18] for tag, output in found.seen if tag == "meta"
    ]
    return found


def render_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw some of the charts, and render a few: for tests that write hundreds of pages."""
    chance = random.Random(0)

    def charts(panels: Sequence[Panel], note: str = "") -> list[Markup]:
        return [
            inline.inline(draw([panel], note=note)) if chance.random() < 0.02 else bare(panel)
            for panel in panels
        ]

    def bare(panel: Panel) -> Markup:
        if chance.random() < 0.15:
            panel(Figure().subplots())
        return Markup()

    for page in (run, comparison, rounds):
        monkeypatch.setattr(page, "charts", charts)
    rendered, drawn = rounds.inline, rounds.draw_timeline

    def inlined(figure: Figure | None, kind: str) -> Markup:
        return rendered(figure, kind) if figure is not None and chance.random() < 0.15 else Markup()

    def some(*arguments: object) -> Figure | None:
        return drawn(*arguments) if chance.random() < 0.15 else None

    monkeypatch.setattr(rounds, "inline", inlined)
    monkeypatch.setattr(rounds, "draw_timeline", some)


ODD = (None, EVIL, -1, 10**30, float("nan"), float("inf"), [], {}, [EVIL], True)


def places(values: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to everything in a JSON value; the first of a list stands for the others."""
    inside = (
        values.items()
        if isinstance(values, dict)
        else enumerate(values[:1])
        if isinstance(values, list)
        else ()
    )
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))
