"""The exact solver of problem A, however a round is timed, with its certificate and the worth of its limits.

Devices that go through a round on their own are a market with two prices (:mod:`sflam.allocate.cell.market`); those
that wait for each other at every step have one for each stage (:mod:`sflam.allocate.cell.barrier`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sflam.allocate.cell import barrier
from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shadow_prices import shadow_prices, stage_prices
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import Found, planned
from sflam.plan import ShadowPrices


@dataclass(frozen=True, kw_only=True, eq=False)
class Optimum:
    """The optimum of a problem's cell, however its round is timed.

    Attributes:
        shares: of the devices.
        time: T, s.
        price: mu, 1/Hz.
        objective: without what the plan does not change.
        lower_bound: certified.
        worth: of its limits.
    """

    shares: Shares
    time: float
    price: float
    objective: float
    lower_bound: float
    worth: Callable[[], ShadowPrices]


def settle(problem: Problem, cell: Cell | None = None, price: float = 0.0, time: float = 0.0) -> Optimum:
    """Return the optimum of a problem: of devices that wait for each other over all stages, else of their chains.

    Args:
        problem: what is asked.
        cell: its cell at other weights; None for its own.
        price: a guess of the price of bandwidth, 1/Hz.
        time: a guess of the round time, s.

    Raises:
        Impossible: no plan holds the limits.
    """
    cell = problem.cell if cell is None else cell
    if problem.waits:
        found = barrier.solve(problem, cell)
        return Optimum(
            shares=found.shares,
            time=found.time,
            price=found.bandwidth_price,
            objective=found.objective,
            lower_bound=found.lower_bound,
            worth=partial(stage_prices, problem, found),
        )
    solution = Market(cell, price, time).solve()
    return Optimum(
        shares=solution.shares(cell),
        time=solution.time,
        price=solution.price,
        objective=solution.objective,
        lower_bound=solution.lower_bound,
        worth=partial(shadow_prices, problem, solution.time, *solution.balanced),
    )


def optimum(problem: Problem) -> Found:
    """Return the optimal shares with their certified lower bound; raises Impossible where no plan holds the limits."""
    solution = settle(problem)
    return Found(
        problem=problem,
        shares=solution.shares,
        lower_bound=problem.total(solution.lower_bound),
        shadow_prices=solution.worth(),
    )


solve = planned("optimal")(optimum)
