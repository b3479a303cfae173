"""The allocators by name (stand-in)."""

from __future__ import annotations

from collections.abc import Callable

from sflam.allocate import baselines, bcd, optimal
from sflam.allocate.problem import Problem
from sflam.errors import AllocationError, unknown
from sflam.plan import Plan

METHODS: dict[str, Callable[[Problem], Plan]] = {
    "optimal": optimal.solve,
    "bcd": bcd.solve,
    "equal": baselines.equal,
    "equal-bandwidth": baselines.equal_bandwidth,
    "random": baselines.random,
}


def allocate(problem: Problem, method: str = "optimal") -> Plan:
    """Return the plan of a method."""
    if method not in METHODS:
        raise AllocationError(unknown("method", method, METHODS))
    return METHODS[method](problem)


def pareto(problem: Problem, points: int) -> list[tuple[float, float]]:
    """Return (s, J) points."""
    weights = [(index + 1) / (points + 1) for index in range(points)]
    plans = [optimal.solve(problem.change(latency_weight=weight)) for weight in weights]
    return [(one.latency, one.energy) for one in plans]
