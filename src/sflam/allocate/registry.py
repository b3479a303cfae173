"""The methods of both problems by name."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from typing import Any

from sflam.allocate.cell import (
    baselines,
    bcd,
    bcd_bits,
    bits,
    cuts,
    optimal,
    oracle,
    subchannel_bits,
    subchannels,
)
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.edge import baselines as edge_baselines
from sflam.allocate.edge import dual, exhaustive, slsqp, tuned
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.papers import card, fractional, hungarian
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, Integers
from sflam.allocate.referee import Found, make_plan, planned
from sflam.allocate.settings import BY_BAND, PlanSettings
from sflam.errors import AllocationError, unknown
from sflam.plan import Plan
from sflam.registry import add

Solve = Callable[..., Plan]

CELL_METHODS: dict[str, Solve] = {
    "optimal": optimal.solve,  # bandwidth, power, clocks: the global optimum, certified
    "bits": bits.solve,  # and bits for every device, certified
    "cut": cuts.solve,  # and the cut
    "subchannels": subchannels.solve,  # bandwidth in equal subchannels; needs count=
    "bcd": bcd.solve,  # the paper's block coordinate descent
    "bcd-matching": bcd.solve_matching,  # the same over subchannels; needs count=
    "bcd-bits": bcd_bits.solve,  # the same with its quantization step
    "fixed-bits": baselines.fixed_bits,  # the best common width, optimal otherwise
    "equal": baselines.equal,  # equal bandwidth, full power, full speed
    "equal-bandwidth": baselines.equal_bandwidth,  # with the best powers and clocks
    "random": baselines.random,  # takes seed=
    "oracle": oracle.solve,  # a general convex solver, for checking; needs cvxpy
    "subchannel-bits": subchannel_bits.solve,  # bits and subchannels together, bounded; needs count=
}
"""For problem A, one server."""
EDGE_METHODS: dict[str, Solve] = {
    "dual": dual.solve,  # dual prices, recovery, local search: a certified gap
    "fractional": fractional.solve,  # the paper's; takes splits="rounded" or "enumerated"
    "hungarian": hungarian.solve,  # optimal assignment at prices
    "nearest": edge_baselines.nearest,  # the strongest server, the best splits and shares
    "random": edge_baselines.random,  # a random server, the best splits and shares; takes seed=
    "all-local": edge_baselines.all_local,  # nothing is sent
    "all-edge": edge_baselines.all_edge,  # as few layers as may be on users, the best shares
    "equal": edge_baselines.equal,  # equal shares, full power, half of the layers; takes split=
    "card": card.solve,  # every user's own best cut, the server's clock in closed form
    "exhaustive": exhaustive.solve,  # every choice, for small cases
    "slsqp": slsqp.solve,  # a general solver for the shares at dual's choice, for checking; up to 40 users
}
"""For problem B, several servers."""
RECOMMENDED = "optimal"
"""The default method; among several servers it is ``dual``."""

EDGE_SHARES: dict[str, Callable[[EdgeProblem, Integers, Integers], EdgeShares]] = {
    "equal": edge_baselines.equal_shares,
    "card": card.shares,
}
"""What a method gives users whose servers and splits are known; all others give the optimum."""


def allocate(problem: Problem | EdgeProblem, method: str = RECOMMENDED, **options: Any) -> Plan:
    """Return the plan that a method finds.

    Args:
        problem: what to plan.
        method: a name in ``CELL_METHODS`` or ``EDGE_METHODS``, as the problem is.
        options: of that method.

    Raises:
        AllocationError: an unknown method, or a problem or options that it refuses.
    """
    several = isinstance(problem, EdgeProblem)
    known = EDGE_METHODS if several else CELL_METHODS
    if several and method == RECOMMENDED:
        method = "dual"
    if method not in known:
        where = "for several servers: " if several else ""
        raise AllocationError(where + unknown("method", method, known))
    if problem.network.airtime and (several or method in BY_BAND):
        raise AllocationError(
            f"method {method} shares out parts of a band, but devices share the channel's time; use method optimal "
            "with one server, or share the band"
        )
    if isinstance(problem, EdgeProblem) and problem.choices is not None and problem.tuned is None:
        return tuned.solve(problem, method, lambda given: known[method](given, **options))
    return known[method](problem, **options)


def stay(problem: EdgeProblem, method: str, server: Integers, split: Integers) -> Plan:
    """Return the plan of a method that keeps every user's server and split: shares alone are decided, for these gains.

    Args:
        problem: what to plan.
        method: a name in ``EDGE_METHODS``; it has no bound here.
        server: [N], ``ALL_LOCAL`` where the split is Y.
        split: [N].
    """
    began = clock.perf_counter()
    if method in EDGE_SHARES:
        shares = EDGE_SHARES[method](problem, server, split)
    else:
        shares = settle(problem, server, split).shares
    return make_plan(method, Found(problem=problem, shares=shares), solve_s=clock.perf_counter() - began)


def register(name: str, solve: Callable[..., Shares | Found | Plan]) -> None:
    """Make an own allocator of problem A known as ``plan.method = name`` in this process.

    Args:
        name: small letters, digits and hyphens.
        solve: from a ``Problem`` to the ``Shares`` it decides; or to a ``Found``, with a bound or advice; or to a plan.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """

    def found(problem: Problem, **options: Any) -> Found | Plan:
        decided = solve(problem, **options)
        return Found(problem=problem, shares=decided) if isinstance(decided, Shares) else decided

    add("allocator", name, planned(name)(found), CELL_METHODS)


def method_of(settings: PlanSettings) -> str:
    """Return the method that also decides subchannels or bits where requested."""
    method = settings.method
    if settings.subchannels:
        method = {"optimal": "subchannels", "bcd": "bcd-matching"}.get(method, method)
    if "bits" in settings.optimize:
        both = {"subchannels": "subchannel-bits", "bcd-matching": "bcd-bits"}
        method = (both | {"optimal": "bits", "bcd": "bcd-bits"}).get(method, method)
    return method
