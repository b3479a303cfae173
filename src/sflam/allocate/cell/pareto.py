"""The Pareto front of round time and energy (section 4), complete because the feasible set is convex.

The least energy at round time T is convex and falls with slope -sum zeta; sweeping T gives the front evenly, one price
of bandwidth a point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sflam.allocate.cell.airtime import AirtimeCell
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.optimal import settle
from sflam.allocate.cell.problem import Problem

BESIDE = 1e-5
"""Relative distance from the shortest round at which a front of devices that wait for each other begins."""
ENDLESS = 1e6
"""Shortest rounds: a device that is not done in so many never is."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of the front.

    Attributes:
        latency: s of a round, T0 included.
        energy: J of a round, weighted by the devices' energy weights.
        slope: J/s: energy that one more second saves.
        latency_weight: the lam at which this point is the optimum.
    """

    latency: float
    energy: float
    slope: float
    latency_weight: float


def frugal_round(problem: Problem) -> float:
    """Return the s of the round with least energy, T0 included: beyond it, waiting costs more than haste saves.

    Without idle power every longer round takes less, inf; or no less, where clocks are fixed and circuits end sending.
    """
    free = problem.change(latency_weight=0.0, deadline=np.finfo(float).max)
    if problem.waits:
        return settle(free).time + problem.base_s if free.time_weight > 0 else np.inf
    if free.cell.latency_weight == 0:
        return _last_end(free) + problem.base_s if free.cell.circuits else np.inf
    return Market(free.cell).solve().time + problem.base_s


def _last_end(problem: Problem) -> float:
    """Return the s at which the last device is done where time costs nothing; inf where it always has use for more."""
    cell, market = problem.cell, Market(problem.cell)
    if isinstance(cell, AirtimeCell):
        ends = (cell.circuit_power > 0) | (cell.full_power > 0)
        return Market(cell.frugal()).shortest() if ends.all() and not cell.cycles.any() else np.inf
    time = ENDLESS * market.shortest()
    answer = market.clear(time)
    end = float((cell.delay + answer.compute + answer.transmit).max())
    return end if end < 0.999 * time else np.inf


def front(problem: Problem, points: int = 20, *, longest: float | None = None) -> tuple[Point, ...]:
    """Return points of the front from the shortest round on, evenly in T; at T_min itself the slope is infinite.

    Args:
        problem: its latency weight is not used.
        points: how many, at least two.
        longest: s of the last point's round, T0 included; by default four times the shortest, or the deadline.

    Raises:
        Impossible: no round holds the limits.
    """
    free = problem.change(latency_weight=0.0, deadline=np.finfo(float).max)
    if problem.waits:
        return _waiting(problem, points, longest)
    market = Market(free.cell)
    shortest = market.shortest()
    last = 4 * shortest if longest is None else longest - problem.base_s
    if np.isfinite(problem.deadline):
        last = min(last, problem.deadline - problem.base_s)
    last = min(last, frugal_round(problem) - problem.base_s)
    found = []
    for time in np.linspace(shortest * (1 + 1e-6), max(last, shortest * (1 + 2e-6)), points):
        answer = market.clear(float(time))
        energy = answer.energy(free.cell) + free.cell.compute_energy(answer.compute)
        energy = energy + free.cell.idle_power * (time + problem.base_s) + problem.received_j
        slope = max(float(answer.time_price.sum()) - free.cell.latency_weight, 0.0)
        found.append(
            Point(
                latency=float(time) + problem.base_s,
                energy=float(free.cell.weight @ energy) + problem.base_j,
                slope=slope,
                latency_weight=slope / (1 + slope),
            )
        )
    return tuple(found)


def _waiting(problem: Problem, points: int, longest: float | None) -> tuple[Point, ...]:
    """Return the front of devices that wait for each other: the least energy within each round time."""
    shortest = settle(problem.change(latency_weight=1.0, deadline=np.inf)).time
    last = 4 * shortest if longest is None else longest - problem.base_s
    last = min(last, problem.deadline - problem.base_s, frugal_round(problem) - problem.base_s)
    found = []
    for time in np.linspace(shortest * (1 + BESIDE), max(last, shortest * (1 + 2 * BESIDE)), points):
        here = problem.change(latency_weight=0.0, deadline=float(time) + problem.base_s)
        least = settle(here)
        slope = least.worth().deadline
        energy = least.objective + here.constant
        found.append(
            Point(
                latency=float(time) + problem.base_s,
                energy=energy,
                slope=slope,
                latency_weight=slope / (1 + slope),
            )
        )
    return tuple(found)
