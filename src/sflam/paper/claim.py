"""A claim of a paper as a quantity of what was measured, and the rule that decides whether it holds.

A quantity is computed seed by seed, so that what two arms share cancels, and its mean has a 95 % interval (Student t).
Every quantity turns at one value, its *order*: a difference, a reduction and a trend at 0, a ratio at 1. Seen so that
more is better, with the interval from low to high:

1. high at or below the order: the claim *does not hold*.
2. low at or below the order: *not decided*; more seeds would narrow the interval.
3. The paper gives a number, and high reaches it: it *holds*.
4. Else it *holds in order*: the right way round, by less than the paper's number, or the paper gives none.

A single seed has no interval: low and high are its value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sflam.errors import ConfigError
from sflam.report.statistics import Interval, interval

Values = Sequence[float | None]
"""One per seed; None where a seed has none."""
Measured = Mapping[str, Mapping[str, Values]]
"""Arm -> metric -> values."""
ORDERS = {"value": math.nan, "difference": 0.0, "reduction": 0.0, "trend": 0.0, "ratio": 1.0}
"""Quantity -> where its order turns; a value needs a number of its own."""
WANTS = ("more", "less")
ROUNDING = 1e-9
"""Two numbers that differ by no more of themselves are equal, and what is no farther from the order is at it."""


class ClaimVerdict(StrEnum):
    """What becomes of a claim."""

    HOLDS = "holds"
    IN_ORDER = "holds in order"
    FAILS = "does not hold"
    UNDECIDED = "not decided"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of a paper.

    Attributes:
        paper: its name.
        where: page, figure or section.
        says: the claim in one sentence.
        part: of the study file, whose numbers decide; "" where ``reason`` is given.
        metric: of the part.
        arms: one, or for a trend several, in the order along which the metric moves.
        against: the arm that a difference, ratio or reduction is to.
        quantity: a key of ``ORDERS``: the value, arm - against, 1 - arm / against, arm / against, or the rank
            correlation (Spearman) of the metric with the order of the arms, in [-1, 1].
        wants: ``more`` or ``less``.
        number: the paper's; None where it gives none.
        order: where the order turns, where that is not 0 or 1: a margin of "as good as", or a threshold.
        unit: ``s``, ``J``, ``B``, ``%`` or nothing, of the value or difference.
        reason: why it is not measured.
    """

    paper: str
    where: str
    says: str
    part: str = ""
    metric: str = ""
    arms: tuple[str, ...] = ()
    against: str = ""
    quantity: str = "ratio"
    wants: str = "less"
    number: float | None = None
    order: float | None = None
    unit: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        problems = []
        if self.quantity not in ORDERS:
            problems.append(f"quantity is {self.quantity!r}; give one of {', '.join(ORDERS)}")
        if self.wants not in WANTS:
            problems.append(f"wants is {self.wants!r}; give more or less")
        if not self.reason:
            paired = self.quantity in ("difference", "ratio", "reduction")
            if not (self.part and self.metric and self.arms):
                problems.append(
                    "it names no part, metric and arm; give them, or a reason why it is not measured"
                )
            elif self.quantity == "trend" and len(self.arms) < 3:
                problems.append(f"a trend over {len(self.arms)} arms is none; name at least 3, in order")
            elif self.quantity != "trend" and len(self.arms) != 1:
                problems.append(f"a {self.quantity} is of one arm, and {len(self.arms)} are named")
            if paired != bool(self.against):
                problems.append(f"a {self.quantity} {'needs a' if paired else 'has no'} key against")
            if self.quantity == "value" and self.order is None and self.number is None:
                problems.append("a value needs a number or an order to be held against")
        if problems:
            raise ConfigError([f"claim {self.says!r}: {problem}" for problem in problems])

    @property
    def turns(self) -> float:
        """Where the order turns."""
        if self.order is not None:
            return self.order
        return self.number if self.quantity == "value" and self.number is not None else ORDERS[self.quantity]


