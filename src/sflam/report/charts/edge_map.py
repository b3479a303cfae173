"""A map of a plan for several servers: who is where, whose server is which, and how many layers stay at home."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from sflam.errors import RunError
from sflam.plan import ALL_LOCAL, Plan
from sflam.report.charts.plan import save

Floats = NDArray[np.float64]
# Okabe and Ito's palette without yellow, which lines on white do not show; then Paul Tol's muted colours
COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"),
    *("#332288", "#882255", "#117733", "#AA4499", "#999933", "#661100"),
)
LOCAL = "0.35"
MOST_NUMBERS = 120
"""More users than this have no number of layers beside them."""


def draw_map(plan: Plan, users: Floats, servers: Floats, path: Path, *, layers: int, title: str = "") -> None:
    """Write a PNG with a line from every user to its server; users that train all layers themselves are crosses.

    Args:
        plan: of users among servers.
        users: [N, 2] m.
        servers: [M, 2] m.
        path: of the PNG.
        layers: of the model.
        title: above the picture.

    Raises:
        RunError: the plan has no users, or the file cannot be written.
    """
    if not len(plan.devices):
        raise RunError(f"no users to draw in {path}; the plan is {plan.status.value}")
    figure = Figure(figsize=(7.6, 8.2), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots()
    told = plan.devices
    away = told.server != ALL_LOCAL
    few = len(told) <= MOST_NUMBERS
    for m, place in enumerate(servers):
        colour = COLOURS[m % len(COLOURS)]
        mine = np.flatnonzero(told.server == m)
        for user in mine:
            axes.plot(
                *zip(place, users[user], strict=True), color=colour, linewidth=1.0, alpha=0.55, zorder=1
            )
        axes.scatter(
            users[mine, 0],
            users[mine, 1],
            s=46 if few else 22,
            color=colour,
            edgecolor="white",
            linewidth=0.8,
            zorder=3,
        )
        axes.scatter(
            place[0], place[1], s=230, marker="s", color=colour, edgecolor="black", linewidth=1.2, zorder=4
        )
        axes.annotate(
            str(m), place, color="white", fontsize=9, weight="bold", ha="center", va="center", zorder=5
        )
    axes.scatter(
        users[~away, 0],
        users[~away, 1],
        s=52 if few else 26,
        marker="X",
        color=LOCAL,
        edgecolor="white",
        zorder=3,
    )
    if few:
        for user in np.flatnonzero(away):
            axes.annotate(
                str(told.cut[user]),
                users[user],
                textcoords="offset points",
                xytext=(6, 4),
                fontsize=8,
                color="0.2",
                zorder=6,
            )
    count = np.bincount(told.server[away], minlength=len(servers))
    marks = [
        Line2D([], [], linestyle="none", marker="s", markersize=9, color="0.6", markeredgecolor="black"),
        Line2D([], [], linestyle="-", marker="o", markersize=7, color="0.6"),
        Line2D([], [], linestyle="none", marker="X", markersize=8, color=LOCAL),
    ]
    labels = [
        f"server ({', '.join(f'{m}: {n}' for m, n in enumerate(count))} users)",
        f"user at its server{f', with its layers of {layers}' if few else ''}",
        f"trains all {layers} layers itself ({int((~away).sum())})",
    ]
    figure.legend(marks, labels, loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    axes.set_aspect("equal")
    axes.set_title(title or "Users and their servers", fontsize=12, loc="left")
    axes.set_xlabel("m")
    axes.set_ylabel("m")
    axes.grid(True, color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
