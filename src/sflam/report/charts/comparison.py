"""Methods side by side: accuracy against rounds, bytes, virtual time and energy, means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from sflam.records.history import part_of
from sflam.report.charts.figure import draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import looks_of
from sflam.report.charts.tidy import DrawnPanel
from sflam.report.costs import COSTS, Cost, Runs, is_known, share_of
from sflam.report.statistics import half_width, interval_words


def draw_comparison(found: Mapping[str, Runs], *, title: str = "", width: str = "") -> Figure:
    """Return a line per method in a panel per cost.

    Args:
        found: method -> the rounds of each of its runs.
        title: above.
        width: as of ``draw``.
    """
    note = bars_note(max(map(len, found.values()), default=0))
    return draw(comparison_panels(found), title=title, note=note, width=width)


def comparison_panels(found: Mapping[str, Runs]) -> list[DrawnPanel]:
    """Return accuracy against every cost that some method has."""
    looks, part = (
        looks_of(list(found)),
        part_of([item for runs in found.values() for run in runs for item in run]),
    )
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
                line_panel(
                    title, lines, across=across, upward=f"{part} accuracy (%)", percent=True, log_x=log
                )
            )
    return panels


def bars_note(seeds: int) -> str:
    """Return what the error bars are."""
    return f"bars: {interval_words(seeds)}"


def _means(runs: Runs, cost: Cost) -> list[tuple[float, float]]:
    """Return the mean accuracy (%) against the mean cost; a run that ended early stays where it was."""
    longest = max(runs, key=len)
    by_round = cost is COSTS[0][2]
    costs = _padded([list(cost(run) or ()) for run in ([longest] if by_round else runs)]).mean(axis=0)
    return list(zip(costs.tolist(), _shares(runs).mean(axis=0).tolist(), strict=True))


def _spread(runs: Runs) -> list[float]:
    """Return half the confidence interval of the accuracy (%) over runs; nothing for a single one."""
    if len(runs) < 2:
        return []
    return [half_width(float(each), len(runs)) for each in _shares(runs).std(axis=0, ddof=1)]


def _shares(runs: Runs) -> np.ndarray:
    """Return accuracies in %, [runs, rounds]."""
    return _padded([[100 * share_of(item) for item in run] for run in runs])


def _padded(values: Sequence[Sequence[float]]) -> np.ndarray:
    """Return rows of numbers as one array, the last of each repeated up to the longest."""
    most = max(map(len, values))
    return np.array([[*row, *[row[-1]] * (most - len(row))] for row in values], float)
