"""Panels of lines: values against a cost or a setting, with error bars, linear or logarithmic."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from sflam.report.charts.figure import wrapped
from sflam.report.charts.style import QUIET, Look, look
from sflam.report.charts.tidy import DrawnPanel, DrawnPoint
from sflam.report.costs import zoom

FIRST = look(0)
MOST_MARKERS, MOST_BARS = 48, 8
"""More markers in a panel would hide its lines, as would more error bars on one of them."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a panel.

    Attributes:
        name: in the legend and when pointed at.
        points: (x, y), x ascending; what is not finite is left out.
        look: its colour, marker and dash.
        spread: of every point, half the length of its error bar; or none.
        joined: whether its points are connected.
        labels: a word beside each point, or none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    look: Look = FIRST
    spread: Sequence[float] = ()
    joined: bool = True
    labels: Sequence[str] = ()


def line_panel(
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    upward: str,
    log_x: bool = False,
    log_y: bool = False,
    percent: bool = False,
    from_zero: bool = True,
    ticks_at: Sequence[float] = (),
) -> DrawnPanel:
    """Return a panel of lines; without a finite point it shows "not measured".

    Args:
        title: above.
        lines: what is drawn.
        across: label of the x axis.
        upward: label of the y axis.
        log_x: logarithmic x; points at 0 or below are left out.
        log_y: the same of y.
        percent: y is a percentage: the axis shows where the data are, and its label names the range.
        from_zero: linear axes begin at 0 where no value is below; else where the data do.
        ticks_at: x values to be labelled, instead of round ones.
    """

    def panel(axes: Axes) -> None:
        axes.set_title(wrapped(title))
        axes.set_xlabel(wrapped(across))
        shown = [(line, _finite(line, log_x, log_y)) for line in lines]
        xs = [x for _, points in shown for x, _, _, _ in points]
        ends = [y + sign * bar for _, points in shown for _, y, bar, _ in points for sign in (-1, 1)]
        if not xs:
            axes.text(
                0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=QUIET
            )
        for place, (line, points) in enumerate(shown):
            _draw(axes, line, points, place, len(shown))
        if log_x and xs:
            known = [tick for tick in ticks_at if math.isfinite(tick) and tick > 0]
            _log_axis(axes, "x", [*xs, *known], known)
        elif xs:
            if from_zero and min(xs) >= 0:
                axes.set_xlim(0, 1.04 * max(xs) or 1)
            whole = all(x.is_integer() for x in xs)
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=whole, min_n_ticks=1, steps=[1, 2, 5, 10]))
        if log_y and xs:
            _log_axis(axes, "y", [end for end in ends if end > 0])
        if percent:
            low, high = zoom(ends)
            axes.set_ylim(low - 0.02 * (high - low) * (low > 0), high + 0.03 * (high - low))
            axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            whole = (low, high) == (0, 100)
            axes.set_ylabel(upward if whole else f"{upward}, axis {low:g} to {high:g}")
        else:
            axes.set_ylabel(upward)
            if from_zero and not log_y and min(ends, default=0.0) >= 0:
                axes.set_ylim(0, 1.08 * max(ends, default=0.0) or 1.0)

    return DrawnPanel(panel, list(_points(title, lines, across, upward)))


def _points(title: str, lines: Sequence[Line], across: str, upward: str) -> Iterator[DrawnPoint]:
    """Yield every point of the lines, also those that the axes leave out."""
    for line in lines:
        for (x, y), bar in zip(line.points, line.spread or [0.0] * len(line.points), strict=True):
            yield DrawnPoint(
                panel=title,
                series=line.name,
                x_label=across,
                x=float(x),
                y_label=upward,
                y=float(y),
                low=float(y - bar) if line.spread else None,
                high=float(y + bar) if line.spread else None,
            )


def notes(words: Sequence[str]) -> str:
    """Return the id of an artist whose marks show notes when pointed at, on a page."""
    return "notes " + json.dumps(list(words))


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return numbers for a logarithmic axis: 1, 2 and 5 of every power of ten, or fewer where those are too many."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        every = (step * 10.0**power for power in decades for step in steps)
        found = [value for value in every if low * 0.999 <= value <= high * 1.001]
        if 2 <= len(found) <= most:
            return found
    if len(found) > most:
        return found[:: -(-len(found) // most)]
    return [low, high] if high > 1.05 * low else [low]


def short(value: float) -> str:
    """Return a tick's number for people."""
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _draw(
    axes: Axes, line: Line, points: list[tuple[float, float, float, str]], place: int, count: int
) -> None:
    xs, ys, bars, labels = zip(*points, strict=True) if points else ((), (), (), ())
    every = max(1, round(len(xs) * min(count, 4) / MOST_MARKERS))
    start = (place * every) // count  # markers and bars of several lines stand side by side
    marked = range(start if line.joined else 0, len(xs), every if line.joined else 1)
    look = line.look.line | ({} if line.joined else {"linestyle": "none"})
    (drawn,) = axes.plot(xs, ys, markevery=list(marked), label=line.name, **look)
    drawn.set_gid(notes([f"{line.name}: {ys[at]:.4g} at {xs[at]:.4g}" for at in marked]))
    if any(bars):
        step = -(-len(xs) // MOST_BARS)
        at = slice((place * step) // count, None, step)
        axes.errorbar(xs[at], ys[at], bars[at], fmt="none", ecolor=line.look.colour, elinewidth=1.1)
    for x, y, label in zip(xs, ys, labels, strict=True):
        if label:
            axes.annotate(label, (x, y), xytext=(6, 4), textcoords="offset points", fontsize=8)


def _finite(line: Line, log_x: bool, log_y: bool) -> list[tuple[float, float, float, str]]:
    """Return x, y, half the error bar and label of every point that can be drawn."""
    spread = [bar if math.isfinite(bar) else 0.0 for bar in line.spread] or [0.0] * len(line.points)
    labels = line.labels or [""] * len(line.points)
    return [
        (float(x), float(y), float(bar), label)
        for (x, y), bar, label in zip(line.points, spread, labels, strict=True)
        if math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)
    ]


def _log_axis(axes: Axes, which: str, values: Sequence[float], ticks: Sequence[float] = ()) -> None:
    low, high = min(values), max(values)
    room = max((high / low) ** 0.06, 1.05)
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low / room, high * room)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks or round_ticks(low, high)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
