"""Panels of bars: what each device is given, or what each method costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sflam.report.charts.figure import wrapped
from sflam.report.charts.lines import notes
from sflam.report.charts.style import ON_WHITE
from sflam.report.charts.tidy import DrawnPanel, DrawnPoint

MOST_NAMES, MOST_BARS = 24, 80
"""More names are numbered instead, if they are numbers already; more bars are steps, sorted."""


def bar_panel(
    title: str,
    names: Sequence[str],
    stacks: Mapping[str, Sequence[float]],
    *,
    upward: str,
    across: str = "device",
    colours: Sequence[str] = (),
    level: float | None = None,
    bars: Sequence[tuple[float, float]] = (),
) -> DrawnPanel:
    """Return a panel with a bar per name.

    Args:
        title: above.
        names: beneath the bars.
        stacks: label -> [n] values, one upon the other; what is not finite or below 0 has no bar. Labels are in the
            legend where there are several.
        upward: label of the y axis.
        across: label of the x axis.
        colours: of the stacks, or of every bar where there is one stack.
        level: where to draw a dashed line across.
        bars: [n] low and high ends of error bars on the sums, or none.
    """

    def panel(axes: Axes) -> None:
        axes.set_title(wrapped(title))
        axes.set_xlabel(across)
        axes.set_ylabel(upward)
        axes.grid(False, axis="x")
        values = [[_height(value) for value in each] for each in stacks.values()]
        places, base = range(len(names)), [0.0] * len(names)
        several, tints = len(stacks) > 1, [*colours] or [ON_WHITE["s0"]]
        if len(names) > MOST_BARS:
            axes.set_xlabel(f"{across}s, from the largest")
            order = sorted(places, key=lambda place: -sum(each[place] for each in values))
            values = [[each[place] for place in order] for each in values]
        for number, (label, each) in enumerate(zip(stacks, values, strict=True)):
            tops = [low + high for low, high in zip(base, each, strict=True)]
            tint = tints[number % len(tints)]
            name = label if several else None
            if len(names) > MOST_BARS:
                axes.fill_between(places, base, tops, step="mid", color=tint, linewidth=0, label=name)
            else:
                own = tints if len(tints) == len(names) and not several else tint
                drawn = axes.bar(places, each, bottom=base, color=own, width=0.72, label=name)
                for bar, who, value in zip(drawn, names, each, strict=True):
                    bar.set_gid(notes([f"{across} {who}: {value:.4g} {upward}{f' {label}' * several}"]))
            base = tops
        if bars and len(names) <= MOST_BARS:
            reach = [(top - low, high - top) for top, (low, high) in zip(base, bars, strict=True)]
            halves = list(zip(*reach, strict=True))
            axes.errorbar(places, base, halves, fmt="none", ecolor=ON_WHITE["ink"], elinewidth=1.1)
        if level is not None:
            axes.axhline(level, color=ON_WHITE["ink"], linestyle="--", linewidth=1.2)
        axes.set_ylim(0, 1.08 * max([*base, *(high for _, high in bars), level or 0.0], default=0.0) or 1.0)
        axes.set_xlim(-0.6, len(names) - 0.4)
        if all(value.is_integer() for each in values for value in each):
            axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        _name(axes, names)

    points = [
        DrawnPoint(
            panel=title,
            series=label,
            x_label=across,
            x=name,
            y_label=upward,
            y=float(value),
            **_ends(bars, place),
        )
        for label, each in stacks.items()
        for place, (name, value) in enumerate(zip(names, each, strict=True))
    ]
    return DrawnPanel(panel, points)


def _ends(bars: Sequence[tuple[float, float]], place: int) -> dict[str, float]:
    return {"low": bars[place][0], "high": bars[place][1]} if bars else {}


def _name(axes: Axes, names: Sequence[str]) -> None:
    numbers = list(names) == [str(place) for place in range(len(names))]
    if len(names) > MOST_BARS or (numbers and len(names) > 12):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        return
    every = -(-len(names) // MOST_NAMES)
    shown = [name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}" for name in names[::every]]
    crowded = sum(len(name) + 2 for name in shown) > 48
    turn: dict[str, Any] = (
        {"rotation": 55, "ha": "right", "rotation_mode": "anchor"} if crowded and not numbers else {}
    )
    axes.set_xticks(range(0, len(names), every), shown, fontsize=8 if crowded else 9, **turn)


def _height(value: float) -> float:
    return float(value) if math.isfinite(value) and value > 0 else 0.0
