"""A map of a plan for several servers: who is where, whose server is which, and how many layers stay at home."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sflam.errors import RunError
from sflam.plan import ALL_LOCAL, Plan
from sflam.report.charts.figure import draw, wrapped
from sflam.report.charts.style import CARD, INK, QUIET, look

Floats = NDArray[np.float64]
MOST_NUMBERS = 120
"""More users than this have no number of layers beside them."""


def draw_map(plan: Plan, users: Floats, servers: Floats, *, layers: int, title: str = "") -> Figure:
    """Return a map with a line from every user to its server; users that train all layers themselves are crosses.

    Args:
        plan: of users among servers.
        users: [N, 2] m.
        servers: [M, 2] m.
        layers: of the model.
        title: above.

    Raises:
        RunError: the plan has no users.
    """
    devices = plan.devices
    if not len(devices):
        raise RunError(f"no users to draw; the plan is {plan.status.value}")
    away = devices.server != ALL_LOCAL
    few = len(devices) <= MOST_NUMBERS
    size = 46 if few else 22

    count = np.bincount(devices.server[away], minlength=len(servers))
    number = ", with its layers of {layers} (left out where crowded)" if few else ""
    texts = [
        f"server ({', '.join(f'{m}: {n}' for m, n in enumerate(count))} users)",
        f"user at its server{number.format(layers=layers)}",
        f"trains all {layers} layers itself ({int((~away).sum())})",
    ]
    marks: list[dict[str, Any]] = [
        {"marker": "s", "markersize": 9, "markeredgecolor": INK, "linestyle": "none"},
        {"marker": "o", "markersize": 7},
        {"marker": "X", "markersize": 8, "linestyle": "none"},
    ]

    def panel(axes: Axes) -> None:
        for m, place in enumerate(servers):
            colour, mine = look(m).colour, users[devices.server == m]
            x, y = place
            spokes = [(place, user) for user in mine]
            axes.add_collection(LineCollection(spokes, colors=colour, linewidths=1.0, alpha=0.55, zorder=1))
            axes.scatter(
                mine[:, 0], mine[:, 1], s=size, color=colour, edgecolor=CARD, linewidth=0.8, zorder=3
            )
            axes.scatter(x, y, s=230, marker="s", color=colour, edgecolor=INK, linewidth=1.2, zorder=4)
            axes.text(x, y, str(m), color=CARD, fontsize=9, weight="bold", ha="center", va="center", zorder=5)
        alone = users[~away]
        axes.scatter(alone[:, 0], alone[:, 1], s=size, marker="X", color=QUIET, edgecolor=CARD, zorder=3)
        for user in np.flatnonzero(away) if few else ():
            axes.annotate(
                str(devices.cut[user]), users[user], (6, 4), textcoords="offset points", fontsize=8, zorder=6
            )
        for mark, text in zip(marks, texts, strict=True):
            axes.plot([], [], color=QUIET, label=wrapped(text, 6.8), **mark)
        axes.set_aspect("equal")
        axes.margins(0.06)
        axes.set_title(wrapped(title or "Users and their servers", 7.4), fontsize=12)
        axes.set_xlabel("m")
        axes.set_ylabel("m")

    return draw([panel], size=(7.6, 7.9))
