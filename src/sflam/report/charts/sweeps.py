"""What a swept setting changes: accuracy against it, and time against energy along the weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from sflam.records.saved import FRONT
from sflam.report.charts.comparison import bars_note
from sflam.report.charts.figure import Panel, draw
from sflam.report.charts.lines import Line, line_panel
from sflam.report.charts.style import Look, looks_of
from sflam.report.statistics import half_of

Row = Mapping[str, Any]
Lines = Mapping[str, Sequence[tuple[float, Row]]]


def draw_sweeps(
    sweeps: Mapping[str, Lines],
    *,
    labels: Mapping[str, str],
    methods: Mapping[str, Row],
    seeds: int,
    width: str = "",
) -> Figure:
    """Return a panel per axis.

    Args:
        sweeps: axis -> name -> (value, means as ``Compared.to_dict`` gives them), values ascending.
        labels: axis -> what to write beneath.
        methods: name -> means at the job's own settings; single points beside the front.
        seeds: of every mean.
        width: as of ``draw``.
    """
    panels = sweep_panels(sweeps, labels=labels, methods=methods)
    return draw(panels, note=bars_note(seeds), width=width)


def sweep_panels(
    sweeps: Mapping[str, Lines], *, labels: Mapping[str, str], methods: Mapping[str, Row]
) -> list[Panel]:
    """Return a panel per axis; see ``draw_sweeps``."""
    looks = looks_of(list(dict.fromkeys([*methods, *(name for lines in sweeps.values() for name in lines)])))
    return [
        _front(lines, methods, looks) if axis == FRONT else _accuracy(lines, labels[axis], looks)
        for axis, lines in sweeps.items()
    ]


def _accuracy(lines: Lines, label: str, looks: Mapping[str, Look]) -> Panel:
    drawn = [
        Line(
            name=name,
            points=[(value, 100 * row["accuracy"]) for value, row in line],
            spread=[100 * half_of(row, "accuracy") for _, row in line],
            look=looks[name],
        )
        for name, line in lines.items()
    ]
    return line_panel(
        f"Accuracy by {label.partition(':')[0].partition(' of ')[0]}",
        drawn,
        across=f"{label} (log scale)",
        upward="test accuracy (%)",
        percent=True,
        log_x=True,
        ticks_at=sorted({value for line in lines.values() for value, _ in line}),
    )


def _front(lines: Lines, methods: Mapping[str, Row], looks: Mapping[str, Look]) -> Panel:
    drawn = []
    for name, line in lines.items():
        known = [(value, row) for value, row in line if None not in (row["virtual_s"], row["energy_j"])]
        points = [(row["virtual_s"], row["energy_j"]) for _, row in known]
        words = [f"{value:g}" for value, _ in known]
        drawn.append(Line(name=name, points=points, labels=words, look=looks[name]))
    for name, row in methods.items():
        if name not in lines and None not in (row["virtual_s"], row["energy_j"]):
            points = [(row["virtual_s"], row["energy_j"])]
            drawn.append(Line(name=name, points=points, look=looks[name], joined=False))
    return line_panel(
        "Time against energy of a run, by weight of time",
        drawn,
        across="virtual time (s, log scale)",
        upward="energy (J, log scale)",
        log_x=True,
        log_y=True,
    )
