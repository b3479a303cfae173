"""A line chart as inline SVG: colours are those of the page, in light and in dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sflam.report.costs import axis_from
from sflam.report.pages.markup import Html, element, joined

WIDTH, HEIGHT = 440.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 14.0, 12.0, 44.0
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "6 2 2 2")
COLOURS = 8
MOST_MARKERS = 40
"""More points than this would hide the line."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend and when pointed at.
        points: (x, y), x ascending; what is not finite is left out.
        style: which colour, dash and marker.
        band: (x, least, most) around it.
        joined: whether its points are connected.
        notes: a word beside each point, or none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    band: Sequence[tuple[float, float, float]] = ()
    joined: bool = True
    notes: Sequence[str] = ()


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    upward: str,
    log_x: bool = False,
    log_y: bool = False,
    percent: bool = False,
    ticks_at: Sequence[float] = (),
) -> Html:
    """Return a figure: a heading, and lines in a frame.

    Args:
        title: above.
        lines: what is drawn; without a finite point the figure says so.
        across: label of the x axis.
        upward: label of the y axis.
        log_x: logarithmic x; points at 0 or below are left out.
        log_y: the same of y.
        percent: y runs to 100, from 0 or from what leaves little of it empty.
        ticks_at: x values to be labelled, instead of round ones.
    """
    shown = [(line, _finite(line.points, log_x, log_y)) for line in lines]
    xs = [x for _, points in shown for x, _ in points]
    ys = [y for _, points in shown for _, y in points]
    if not xs:
        return figure(title, element("p", "not measured", class_="quiet"))
    ticks_at = [tick for tick in ticks_at if math.isfinite(tick) and (tick > 0 or not log_x)]
    least_x = min(xs) if log_x or ticks_at else 0.0
    x_ticks = ticks_at or ticks(least_x, max(xs), log=log_x)
    low_y = min(ys) if log_y else axis_from(ys) if percent else 0.0
    y_ticks = ticks(low_y, 100.0 if percent else max(ys), log=log_y)
    place_x = _scale([least_x, max(xs), *(x_ticks if log_x or ticks_at else ())], LEFT, WIDTH - RIGHT, log_x)
    top_y = [100.0 + 0.03 * (100.0 - low_y)] if percent else ys
    place_y = _scale([*y_ticks, *top_y], HEIGHT - BOTTOM, TOP, log_y)
    drawn = [_grid(place_x, place_y, x_ticks, y_ticks, across, upward)]
    for line, points in shown:
        drawn.append(_line(line, points, place_x, place_y))
    said = f"{title}: {', '.join(line.name for line in lines)}; {upward} against {across}"
    return figure(title, svg(WIDTH, HEIGHT, said, *drawn))


def figure(title: str, *inside: Html) -> Html:
    """Return a figure with a heading."""
    return element("figure", element("figcaption", title), *inside)


def svg(width: float, height: float, said: str, *inside: Html, class_: str = "chart") -> Html:
    """Return a picture that scales with its column; ``said`` is read to who cannot see it."""
    box = f"0 0 {width:g} {height:g}"
    return element("svg", *inside, viewBox=box, class_=class_, role="img", aria_label=said)


def legend(names: Sequence[str]) -> Html:
    """Return the legend of lines that are styled in this order."""
    items = []
    for style, name in enumerate(names):
        stroke = element(
            "line", x1=0, y1=7, x2=28, y2=7, class_=f"line c{style % COLOURS}", stroke_dasharray=_dash(style)
        )
        key = element(
            "svg", stroke, marker(14, 7, style), viewBox="0 0 28 14", class_="key", aria_hidden="true"
        )
        items.append(element("li", key, name))
    return element("ul", *items, class_="legend")


