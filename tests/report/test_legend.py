"""A legend names every line once and stays within the picture, however long the names are."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from sflam.report.charts.legend import legend_beneath


@pytest.mark.parametrize("longest", [3, 18, 40])
@pytest.mark.parametrize("width", [5.4, 10.8])
def test_it_fits_beneath_the_picture(longest: int, width: float) -> None:
    figure = Figure(figsize=(width, 4.5), layout="constrained")
    for axes in figure.subplots(1, 2):
        for line in range(7):
            axes.plot([0, 1], [line, line], label=f"{line}".ljust(longest, "m"))
    legend_beneath(figure)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 7
    box, whole = legend.get_window_extent(), figure.bbox
    if longest < 40:  # a single name may be wider than a narrow picture
        assert box.x0 >= whole.x0 and box.x1 <= whole.x1
    assert box.y0 >= whole.y0 - 1
    assert all(axes.get_window_extent().height > 0.5 * whole.height for axes in figure.axes)


def test_a_picture_without_lines_has_no_legend() -> None:
    figure = Figure()
    figure.subplots()
    legend_beneath(figure)
    assert not figure.legends
