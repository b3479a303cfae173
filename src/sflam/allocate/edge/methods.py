"""The methods of problem B by name."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from typing import Any

from sflam.allocate.edge import baselines as edge_baselines
from sflam.allocate.edge import dual as edge_dual
from sflam.allocate.edge import exhaustive as edge_exhaustive
from sflam.allocate.edge import slsqp as edge_slsqp
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.papers import card as edge_card
from sflam.allocate.edge.papers import fractional as edge_fractional
from sflam.allocate.edge.papers import hungarian as edge_hungarian
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, Integers
from sflam.errors import AllocationError, unknown
from sflam.plan import Plan

EDGE_METHODS: dict[str, Callable[..., Plan]] = {
    "dual": edge_dual.solve,  # dual prices, recovery, local search: a certified gap
    "fractional": edge_fractional.solve,  # the paper's; takes splits="rounded" or "enumerated"
    "hungarian": edge_hungarian.solve,  # optimal assignment at prices
    "nearest": edge_baselines.nearest,  # the strongest server, the best splits and shares
    "random": edge_baselines.random,  # a random server, the best splits and shares; takes seed=
    "all-local": edge_baselines.all_local,  # nothing is sent
    "all-edge": edge_baselines.all_edge,  # as few layers as may be on users, the best shares
    "equal": edge_baselines.equal,  # equal shares, full power, half of the layers; takes split=
    "card": edge_card.solve,  # everybody's own best cut, the server's clock in closed form
    "exhaustive": edge_exhaustive.solve,  # every choice, for small cases
    "slsqp": edge_slsqp.solve,  # a general solver for the shares at dual's choice, for checking; up to 40 users
}

SHARES: dict[str, Callable[[EdgeProblem, Integers, Integers], EdgeShares]] = {
    "equal": edge_baselines.equal_shares,
    "card": edge_card.shares,
}
"""What a method gives users whose servers and splits are known; all others give the optimum."""


def associate(problem: EdgeProblem, method: str = "dual", **options: Any) -> Plan:
    """Return the plan that a method finds.

    Args:
        problem: what to plan.
        method: a name in ``EDGE_METHODS``.
        options: of that method.

    Raises:
        AllocationError: an unknown method, or a problem that it refuses.
    """
    if method not in EDGE_METHODS:
        raise AllocationError(unknown("method", method, EDGE_METHODS))
    return EDGE_METHODS[method](problem, **options)


def stay(problem: EdgeProblem, method: str, server: Integers, split: Integers) -> Plan:
    """Return the plan of a method that leaves everybody where it is: shares alone are decided, for these gains.

    Args:
        problem: what to plan.
        method: a name in ``EDGE_METHODS``; it has no bound here.
        server: [N], ``ALL_LOCAL`` where the split is Y.
        split: [N].
    """
    began = clock.perf_counter()
    shares = (
        SHARES[method](problem, server, split) if method in SHARES else settle(problem, server, split).shares
    )
    return problem.plan(method, shares, solve_s=clock.perf_counter() - began)