def marker(x: float, y: float, style: int, note: Html | None = None) -> Html:
    """Return a mark of a style's shape and colour."""
    colour, r = f"mark c{style % COLOURS}", 3.4
    shape = style % 4
    if shape == 0:
        return element("g", note, element("circle", cx=x, cy=y, r=r), class_=colour)
    corners = {
        1: [(-r, -r), (r, -r), (r, r), (-r, r)],
        2: [(0, -1.3 * r), (1.2 * r, r), (-1.2 * r, r)],
        3: [(0, -1.35 * r), (1.35 * r, 0), (0, 1.35 * r), (-1.35 * r, 0)],
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return element("g", note, element("polygon", points=points), class_=colour)


def ticks(low: float, high: float, *, log: bool = False, most: int = 6) -> list[float]:
    """Return round numbers from ``low`` to ``high``: steps of 1, 2 or 5, or powers of ten and their like."""
    if log:
        decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        for steps in ((1, 2, 5), (1,)):
            found = [
                step * 10.0**power
                for power in decades
                for step in steps
                if low * 0.999 <= step * 10.0**power <= high * 1.001
            ]
            if 2 <= len(found) <= most + 1:
                return found
        if len(found) > most + 1:
            return found[:: -(-len(found) // most)]
        return [low, high] if high > low else [low]
    if high <= low:
        high = low + 1.0
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_said(value: float) -> str:
    """Return a tick's number for people."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _grid(
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    across: str,
    upward: str,
) -> Html:
    floor = HEIGHT - BOTTOM
    pieces = []
    for value in y_ticks:
        y = place_y(value)
        pieces.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        pieces.append(element("text", tick_said(value), x=LEFT - 7, y=y + 4, class_="tick end"))
    for value in x_ticks:
        x = place_x(value)
        pieces.append(element("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="axis"))
        pieces.append(element("text", tick_said(value), x=x, y=floor + 17, class_="tick mid"))
    pieces.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="axis"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    pieces.append(element("text", across, x=middle, y=HEIGHT - 8, class_="label mid"))
    turned = f"translate(14 {(TOP + floor) / 2:.0f}) rotate(-90)"
    pieces.append(element("text", upward, transform=turned, class_="label mid"))
    return joined(*pieces)


def _line(
    line: Line,
    points: Sequence[tuple[float, float]],
    place_x: Callable[[float], float],
    place_y: Callable[[float], float],
) -> Html:
    colour = f"c{line.style % COLOURS}"
    pieces = []
    if line.band:
        upper = [(x, most) for x, _, most in line.band]
        lower = [(x, least) for x, least, _ in reversed(line.band)]
        outline = " ".join(f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in [*upper, *lower])
        pieces.append(element("polygon", points=outline, class_=f"band {colour}"))
    placed = [(place_x(x), place_y(y)) for x, y in points]
    if line.joined and len(placed) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        pieces.append(
            element("polyline", points=path, class_=f"line {colour}", stroke_dasharray=_dash(line.style))
        )
    every = max(1, -(-len(placed) // MOST_MARKERS))
    for index, ((x, y), (across, upward)) in enumerate(zip(placed, points, strict=True)):
        if index % every == 0 or index == len(placed) - 1:
            note = element("title", f"{line.name}: {upward:.4g} at {across:.4g}")
            pieces.append(marker(x, y, line.style, note))
        if index < len(line.notes):
            pieces.append(element("text", line.notes[index], x=x + 6, y=y - 6, class_="tick"))
    return joined(*pieces)


def _dash(style: int) -> str | None:
    return DASHES[style % len(DASHES)] or None


def _finite(points: Sequence[tuple[float, float]], log_x: bool, log_y: bool) -> list[tuple[float, float]]:
    return [
        (x, y)
        for x, y in points
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
    ]


def _scale(values: Sequence[float], start: float, end: float, log: bool) -> Callable[[float], float]:
    """Return the map from the values' range to pixels, a little room at the ends of a logarithm."""
    low, high = min(values), max(values)
    if log:
        low, high = math.log10(low), math.log10(high)
        low, high = low - 0.04 * (high - low or 1), high + 0.04 * (high - low or 1)
    span = (high - low) or 1.0

    def place(value: float) -> float:
        share = ((math.log10(value) if log else value) - low) / span
        return start + share * (end - start)

    return place
