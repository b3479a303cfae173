"""A chart as inline SVG: it scales with its column, follows light and dark, and shows numbers when pointed at."""

from __future__ import annotations

import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.style import COLOURS, styled

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_numbers = itertools.count()


def charts(panels: Sequence[Panel], note: str = "") -> list[Markup]:
    """Return every panel as a chart of its own, for a page that has room for one or several in a row."""
    return [inline(draw([panel], note=note)) for panel in panels]


def inline(figure: Figure, kind: str = "chart") -> Markup:
    """Return a figure as an SVG element; ``kind`` is its class."""
    text = io.StringIO()
    with styled():
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(_NOT_XML.sub("", text.getvalue()))
    words = [" ".join("".join(each.itertext()).split()) for each in root.iter(f"{_SVG}text")]
    ids = f"f{next(_numbers)}-"  # several charts on a page share no id
    for parent in list(root.iter()):
        for child in [entry for entry in parent if entry.tag in (f"{_SVG}metadata", f"{_SVG}style")]:
            parent.remove(child)
    for item in list(root.iter()):
        item.tag = item.tag.removeprefix(_SVG)
        _adapt(item, ids)
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": kind,
        "role": "img",
        "aria-label": ", ".join(dict.fromkeys(word for word in words if word and not _is_number(word))),
    }
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=True))


def _adapt(item: ET.Element, ids: str) -> None:
    """Give one element colours of the page, an id of its own and, where it has any, its words."""
    name = item.attrib.pop("id", None)
    if name and name.startswith("notes "):
        marks = [entry for entry in item.iter() if entry.tag.removeprefix(_SVG) == "use"] or [item]
        for mark, note in zip(marks, json.loads(name.removeprefix("notes ")), strict=False):
            title = ET.Element("title")
            title.text = _NOT_XML.sub("", note)
            mark.insert(0, title)
    elif name and item.tag in ("clipPath", "path", "linearGradient"):
        item.set("id", ids + name)
    if link := item.attrib.pop(f"{_XLINK}href", None):
        inside = link.startswith("#")  # else an image's own data
        item.set("href", f"#{ids}{link.removeprefix('#')}" if inside else link)
    if clip := item.get("clip-path"):
        item.set("clip-path", clip.replace("url(#", f"url(#{ids}"))
    if style := item.get("style"):
        style = re.sub(r"#[0-9a-f]{6}", lambda found: _VARIABLES.get(found[0], found[0]), style)
        style = re.sub(r"(font: .*?[\d.]+px) [^;]*", r"\1 var(--font)", style)
        item.set("style", re.sub(r"font-family: [^;]*", "font-family: var(--font)", style))


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[−+\d.e-]+", word) is not None
