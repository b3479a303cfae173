"""What a figure shows as numbers: a row a point, with the words of its panel and its axes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sflam.report.charts.style import styled


@dataclass(frozen=True, kw_only=True)
class DrawnPoint:
    """One point or bar of a figure.

    Attributes:
        panel: the title above it.
        series: the line it is on; "" where there is one alone.
        x_label: what is across.
        x: where, a number or the name beneath a bar.
        y_label: what is upward.
        y: how high.
        low: the lower end of its error bar; None without one.
        high: the upper end.
    """

    panel: str
    series: str
    x_label: str
    x: float | str
    y_label: str
    y: float
    low: float | None = None
    high: float | None = None


class DrawnPanel:
    """A panel that knows what it draws.

    Args:
        draw: draws into axes.
        points: what is drawn, whether or not the axes show all of it.
    """

    def __init__(self, draw: Callable[[Axes], None], points: Sequence[DrawnPoint]) -> None:
        self._draw, self.points = draw, tuple(points)

    def __call__(self, axes: Axes) -> None:
        """Draw into axes."""
        self._draw(axes)


class Drawing(Figure):
    """A figure with the points of its panels.

    Attributes:
        points: of every panel, in order.
    """

    points: tuple[DrawnPoint, ...] = ()

    def _repr_png_(self) -> bytes:
        """Return what a notebook shows: a picture on white, so that it is read on dark paper too."""
        drawn = io.BytesIO()
        with styled():
            self.savefig(drawn, format="png", dpi=90, facecolor="white")
        return drawn.getvalue()


def points_of(panels: Sequence[object]) -> Iterator[DrawnPoint]:
    """Yield what the panels show, of those that know."""
    for panel in panels:
        if isinstance(panel, DrawnPanel):
            yield from panel.points


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    """Return a figure's points as rows of equal keys; none of a figure that does not know them."""
    return [asdict(point) for point in figure.points] if isinstance(figure, Drawing) else []
