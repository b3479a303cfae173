"""Bars side by side as inline SVG: what each device is given, or what each method costs it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sflam.report.pages.line_chart import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    figure,
    svg,
    tick_said,
    ticks,
)
from sflam.report.pages.markup import Html, element

MOST_NAMES = 16
"""More bars than this are not all named."""


def bars(
    title: str,
    names: Sequence[str],
    values: Sequence[float],
    *,
    upward: str,
    across: str = "device",
    style: int = 0,
) -> Html:
    """Return a figure with a bar per name.

    Args:
        title: above.
        names: beneath the bars.
        values: [n], 0 or more; what is not finite has no bar.
        upward: label of the y axis.
        across: label of the x axis.
        style: which colour.
    """
    values = [value if math.isfinite(value) and value > 0 else 0.0 for value in values]
    floor, wide = HEIGHT - BOTTOM, (WIDTH - LEFT - RIGHT) / max(1, len(values))
    levels = ticks(0.0, max(values, default=0.0), most=5)
    top = max([*values, *levels, 1e-300])
    pieces = []
    for level in levels:
        y = floor - (floor - TOP) * level / top
        pieces.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        pieces.append(element("text", tick_said(level), x=LEFT - 7, y=y + 4, class_="tick end"))
    every = -(-len(names) // MOST_NAMES)
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        height, x = (floor - TOP) * value / top, LEFT + wide * index
        note = element("title", f"{across} {name}: {value:.4g} {upward}")
        bar = element("rect", x=x + 0.14 * wide, y=floor - height, width=0.72 * wide, height=height)
        pieces.append(element("g", note, bar, class_=f"bar c{style % COLOURS}"))
        if index % every == 0:
            said = (
                name
                if len(name) * 6.2 < wide * every or len(name) < 4
                else name[: max(3, int(wide * every / 6.2))]
            )
            pieces.append(element("text", said, x=x + wide / 2, y=floor + 17, class_="tick mid"))
    pieces.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="axis"))
    pieces.append(element("text", across, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 8, class_="label mid"))
    turned = f"translate(14 {(TOP + floor) / 2:.0f}) rotate(-90)"
    pieces.append(element("text", upward, transform=turned, class_="label mid"))
    return figure(title, svg(WIDTH, HEIGHT, f"{title}: {upward} by {across}", *pieces))
