"""What attacks found against the cut, a line per width, and images beside what came back of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import look
from sflam.report.terminal.audit_table import width_text

Row = tuple[str, NDArray[np.float64]]
"""A name, and images [N,S,S,C] in [0, 1]."""
SHOWN = 8
"""Images of a row."""
GAP = 2
"""Pixels between images."""


def draw_audit(found: Mapping[str, Any], rows: Sequence[Row] = (), *, title: str = "") -> Figure:
    """Return the best attack against the cut for every width, beside the guess, and rows of images.

    Args:
        found: what ``sflam audit --json`` prints.
        rows: the same images, as they are and as attacks found them.
        title: above all.
    """
    return draw(audit_panels(found, rows), title=title)


def audit_panels(found: Mapping[str, Any], rows: Sequence[Row] = ()) -> list[Panel]:
    """Return the panels of :func:`draw_audit`."""
    # gradients of the loss do not come from a cut
    there = [each for each in found["findings"] if each["attack"] != "gradients" and not each["noise"]]
    there = there or [each for each in found["findings"] if each["attack"] != "gradients"]
    abouts = [name for name in ("images", "texts", "labels") if any(each["about"] == name for each in there)]
    panels = [_scores([each for each in there if each["about"] == name], name) for name in abouts]
    noisy = any(cell["noise"] and cell["accuracy"] is not None for cell in found["cells"])
    panels += [_cost_of_noise(found, abouts[0])] if noisy else []
    return [*panels, *([_gallery(rows)] if rows else [])]


def _cost_of_noise(found: Mapping[str, Any], about: str) -> Panel:
    """The best attack against the accuracy that is left, a line per cut over its noises, at one width."""
    cells = [cell for cell in found["cells"] if cell["accuracy"] is not None]
    sent = {each["bits"] for each in found["sent"]}
    width = next((cell["bits"] for cell in cells if cell["bits"] in sent), cells[0]["bits"])
    lines = []
    for number, cut in enumerate(sorted({cell["cut"] for cell in cells})):
        own = sorted(
            (c for c in cells if (c["cut"], c["bits"]) == (cut, width)), key=lambda cell: cell["noise"]
        )
        points = sorted((cell["accuracy"], cell["leak"]) for cell in own)
        lines.append(Line(name=f"cut {cut}", points=points, look=look(number)))
    measure = next(each["measure"] for each in found["findings"] if each["about"] == about)
    return line_panel(f"what noise leaves and hides, {about}", lines, across="accuracy", upward=measure)


def _scores(there: Sequence[Mapping[str, Any]], about: str) -> Panel:
    widths = sorted({each["bits"] for each in there}, key=lambda bits: bits or 99)
    cuts = sorted({each["cut"] for each in there})
    lines = []
    for number, bits in enumerate(widths):
        best = [
            (cut, [each["score"] for each in there if (each["cut"], each["bits"]) == (cut, bits)])
            for cut in cuts
        ]
        points = [(cut, max(scores)) for cut, scores in best if scores]
        lines.append(
            Line(
                name=f"{width_text(bits)}{'' if bits is None else ' bits'}", points=points, look=look(number)
            )
        )
    guess = there[0]["guess"]
    lines.append(Line(name="a guess", points=[(cuts[0], guess), (cuts[-1], guess)], look=look(len(widths))))
    return line_panel(f"best attack on {about}", lines, across="cut", upward=there[0]["measure"])


def _gallery(rows: Sequence[Row]) -> Panel:
    """One row of images beneath the other."""
    lines = [np.concatenate([_framed(image) for image in images[:SHOWN]], axis=1) for _, images in rows]
    picture = np.concatenate(lines, axis=0)
    height = len(picture) / len(rows)

    def panel(axes: Axes) -> None:
        grey = picture.shape[-1] == 1
        axes.imshow(picture[..., 0] if grey else picture, cmap="gray" if grey else None, vmin=0, vmax=1)
        axes.set_title("best attack on each image")
        axes.set_yticks([(number + 0.5) * height for number in range(len(rows))], [name for name, _ in rows])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.grid(visible=False)

    return panel


def _framed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an image with a white margin."""
    return np.pad(image, ((GAP, GAP), (GAP, GAP), (0, 0)), constant_values=1.0)
