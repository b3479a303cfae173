"""Methods side by side: accuracy against rounds, bytes, virtual time and energy, means over seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import looks_of
from sflam.report.costs import COSTS, Cost, Runs, is_known, share_of


def draw_comparison(found: Mapping[str, Runs], *, title: str = "") -> Figure:
    """Return a line per method in a panel per cost.

    Args:
        found: method -> the rounds of each of its runs.
        title: above.
    """
    return draw(
        comparison_panels(found), title=title, note=bars_note(max(map(len, found.values()), default=0))
    )


def comparison_panels(found: Mapping[str, Runs]) -> list[Panel]:
    """Return accuracy against every cost that some method has."""
    looks = looks_of(list(found))
    panels = []
    for title, across, cost in COSTS:
        lines = [
            Line(name=name, look=looks[name], points=_means(runs, cost), spread=_spread(runs))
            for name, runs in found.items()
            if is_known(runs, cost)
        ]
        if lines:
            log = "log" in across
            panels.append(
                line_panel(title, lines, across=across, upward="test accuracy (%)", percent=True, log_x=log)
            )
    return panels


def bars_note(seeds: int) -> str:
    """Return what the error bars are."""
    return f"bars: standard deviation over {seeds} seeds"


def _means(runs: Runs, cost: Cost) -> list[tuple[float, float]]:
    """Return the mean accuracy (%) against the mean cost."""
    shares = _shares(runs)
    costs = np.array([list(cost(run) or ())[: shares.shape[1]] for run in runs], float).mean(axis=0)
    return list(zip(costs.tolist(), shares.mean(axis=0).tolist(), strict=True))


def _spread(runs: Runs) -> list[float]:
    """Return the standard deviation of the accuracy (%) over runs; nothing for a single one."""
    return _shares(runs).std(axis=0, ddof=1).tolist() if len(runs) > 1 else []


def _shares(runs: Runs) -> np.ndarray:
    """Return accuracies in %, [runs, rounds]."""
    rounds = min(map(len, runs))
    return np.array([[100 * share_of(item) for item in run[:rounds]] for run in runs])
