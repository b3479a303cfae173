"""The allocators by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sflam.allocate import baselines, bcd, bits, cuts, optimal, oracle, subchannels
from sflam.allocate.problem import Problem
from sflam.errors import AllocationError, unknown
from sflam.plan import Plan

METHODS: dict[str, Callable[..., Plan]] = {
    "optimal": optimal.solve,  # bandwidth, power, clocks: the global optimum, certified
    "bits": bits.solve,  # and bits for every device, certified
    "cut": cuts.solve,  # and the cut
    "subchannels": subchannels.solve,  # bandwidth in equal subchannels; needs count=
    "bcd": bcd.solve,  # the paper's block coordinate descent
    "bcd-matching": bcd.solve_matching,  # the same over subchannels; needs count=
    "fixed-bits": baselines.fixed_bits,  # the best common width, optimal otherwise
    "equal": baselines.equal,  # equal bandwidth, full power, full speed
    "equal-bandwidth": baselines.equal_bandwidth,  # with the best powers and clocks
    "random": baselines.random,  # takes seed=
    "oracle": oracle.solve,  # a general convex solver, for checking; needs cvxpy
}


def allocate(problem: Problem, method: str = "optimal", **options: Any) -> Plan:
    """Return the plan that a method finds.

    Args:
        problem: what to plan.
        method: a name in ``METHODS``.
        options: of that method.

    Raises:
        AllocationError: an unknown method, or options it refuses.
    """
    if method not in METHODS:
        raise AllocationError(unknown("method", method, METHODS))
    return METHODS[method](problem, **options)
