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
    return all(one is not None and one[-1] > 0 for one in costs)


def axis_from(percentages: Sequence[float]) -> float:
    """Return where an axis of percentages begins: at 0, or higher where that would leave more than half of it empty."""
    least = 20 * math.floor(min(percentages, default=0.0) / 20)
    return float(least if least > 50 else 0)


def share_of(item: RoundRecord) -> float:
    """Return the accuracy of a round in [0, 1]; NaN where it was not measured."""
    return item.accuracy if is_measured(item.accuracy) else float("nan")


def _rounds(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    return [item.round + 1 for item in run]


def _bytes(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    return [total / 1e6 for total in itertools.accumulate(item.total_bytes for item in run)]


def _seconds(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    charges = [item.charge for item in run if item.charge]
    return [charge.clock for charge in charges] if len(charges) == len(run) else None


def _joules(run: Sequence[RoundRecord]) -> Sequence[float] | None:
    charges = [item.charge for item in run if item.charge]
    return (
        list(itertools.accumulate(charge.energy for charge in charges)) if len(charges) == len(run) else None
    )


COSTS: tuple[tuple[str, str, Cost], ...] = (
    ("Accuracy by round", "round", _rounds),
    ("Accuracy by traffic", "sent so far, both ways (MB, log scale)", _bytes),
    ("Accuracy by virtual time", "virtual time so far (s, log scale)", _seconds),
    ("Accuracy by energy", "spent so far (J, log scale)", _joules),
)
"""Title, label beneath, and the cost after each round; None where a run does not have it."""
