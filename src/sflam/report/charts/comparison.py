"""Methods side by side as one picture: accuracy against rounds, bytes, virtual time and energy."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sflam.errors import RunError
from sflam.files import replace_file
from sflam.report.charts.legend import legend_beneath
from sflam.report.costs import COSTS, Cost, Runs, axis_from, is_known, share_of

# Okabe and Ito's palette without its yellow; markers and dashes say it twice.
STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "--"),
    ("#56B4E9", "P", "-."),
    ("#000000", "X", ":"),
    ("#999999", "*", "-"),
)


def draw_comparison(found: Mapping[str, Runs], path: Path, *, title: str = "") -> None:
    """Write the picture: a line per method, the mean over its seeds, in a band from the least to the most accurate.

    Args:
        found: method -> the rounds of each of its runs.
        path: the PNG.
        title: above it.

    Raises:
        RunError: the file cannot be written.
    """
    panels = [
        (name, across, cost)
        for name, across, cost in COSTS
        if any(is_known(runs, cost) for runs in found.values())
    ]
    rows = 1 if len(panels) <= 2 else 2
    columns = -(-len(panels) // rows)
    figure = Figure(figsize=(5.2 * columns, 3.9 * rows + 0.5), layout=ConstrainedLayoutEngine(w_pad=0.12))
    for place, (name, across, cost) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, place)
        _panel(axes, found, name, across, cost)
    legend_beneath(figure)
    if title:
        figure.suptitle(title, fontsize=12)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    try:
        replace_file(path, picture.getvalue())
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}; choose another folder") from error


def _panel(axes: Axes, found: Mapping[str, Runs], name: str, across: str, cost: Cost) -> None:
    lowest: list[float] = []
    for (method, runs), (colour, marker, line) in zip(found.items(), itertools.cycle(STYLES), strict=False):
        if not is_known(runs, cost):
            continue
        rounds = min(map(len, runs))
        shares = np.array([[100 * share_of(item) for item in run[:rounds]] for run in runs])
        costs = np.array([list(cost(run) or ())[:rounds] for run in runs]).mean(axis=0)
        seen = np.isfinite(shares).all(axis=0)
        lowest += shares[:, seen].ravel().tolist()
        axes.plot(
            costs[seen], shares[:, seen].mean(axis=0), color=colour, linestyle=line, marker=marker, label=method,
            linewidth=1.6, markersize=4,
        )  # fmt: skip
        if len(runs) > 1:
            axes.fill_between(
                costs[seen],
                shares[:, seen].min(axis=0),
                shares[:, seen].max(axis=0),
                color=colour,
                alpha=0.15,
            )
    axes.set_title(name, fontsize=11, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(least := axis_from(lowest), 100 + 0.04 * (100 - least))
    if "log" in across:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(True, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
