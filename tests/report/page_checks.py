"""What every page is checked with: its sections, that it is whole, and odd values to put into files."""

from __future__ import annotations

import html.parser
from collections.abc import Iterator

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
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "use"}
    for _, attributes in found.seen:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "xlink:href")]
        assert attributes.get("href", "#").startswith("#")
    assert "url(" not in text and "@import" not in text
    assert {said["id"] for tag, said in found.seen if tag == "section"} == sections
    assert "default-src 'none'" in [said.get("content", "")[:18] for tag, said in found.seen if tag == "meta"]
    return found


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
