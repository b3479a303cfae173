"""Figures of arms: metrics along a setting that their names have, or bars where they have none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sflam.compare.lines import LineName
from sflam.paper.claim import Measured
from sflam.report.charts.bars import bar_panel
from sflam.report.charts.figure import Panel
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import looks_of
from sflam.report.plus_minus import plus_minus
from sflam.report.statistics import Interval, interval

METRICS: Mapping[str, tuple[str, str, float]] = {
    "accuracy": ("test accuracy", "%", 0.01),
    "rounds": ("rounds", "", 1.0),
    "virtual_s": ("time of the run", "s", 1.0),
    "energy_j": ("energy of the run", "J", 1.0),
    "bytes": ("sent, both ways", "MB", 1e6),
    "bytes_up": ("sent up", "MB", 1e6),
    "device_memory": ("memory of a device", "MB", 1e6),
    "device_flop": ("computing of a device", "GFLOP", 1e9),
    "rounds to target": ("rounds to the target", "", 1.0),
    "virtual_s to target": ("time to the target", "s", 1.0),
    "energy_j to target": ("energy to the target", "J", 1.0),
    "bytes to target": ("sent to the target", "MB", 1e6),
    "objective": ("objective of a round", "", 1.0),
    "latency": ("time of a round", "s", 1.0),
    "energy": ("energy of a round", "J", 1.0),
    "server_energy": ("energy of the server in a round", "J", 1.0),
    "gap": ("certified gap to the optimum", "%", 0.01),
    "instability": ("average-replace-one stability", "nats", 1.0),
}
"""Metric -> its words, unit in figures, and SI units in one of those."""


def panels(measured: Measured, metrics: Sequence[str], key: str = "") -> list[Panel]:
    """Return a panel per metric: lines along a setting of the arms' names, or a bar per arm.

    Args:
        measured: arm -> metric -> values by seed.
        metrics: of ``METRICS``; those that no arm has are left out.
        key: of the setting, as ``network.bandwidth_mhz``; "" for bars.
    """
    known = [name for name in metrics if any(_mean(own, name) for own in measured.values())]
    return [_lines(measured, name, key) if key else _bars(measured, name) for name in known]


def table(measured: Measured, metrics: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the head and a row per arm, with mean and interval of every metric that some arm has."""
    known = [name for name in metrics if any(_mean(own, name) for own in measured.values())]
    rows = [[arm, *(_shown(_mean(own, name), name) for name in known)] for arm, own in measured.items()]
    return ["arm", *(METRICS[name][0] for name in known)], rows


def setting(arm: str, key: str) -> float:
    """Return the value of a setting in an arm's name; nan where it is none or no number."""
    for item in LineName.of(arm).settings:
        name, _, value = item.partition("=")
        if name == key:
            try:
                return float(value)
            except ValueError:
                return math.nan
    return math.nan


def _lines(measured: Measured, metric: str, key: str) -> Panel:
    words, unit, scale = METRICS[metric]
    lines: dict[str, list[tuple[float, Interval]]] = {}
    for arm, own in measured.items():
        if mean := _mean(own, metric):
            lines.setdefault(_without(arm, key), []).append((setting(arm, key), mean))
    looks, percent = looks_of(list(lines)), unit == "%"
    drawn = [
        Line(
            name=name,
            look=looks[name],
            points=[(x, mean.mean / scale) for x, mean in sorted(points, key=lambda point: point[0])],
            spread=[(mean.half or 0.0) / scale for _, mean in sorted(points, key=lambda point: point[0])],
        )
        for name, points in lines.items()
    ]
    upward = f"{words} ({unit})" if unit else words
    return line_panel(
        words.capitalize(), drawn, across=key, upward=upward, percent=percent, from_zero=not percent
    )


def _bars(measured: Measured, metric: str) -> Panel:
    words, unit, scale = METRICS[metric]
    known = {arm: mean for arm, own in measured.items() if (mean := _mean(own, metric))}
    looks = looks_of(list(measured))
    several = any(mean.half is not None for mean in known.values())
    ends = [(mean.mean / scale, (mean.half or 0.0) / scale) for mean in known.values()]
    return bar_panel(
        words.capitalize(),
        list(known),
        {"": [mean for mean, _ in ends]},
        upward=unit or words,
        across="arm",
        colours=[looks[arm].colour for arm in known],
        bars=[(max(0.0, mean - half), mean + half) for mean, half in ends] if several else (),
    )


def _without(arm: str, key: str) -> str:
    first, *rest = arm.split(" ")
    return " ".join([first, *(item for item in rest if not item.startswith(f"{key}="))])


def _mean(own: Mapping[str, Sequence[float | None]], metric: str) -> Interval | None:
    return interval(own[metric]) if metric in own else None


def _shown(mean: Interval | None, metric: str) -> str:
    _, unit, scale = METRICS[metric]
    if mean is None or unit in ("%", "s", "J", ""):
        return plus_minus(None if mean is None else mean.to_dict(), unit)
    if unit == "MB":
        return plus_minus(mean.to_dict(), "B")
    half = None if mean.half is None else mean.half / scale
    return f"{plus_minus(Interval(mean.mean / scale, half, mean.n).to_dict(), '')} {unit}"
