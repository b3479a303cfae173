"""Statistics over seeds: means with their confidence interval, and differences seed by seed.

Intervals are Student's t: of n values with mean m and standard deviation s (with n - 1), m ± t(n - 1) s / sqrt(n),
where t(n - 1) leaves (1 - level) / 2 on either side. Source: Student, "The probable error of a
mean", Biometrika 6, 1908. They take the seeds' values for independent and normal; of few seeds they are wide, as they
should be.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

LEVEL = 0.95
"""Of every interval that is shown."""


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: of the values, in their unit.
        half: half the interval's width, in the same unit; None of a single value, which has none.
        n: how many values.
    """

    mean: float
    half: float | None
    n: int

    def to_dict(self) -> dict[str, Any]:
        """Return mean, low and high (None of a single value) and n, for JSON."""
        ends = (None, None) if self.half is None else (self.mean - self.half, self.mean + self.half)
        return {"mean": self.mean, "low": ends[0], "high": ends[1], "n": self.n}


def interval(values: Sequence[float | None], level: float = LEVEL) -> Interval | None:
    """Return the mean of some values and its interval; None where one is missing, or there are none.

    Args:
        values: [n], of independent seeds.
        level: share of such intervals that hold the true mean, in (0, 1).
    """
    known = [float(value) for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    mean = statistics.fmean(known)
    if len(known) == 1:
        return Interval(mean, None, 1)
    return Interval(mean, half_width(statistics.stdev(known), len(known), level), len(known))


def interval_words(seeds: int) -> str:
    """Return what an interval is."""
    return f"{100 * LEVEL:g} % confidence interval (Student t, n = {seeds} seeds)"


def half_width(deviation: float, n: int, level: float = LEVEL) -> float:
    """Return half the width of the interval of n values with a standard deviation; infinite for one value."""
    if n < 2:
        return math.inf
    return float(stdtrit(n - 1, (1 + level) / 2)) * deviation / math.sqrt(n)


def half_of(row: Mapping[str, Any], key: str) -> float:
    """Return half the interval of a figure of a row, as ``Compared.to_dict`` gives it; 0 where there is none."""
    found = row.get("intervals", {}).get(key)
    return float(found["high"] - found["mean"]) if found else 0.0


def paired(
    ours: Sequence[float | None], theirs: Sequence[float | None], level: float = LEVEL
) -> Interval | None:
    """Return the mean of ours - theirs and its interval, seed by seed; seeds where either is missing are left out.

    A seed fixes partition, mini-batches and network for both, so that what they share cancels.

    Args:
        ours: [n], by seed.
        theirs: [n], by seed.
        level: see :func:`interval`.
    """
    both = zip(ours, theirs, strict=True)
    return interval([a - b for a, b in both if a is not None and b is not None], level)


@dataclass(frozen=True)
class TargetCost:
    """The cost of reaching something, over seeds of which some may not have.

    Attributes:
        reached: how many seeds did.
        n: how many seeds there are.
        cost: the mean over all seeds and its interval; None unless all reached it.
        at_least: mean over seeds, a seed that missed counting with all that it spent: the true mean is larger. None
            where all reached it, or where the cost is not known.
    """

    reached: int
    n: int
    cost: Interval | None
    at_least: float | None


def censored(costs: Sequence[float | None], spent: Sequence[float | None]) -> TargetCost:
    """Return what reaching a target cost.

    Args:
        costs: [n], what each seed had spent when it reached the target; None where it did not.
        spent: [n], what each seed spent in all; None where that is not known.
    """
    known = sum(cost is not None for cost in costs)
    if known == len(costs) and costs:
        return TargetCost(known, len(costs), interval(costs), None)
    bound = interval(
        [all_of_it if cost is None else cost for cost, all_of_it in zip(costs, spent, strict=True)]
    )
    return TargetCost(known, len(costs), None, None if bound is None else bound.mean)
