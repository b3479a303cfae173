"""The bound on convergence beside the measured gradient, and what each width would mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import look

CURVES = {
    "mean_gradient": "measured, mean so far",
    "bound": "bound (2.14), with this quantization",
    "bound_plain": "bound without quantization",
}


def draw_theory(found: Mapping[str, Any], *, title: str = "") -> Figure:
    """Return the squared gradient and its bound against steps, and the bias of every width beside the gradient.

    Args:
        found: what ``sflam theory --json`` prints.
        title: above.
    """
    points, widths = found["points"], found["widths"]
    lines = [
        Line(
            name="measured",
            points=[(row["steps"], row["gradient"]) for row in points],
            spread=[row["gradient_error"] for row in points],
            look=look(0),
            joined=False,
        )
    ]
    for number, (name, label) in enumerate(CURVES.items(), start=1):
        curve = [(row["steps"], row[name]) for row in points if row[name] is not None]
        lines.append(Line(name=label, points=curve, look=look(number)))
    share = [(row["bits"], row["bias_share"]) for row in widths if row["bits"] <= 8]
    asked = Line(name="a quarter: what a floor of bits allows", points=[(1, 0.25), (8, 0.25)], look=look(5))
    panels = [
        line_panel(title, lines, across="local steps", upward="squared gradient (log scale)", log_y=True),
        line_panel(
            "what rounding biases",
            [Line(name="squared bias over squared gradient", points=share, look=look(4)), asked],
            across="bits per value up",
            upward="share (log scale)",
            log_y=True,
        ),
    ]
    return draw(panels, size=(6.0, 4.4), note="bars: standard error over mini-batches")
