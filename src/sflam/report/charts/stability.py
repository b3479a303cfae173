"""Measured stability and its bounds against the tuned fraction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import look
from sflam.report.terminal.stability_table import BOUNDS


def draw_stability(found: Mapping[str, Any], *, title: str = "") -> Figure:
    """Return the measurement, with its standard error, and the finite bounds; losses on a log scale.

    Args:
        found: what ``sflam stability --json`` prints.
        title: above.
    """
    rows = found["fractions"]
    measured = [(row["fraction"], row["measured"]) for row in rows]
    errors = [row["error"] or 0.0 for row in rows]
    lines = [Line(name="measured", points=measured, spread=errors, look=look(0))]
    for number, (name, label) in enumerate(BOUNDS.items(), start=1):
        points = [(row["fraction"], row[name]) for row in rows if row[name] is not None]
        if points:
            lines.append(Line(name=label, points=points, look=look(number)))
    panel = line_panel(
        title,
        lines,
        across="tuned fraction p (tuned layers / all layers)",
        upward="average-replace-one stability (nats, log scale)",
        log_y=True,
    )
    return draw([panel], size=(7.0, 4.6), note="bars: standard error over independent training sets")
