"""Figures of runs for a paper or a notebook: each returns a matplotlib ``Figure``, or draws into given axes.

The same panels, colours and markers as in the pictures and pages that commands write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sflam.errors import ConfigError, unknown
from sflam.records.history import RoundRecord
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.comparison import bars_note, comparison_panels
from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.style import looks_of, styled
from sflam.report.charts.tidy import DrawnPanel
from sflam.report.costs import COSTS, unit_of
from sflam.report.plus_minus import UNITS
from sflam.report.statistics import interval
from sflam.report.totals import totals

AGAINST = {"rounds": 0, "bytes": 1, "seconds": 2, "joules": 3}
"""What accuracy is drawn against -> its place in ``COSTS``."""
FIGURES = {
    "accuracy": ("test accuracy", "%"),
    "seconds": ("virtual time of the run", "s"),
    "joules": ("energy of the run", "J"),
    "bytes": ("sent, both ways", "B"),
}
"""What bars show -> its label and unit."""
Lines = Mapping[str, Sequence[Sequence[RoundRecord]]]
"""Name -> the rounds of each of its runs, by seed."""


def draw_accuracy(
    found: Lines, against: str = "rounds", *, axes: Axes | None = None, width: str = ""
) -> Figure:
    """Return accuracy against what it cost, a line per name, with 95 % confidence intervals over its runs.

    Args:
        found: name -> the rounds of each of its runs, as ``sflam.read_runs`` returns them.
        against: ``rounds``, ``bytes``, ``seconds`` or ``joules``; lines without this cost are left out.
        axes: drawn into, and their figure is returned; None makes one.
        width: of a figure that is made: ``ieee-1`` or ``ieee-2``, one and two columns; "" for a screen.

    Raises:
        ConfigError: no such cost or width, or no line has this cost.
    """
    if against not in AGAINST:
        raise ConfigError(unknown("cost", against, AGAINST))
    title = COSTS[AGAINST[against]][0]
    panels = [panel for panel in comparison_panels(found) if panel.points[0].panel == title]
    if not panels:
        raise ConfigError(
            f"none of {', '.join(found)} has {against}; draw it against rounds, or simulate a network"
        )
    return _drawn(panels[0], found, axes, width)


def draw_cost(found: Lines, figure: str = "seconds", *, axes: Axes | None = None, width: str = "") -> Figure:
    """Return a bar per name with its 95 % confidence interval over runs.

    Args:
        found: name -> the rounds of each of its runs.
        figure: ``accuracy``, ``seconds``, ``joules`` or ``bytes``; names without it are left out.
        axes: as of :func:`draw_accuracy`.
        width: as of :func:`draw_accuracy`.

    Raises:
        ConfigError: no such figure or width, or no name has it.
    """
    if figure not in FIGURES:
        raise ConfigError(unknown("figure", figure, FIGURES))
    panel = cost_panel(found, figure)
    if panel is None:
        raise ConfigError(
            f"none of {', '.join(found)} has {figure}; simulate a network, or draw another figure"
        )
    return _drawn(panel, found, axes, width, legend=False)


def cost_panel(found: Lines, figure: str) -> DrawnPanel | None:
    """Return the bars of a key of ``FIGURES``; None where no name has it."""
    label, unit = FIGURES[figure]
    known = {
        name: mean for name, runs in found.items() if (mean := interval([_sum(run, figure) for run in runs]))
    }
    if not known:
        return None
    most = max(abs(item.mean) for item in known.values())
    scale, name = (0.01, "%") if unit == "%" else unit_of(most, UNITS[unit])
    looks = looks_of(list(found))
    several = any(item.half is not None for item in known.values())
    return bar_panel(
        label.capitalize(),
        list(known),
        {"": [item.mean / scale for item in known.values()]},
        upward=name,
        across="method",
        colours=[looks[each].colour for each in known],
        bars=[
            ((item.mean - (item.half or 0.0)) / scale, (item.mean + (item.half or 0.0)) / scale)
            for item in known.values()
        ]
        if several
        else (),
    )


def _drawn(panel: Panel, found: Lines, axes: Axes | None, width: str, *, legend: bool = True) -> Figure:
    if axes is None:
        return draw([panel], note=bars_note(_seeds(found)), width=width, legend=legend)
    with styled(width):
        panel(axes)
        if legend:
            axes.legend()
    drawn: Any = axes.get_figure(root=True)
    assert isinstance(drawn, Figure)
    return drawn


def _seeds(found: Lines) -> int:
    return max(map(len, found.values()), default=0)


def _sum(run: Sequence[RoundRecord], figure: str) -> float | None:
    sums = totals(run)
    values = {
        "accuracy": sums.accuracy,
        "seconds": sums.virtual_s,
        "joules": sums.energy_j,
        "bytes": float(sums.total_bytes),
    }
    return values[figure]
