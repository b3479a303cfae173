"""What a swept setting changes, as one picture: accuracy against it, and time against energy along it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from sflam.errors import RunError
from sflam.files import replace_file
from sflam.records.saved import FRONT
from sflam.report.charts.comparison import STYLES
from sflam.report.charts.legend import legend_beneath
from sflam.report.costs import axis_from

Row = Mapping[str, Any]
Lines = Mapping[str, Sequence[tuple[float, Row]]]


def draw_sweeps(
    sweeps: Mapping[str, Lines], path: Path, *, labels: Mapping[str, str], methods: Mapping[str, Row]
) -> None:
    """Write a PNG with a panel per axis.

    Args:
        sweeps: axis -> name -> (value, means as ``Compared.to_dict`` gives them), values ascending.
        path: of the PNG.
        labels: axis -> what to write beneath.
        methods: name -> means at the job's own settings; single points beside the front.

    Raises:
        RunError: the file cannot be written.
    """
    figure = Figure(
        figsize=(5.4 * max(1, len(sweeps)), 4.5), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    )
    names = list(dict.fromkeys([*methods, *(name for lines in sweeps.values() for name in lines)]))
    styles = dict(zip(names, itertools.cycle(STYLES), strict=False))
    for place, (axis, lines) in enumerate(sweeps.items(), start=1):
        axes = figure.add_subplot(1, len(sweeps), place)
        if axis == FRONT:
            _front(axes, lines, methods, styles)
        else:
            _accuracy(axes, lines, labels[axis], styles)
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    legend_beneath(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        replace_file(path, picture.getvalue())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def _accuracy(axes: Axes, lines: Lines, label: str, styles: Mapping[str, tuple[str, str, str]]) -> None:
    values = sorted({value for line in lines.values() for value, _ in line})
    for name, line in lines.items():
        colour, marker, dash = styles[name]
        spread = [100 * (row["accuracy_spread"] or 0.0) for _, row in line]
        axes.errorbar(
            [value for value, _ in line],
            [100 * row["accuracy"] for _, row in line],
            yerr=spread if any(spread) else None,
            color=colour, marker=marker, linestyle=dash, capsize=3, linewidth=1.6, markersize=5, label=name,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(label)
    axes.set_ylabel("test accuracy (%)")
    shares = [
        100 * (row["accuracy"] - (row["accuracy_spread"] or 0.0))
        for line in lines.values()
        for _, row in line
    ]
    axes.set_ylim(least := axis_from(shares), 100 + 0.04 * (100 - least))
    axes.set_title(f"Accuracy by {label.partition(':')[0].partition(' of ')[0]}", fontsize=11, loc="left")


def _front(
    axes: Axes, lines: Lines, methods: Mapping[str, Row], styles: Mapping[str, tuple[str, str, str]]
) -> None:
    for name, line in lines.items():
        colour, marker, dash = styles[name]
        points = [(row["virtual_s"], row["energy_j"], value) for value, row in line]
        axes.plot(
            [seconds for seconds, _, _ in points],
            [joules for _, joules, _ in points],
            color=colour, marker=marker, linestyle=dash, linewidth=1.6, markersize=5, label=name,
        )  # fmt: skip
        for seconds, joules, value in points:
            axes.annotate(
                f"{value:g}", (seconds, joules), xytext=(5, 4), textcoords="offset points", fontsize=8
            )
    for name, row in methods.items():
        if name not in lines and row["virtual_s"] is not None and row["energy_j"] is not None:
            colour, marker, _ = styles[name]
            axes.plot(
                row["virtual_s"], row["energy_j"], color=colour, marker=marker, linestyle="", label=name
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("virtual time of a run (s, log scale)")
    axes.set_ylabel("energy of a run (J, log scale)")
    axes.set_title("Time against energy, by weight of time", fontsize=11, loc="left")
