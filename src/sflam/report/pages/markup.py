"""HTML and SVG as text in which whatever is not markup is escaped: a string is words, an ``Html`` is markup.

Names and settings come from files that anybody may have written, so escaping is not left to who calls.
"""

from __future__ import annotations

import html
import re

VOID = {"meta", "br", "rect", "line", "path", "circle", "polyline", "polygon"}
"""Elements that hold nothing."""
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Piece = str | int | float | None
"""What an element holds: markup, or words and numbers, which are escaped; None is nothing."""


def escaped(piece: Piece) -> Html:
    """Return a piece as markup."""
    if piece is None:
        return Html("")
    return piece if isinstance(piece, Html) else Html(html.escape(str(piece), quote=True))


def joined(*pieces: Piece) -> Html:
    """Return pieces one after another."""
    return Html("".join(map(escaped, pieces)))


def element(name: str, /, *inside: Piece, **attributes: Piece) -> Html:
    """Return one element.

    Args:
        name: of the element.
        inside: what it holds; strings are escaped.
        attributes: ``class_`` is class, ``stroke_width`` is stroke-width; None leaves one out, values are escaped.
    """
    said = ""
    for key, value in attributes.items():
        if value is not None:
            key = key.rstrip("_").replace("_", "-")
            assert _NAME.fullmatch(key), key
            said += f' {key}="{escaped(str(value) if isinstance(value, str) else number(value))}"'
    if name in VOID:
        close = "/" if name not in ("meta", "br") else ""
        return Html(f"<{name}{said}{close}>")
    return Html(f"<{name}{said}>{joined(*inside)}</{name}>")


def number(value: float) -> str:
    """Return a coordinate or size with no more digits than a screen shows."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