@dataclass(frozen=True, kw_only=True)
class JudgedClaim:
    """What was found of a claim.

    Attributes:
        claim: the claim.
        verdict: by the rule of this module.
        measured: mean and interval over seeds; None where it was not measured.
        why: of a claim that was not measured.
    """

    claim: Claim
    verdict: ClaimVerdict
    measured: Interval | None = None
    why: str = ""


def judged(claim: Claim, measured: Measured | None, why: str = "") -> JudgedClaim:
    """Return the verdict on a claim.

    Args:
        claim: what is claimed.
        measured: of its part; None where that was not run.
        why: then, the reason.

    Raises:
        ConfigError: the part has no such arm or metric.
    """
    if claim.reason or measured is None:
        return JudgedClaim(claim=claim, verdict=ClaimVerdict.NOT_MEASURED, why=claim.reason or why)
    found = interval(_values(claim, measured))
    if found is None or not math.isfinite(found.mean):
        missing = (
            f"{claim.metric} is missing for a seed of {', '.join(filter(None, (*claim.arms, claim.against)))}"
        )
        return JudgedClaim(claim=claim, verdict=ClaimVerdict.NOT_MEASURED, why=missing)
    return JudgedClaim(
        claim=claim, verdict=verdict_of(found, claim.wants, claim.turns, claim.number), measured=found
    )


def verdict_of(found: Interval, wants: str, order: float, number: float | None) -> ClaimVerdict:
    """Return the verdict on a quantity; see the rule above.

    Args:
        found: mean and interval.
        wants: ``more`` or ``less``.
        order: where the order turns.
        number: the paper's, or None.
    """
    sign, half = (1.0 if wants == "more" else -1.0), found.half or 0.0
    low, high, order = sign * found.mean - half, sign * found.mean + half, sign * order
    beyond = order + ROUNDING * max(1.0, abs(order))
    if high <= beyond:
        return ClaimVerdict.FAILS
    if low <= beyond:
        return ClaimVerdict.UNDECIDED
    return ClaimVerdict.HOLDS if number is not None and high >= sign * number else ClaimVerdict.IN_ORDER


def arm_of(name: str, measured: Measured) -> str:
    """Return the arm that a name means: its own, or the only one whose first word it is; raises ConfigError."""
    if name in measured:
        return name
    known = [arm for arm in measured if arm.split()[:1] == [name]]
    if len(known) == 1:
        return known[0]
    listed = ", ".join(map(repr, known or measured))
    raise ConfigError(f"arm {name!r} is {'several' if known else 'none'} of {listed}; give a whole name")


def _values(claim: Claim, measured: Measured) -> list[float | None]:
    own = [_metric(claim, measured, name) for name in claim.arms]
    if claim.quantity == "trend":
        return [_trend(each) for each in zip(*own, strict=True)]
    if claim.quantity == "value":
        return list(own[0])
    pairs = zip(own[0], _metric(claim, measured, claim.against), strict=True)
    return [None if a is None or b is None else _between(claim.quantity, a, b) for a, b in pairs]


def _metric(claim: Claim, measured: Measured, name: str) -> Values:
    arm = arm_of(name, measured)
    if claim.metric not in measured[arm]:
        raise ConfigError(
            f"claim {claim.says!r}: {arm} has no metric {claim.metric!r}; give one of {', '.join(measured[arm])}"
        )
    return measured[arm][claim.metric]


def _between(quantity: str, a: float, b: float) -> float | None:
    if quantity == "difference":
        return 0.0 if math.isclose(a, b, rel_tol=ROUNDING) else a - b
    if b == 0:
        return None
    ratio = 1.0 if math.isclose(a, b, rel_tol=ROUNDING) else a / b
    return ratio if quantity == "ratio" else 1 - ratio


def _trend(values: Values) -> float | None:
    """Return Spearman's rank correlation of values with their order; ties share the mean rank, all equal is 0."""
    known = np.array([value for value in values if value is not None], float)
    if len(known) < len(values):
        return None
    ranks = np.array([((known < value).sum() + (known <= value).sum() - 1) / 2 for value in known])
    places = np.arange(len(known), dtype=float)
    if np.ptp(ranks) == 0:
        return 0.0
    return float(np.corrcoef(places, ranks)[0, 1])
