"""The legend of a picture, beneath it, in as many columns as fit beside one another."""

from __future__ import annotations

from matplotlib.figure import Figure

ROW = 0.24
"""Inches that the figure grows by for every row but the first."""
GAP = 0.3
"""Inches between columns."""


def legend_beneath(figure: Figure) -> None:
    """Name every line of a figure once, in rows beneath it; the figure grows by what more than one row needs."""
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if not handles:
        return
    single = figure.legend(handles.values(), handles.keys(), ncols=1, frameon=False)
    widest = single.get_window_extent().width / figure.dpi
    single.remove()
    width, height = figure.get_size_inches()
    columns = max(1, min(len(handles), int(width / (widest + GAP))))
    figure.set_size_inches(width, height + ROW * (-(-len(handles) // columns) - 1))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
