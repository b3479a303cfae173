"""What a run has cost after each of its rounds: what accuracy is drawn against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from sflam.records.history import RoundRecord
from sflam.report.totals import is_measured

Runs = Sequence[Sequence[RoundRecord]]
Cost = Callable[[Sequence[RoundRecord]], Sequence[float] | None]


def is_known(runs: Runs, cost: Cost) -> bool:
    """Return whether every run has this cost, and it is more than nothing."""
    costs = [cost(run) for run in runs]
    return all(item is not None and item[-1] > 0 for item in costs)


def zoom(percentages: Sequence[float]) -> tuple[float, float]:
    """Return where an axis of percentages begins and ends: round numbers close around the data, within 0 and 100."""
    if not percentages:
        return 0.0, 100.0
    low, high = min(percentages), max(percentages)
    room = 0.04 * max(high - low, 2.0)
    step = next(step for step in (1, 2, 5, 10, 20) if step == 20 or high - low + 2 * room <= 5 * step)
    bottom = max(0.0, step * math.floor((low - room) / step))
    return bottom, max(min(100.0, step * math.ceil((high + room) / step)), bottom + step)


def share_of(item: RoundRecord) -> float:
    """Return the accuracy of a round, on the part it was evaluated on, in [0, 1]; NaN where it was not measured."""
    found = item.evaluated_accuracy
    return found if is_measured(found) else float("nan")


def _rounds(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    return [item.round + 1 for item in run]


def _bytes(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    return [total / 1e6 for total in itertools.accumulate(item.total_bytes for item in run)]


def _seconds(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    clocks = [item.charge.clock for item in run if item.charge]
    return clocks if len(clocks) == len(run) else None


def _joules(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    spent = list(itertools.accumulate(item.charge.energy for item in run if item.charge))
    return spent if len(spent) == len(run) else None


COSTS: tuple[tuple[str, str, Cost], ...] = (
    ("Accuracy by round", "round", _rounds),
    ("Accuracy by traffic", "sent so far, both ways (MB, log scale)", _bytes),
    ("Accuracy by virtual time", "virtual time so far (s, log scale)", _seconds),
    ("Accuracy by energy", "spent so far (J, log scale)", _joules),
)
"""Title, label beneath, and the cost after each round; None where a run does not have it."""

TIMES = ((7200.0, "h"), (120.0, "min"), (1.0, "s"), (1e-3, "ms"))
"""Least seconds -> unit."""
_LENGTHS = {"h": 3600.0, "min": 60.0}
_UNITS = {
    "s": TIMES,
    "MB": ((1e6, "TB"), (1e3, "GB"), (1.0, "MB"), (1e-3, "kB")),
    "J": ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")),
}


def unit_of(value: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """Return the length of the unit in which ``value`` is a number for people, and its name."""
    least, name = next((pair for pair in units if value >= pair[0]), units[-1])
    return _LENGTHS.get(name, least), name


def scaled(values: Sequence[float], label: str) -> tuple[list[float], str]:
    """Return costs in a unit that suits the last of them, and their label with it: ``(MB)`` becomes ``(kB)``."""
    for name, units in _UNITS.items():
        if label.endswith(f"({name})"):
            length, unit = unit_of(values[-1], units)
            return [value / length for value in values], label.removesuffix(f"({name})") + f"({unit})"
    return list(values), label
