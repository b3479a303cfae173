"""What less given away costs: the time of a round against the score of the best attack."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from sflam.errors import RunError
from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import ON_WHITE, look


def draw_leakage(points: Sequence[tuple[float, float, int]], *, title: str = "") -> Figure:
    """Return the shortest planned round for every score that the best attack may reach.

    Args:
        points: (score, seconds, least cut) of the best plan at each.
        title: above.

    Raises:
        RunError: there are no points.
    """
    if not points:
        raise RunError("no points to draw; no cut that was audited has a plan")
    own = look(0)._replace(colour=ON_WHITE["quiet"], marker=".")
    lines = [Line(name="", points=sorted((leak, seconds) for leak, seconds, _ in points), look=own)]
    looks = [look(number) for number in range(len(points))]
    lines += [
        Line(name=f"cut {cut} or deeper", points=[(leak, seconds)], look=each, joined=False)
        for (leak, seconds, cut), each in zip(points, looks, strict=True)
    ]
    panel = line_panel(
        title or "What less given away costs",
        lines,
        across="score of the best attack",
        upward="time of a round (s)",
        from_zero=False,
    )
    return draw([panel], size=(7.0, 4.4))
