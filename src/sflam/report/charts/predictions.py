"""What was taken for what, and how often predictions of a confidence are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sflam.report.charts.bars import MOST_NAMES, bar_panel
from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.style import ON_WHITE
from sflam.report.charts.tidy import DrawnPanel, DrawnPoint

MOST_COUNTS = 16
"""More classes than these have no number in their cells."""


def draw_predictions(
    confusion: NDArray[np.int64],
    classes: Sequence[str],
    bins: Sequence[tuple[float, float, int]],
    *,
    title: str = "",
    devices: Sequence[tuple[int, float]] = (),
) -> Figure:
    """Return a confusion matrix beside a reliability diagram, and how well devices do on their own samples.

    Args:
        confusion: [C,C] samples of the row's class that were taken for the column's.
        classes: names of the C classes.
        bins: mean confidence, accuracy and number of the predictions of each bin of confidence.
        title: above all.
        devices: number and accuracy of each; none has no panel.
    """
    panels = [_confusion(confusion, classes), _reliability(bins)]
    if devices:
        panels.append(
            bar_panel(
                "devices on their own samples",
                [str(device) for device, _ in devices],
                {"accuracy": [100 * share for _, share in devices]},
                upward="accuracy (%)",
            )
        )
    return draw(panels, title=title)


def _confusion(confusion: NDArray[np.int64], classes: Sequence[str]) -> Panel:
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)

    def panel(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_title("what was taken for what")
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.grid(visible=False)
        every = -(-len(classes) // MOST_NAMES)
        places, names = range(0, len(classes), every), [_short(name) for name in classes[::every]]
        turn = 0 if max(map(len, names)) <= 3 else 45
        axes.set_xticks(places, names, rotation=turn, ha="right" if turn else "center", fontsize=8)
        axes.set_yticks(places, names, fontsize=8)
        if len(classes) > MOST_COUNTS:
            return
        for true, predicted in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if shares[true, predicted] > 0.55 else ON_WHITE["ink"]
            axes.text(
                predicted,
                true,
                str(confusion[true, predicted]),
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
            )

    points = [
        DrawnPoint(
            panel="confusion",
            series=classes[true],
            x_label="predicted",
            x=classes[predicted],
            y_label="samples",
            y=float(confusion[true, predicted]),
        )
        for true in range(len(classes))
        for predicted in range(len(classes))
    ]
    return DrawnPanel(panel, points)


def _reliability(bins: Sequence[tuple[float, float, int]]) -> Panel:
    total = sum(count for _, _, count in bins)

    def panel(axes: Axes) -> None:
        axes.set_title("right at a confidence")
        axes.set_xlabel("mean confidence")
        axes.set_ylabel("share predicted right")
        axes.plot([0, 1], [0, 1], color=ON_WHITE["quiet"], linestyle="--", linewidth=1.2)
        sizes = [30 + 300 * count / total for _, _, count in bins]
        axes.scatter(
            [x for x, _, _ in bins], [y for _, y, _ in bins], s=sizes, color=ON_WHITE["s0"], alpha=0.75
        )
        for x, y, count in bins:
            axes.annotate(
                f"{count / total:.0%}",
                (x, y),
                xytext=(-9, 7),
                textcoords="offset points",
                fontsize=8,
                ha="right",
            )
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.06)

    points = [
        DrawnPoint(
            panel="reliability", series="", x_label="confidence", x=x, y_label="share predicted right", y=y
        )
        for x, y, _ in bins
    ]
    return DrawnPanel(panel, points)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:8]}…{name[-5:]}"
