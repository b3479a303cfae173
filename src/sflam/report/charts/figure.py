"""A figure from panels: laid out, its lines named once beneath, its labels apart from one another; and its file."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Annotation

from sflam.errors import ConfigError, unknown
from sflam.files import replace_file, writing
from sflam.report.charts.style import styled
from sflam.report.charts.tidy import Drawing, points_of, rows_of
from sflam.report.tables import csv_text, write_text

Panel = Callable[[Axes], None]
"""Draws itself into axes."""
PANEL = (4.8, 3.5)
"""Inches of a panel."""
WIDTHS = {"": (0.0, 1), "ieee-1": (3.5, 1), "ieee-2": (7.16, 2)}
"""Name -> inches of a whole figure, and most panels in a row: one and two columns of an IEEE paper; "" for a screen."""
FORMATS = ("png", "pdf", "svg")
ROW, GAP = 0.24, 0.3
"""Inches that a figure grows by for every row of its legend but the first, and between its columns."""
NAMED, LEGEND_SHARE = 20, 0.3
"""Lines that a legend names in any case; of more, those that fit in so much of the figure's height."""
_PLACES = [(6, 4), (6, -10), (-6, 4), (-6, -10), (0, 8), (0, -14), (11, 9), (-11, -15)]


def draw(
    panels: Sequence[Panel],
    *,
    title: str = "",
    columns: int | None = None,
    size: tuple[float, float] = PANEL,
    legend: bool = True,
    note: str = "",
    width: str = "",
) -> Figure:
    """Return a figure of some panels.

    Args:
        panels: row by row.
        title: above all.
        columns: panels in a row; by default as many as make it about twice as wide as high.
        size: inches of a panel.
        legend: name the lines beneath.
        note: what error bars are, above the legend; left out where there are none.
        width: a name of ``WIDTHS``, which decides columns, size and letters.

    Raises:
        ConfigError: there is no such width.
    """
    if width:
        inches, most = _width(width)
        columns = min(most, len(panels))
        size = (inches / columns, inches / columns * 0.75)
    rows = -(-len(panels) // columns) if columns else 1 if len(panels) <= 3 else 2
    columns = columns or -(-len(panels) // rows)
    with styled(width):
        # A Figure without pyplot has neither a window nor a global state.
        engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
        figure = Drawing(figsize=(columns * size[0], rows * size[1] + 0.3 * bool(title)), layout=engine)
        figure.points = tuple(points_of(panels))
        for place, panel in enumerate(panels, start=1):
            panel(figure.add_subplot(rows, columns, place))
        if title:
            figure.suptitle(wrapped(title, columns * size[0]))
        if legend:
            legend_beneath(figure, note if any(axes.containers for axes in figure.axes) else "")
        if any(isinstance(text, Annotation) for axes in figure.axes for text in axes.texts):
            _place_labels(figure)
    return figure


def wrapped(text: str, inches: float = PANEL[0]) -> str:
    """Return a title or label in lines that fit."""
    return textwrap.fill(" ".join(text.split()), max(20, int(11 * inches)))


def legend_beneath(figure: Figure, note: str = "") -> None:
    """Name every line once, in as many columns as fit beneath; the figure grows by what more rows need.

    Of more lines than there is room for, some are named, evenly spread.
    """
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        if not axes.get_ylabel().startswith(f"{label} (")  # its axis names it
    }
    if not handles:
        return
    texts, items = list(handles), list(handles.values())
    letters = rcParams["legend.fontsize"]
    look: dict[str, Any] = {"fontsize": letters, "handlelength": 3.0}
    single = figure.legend(items, texts, ncols=1, **look)
    widest = single.get_window_extent().width / figure.dpi
    single.remove()
    width, height = figure.get_size_inches()
    columns = max(1, min(len(handles), int(width / (widest + GAP))))
    most = max(NAMED, columns * int(LEGEND_SHARE * height / ROW))
    if len(items) > most:
        shown = np.linspace(0, len(items) - 1, most).astype(int)
        note = "; ".join(filter(None, (note, f"{most} of {len(items)} lines are named, all are in the data")))
        items, texts = [items[at] for at in shown], [texts[at] for at in shown]
    figure.set_size_inches(width, height + ROW * (-(-len(items) // columns) + bool(note) - 1))
    look |= {
        "title": note or None,
        "title_fontsize": letters,
        "loc": "outside lower center",
        "ncols": columns,
    }
    figure.legend(items, texts, **look)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, all of it or nothing; raises RunError where it cannot be written."""
    picture = io.BytesIO()
    with styled():
        figure.savefig(picture, format="png", dpi=150)
    with writing(path, "choose another folder"):
        replace_file(path, picture.getvalue())


def save_all(figure: Figure, stem: Path, formats: Collection[str] = FORMATS) -> list[Path]:
    """Write a figure in several formats, and what it shows as a tidy CSV file, beside one another.

    Args:
        figure: of this package, or of one's own, which has no CSV file.
        stem: the path without a suffix.
        formats: of ``png``, ``pdf`` and ``svg``.

    Returns:
        What was written.

    Raises:
        RunError: it cannot be written.
    """
    paths = []
    for name in formats:
        paths.append(stem.with_name(f"{stem.name}.{name}"))
        if name == "png":
            save(figure, paths[-1])
            continue
        drawn = io.BytesIO()
        with styled():  # without a date, so that the same numbers make the same file
            figure.savefig(drawn, format=name, metadata={"CreationDate" if name == "pdf" else "Date": None})
        with writing(paths[-1], "choose another folder"):
            replace_file(paths[-1], drawn.getvalue())
    if rows := rows_of(figure):
        paths.append(stem.with_name(f"{stem.name}.csv"))
        write_text(paths[-1], csv_text(rows))
    return paths


def _width(name: str) -> tuple[float, int]:
    if name not in WIDTHS:
        raise ConfigError(unknown("width", name, [each for each in WIDTHS if each]))
    return WIDTHS[name]


def _place_labels(figure: Figure) -> None:
    """Move every annotation to where it covers neither text nor mark; hide it where its axes have no room."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        labels = [text for text in axes.texts if isinstance(text, Annotation)]
        frame = axes.get_window_extent()
        marks = axes.transData.transform([label.xy for label in labels] or np.empty((0, 2)))
        others = [text.get_window_extent().padded(6).extents for text in axes.texts if text not in labels]
        taken = np.vstack([np.hstack([marks - 4, marks + 4]), *others])
        for label in labels:
            for place in _PLACES:
                label.set_position(place)
                label.set_horizontalalignment(
                    "center" if not place[0] else "left" if place[0] > 0 else "right"
                )
                box = label.get_window_extent().padded(1.5)
                x0, y0, x1, y1 = taken.T
                free = not ((box.x0 < x1) & (x0 < box.x1) & (box.y0 < y1) & (y0 < box.y1)).any()
                if free and frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1):
                    taken = np.vstack([taken, box.extents])
                    break
            else:
                label.set_visible(False)
