"""How many first layers every user tunes, decided beside servers, splits and shares; certified.

With tau_n layers tuned, user n's work per layer, its instability and the loss that its training reaches are those of
tau_n. At prices mu of bands and nu of clocks every user chooses tau as it chooses server and split, so that

    g(mu, nu) = sum_n min over tau of [w_s AS_n(tau) + w_f loss(tau) + min over (m, alpha) ...] - mu B - nu F

is below the optimum for every mu, nu >= 0, as (3.7) is. Tuned layers and the rest are decided in turns, and the best is
kept: work hardly depends on tau, which one turn or two settle.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sflam.allocate.edge.dual import Prices, ascend
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import Integers
from sflam.allocate.referee import OPTIMAL_GAP
from sflam.network.network import Floats
from sflam.plan import Plan, Status

TURNS = 4
CERTIFIED = ("dual", "exhaustive")
"""Methods whose plans have a bound."""


def solve(problem: EdgeProblem, method: str, inner: Callable[[EdgeProblem], Plan]) -> Plan:
    """Return the plan of a method that also says how many first layers every user tunes.

    Args:
        problem: with ``choices``.
        method: name of the method.
        inner: returns the method's plan where what is tuned is given.
    """
    began = clock.perf_counter()
    best: tuple[EdgeProblem, Plan] | None = None
    bound, seen = -np.inf, set()
    tuned = least_risk(problem)
    for _ in range(TURNS):
        if tuned.tobytes() in seen:
            break
        seen.add(tuned.tobytes())
        given = problem.at(tuned)
        plan = inner(given)
        if plan.status is Status.INFEASIBLE:
            return plan
        if best is None or plan.objective < best[1].objective:
            best = given, plan
        prices = ascend(given)[2]
        cost = costs_at(problem, *prices)
        network = problem.network
        used = float(prices[0] @ network.bandwidth + prices[1] @ network.server_clock)
        bound = max(bound, float(cost.min(axis=0).sum()) - used)
        tuned = _least_tuned(problem) + cost.argmin(axis=0)
    assert best is not None
    plan = best[1]
    bound = min(bound, plan.objective) if method in CERTIFIED else -np.inf
    close = bound > 0 and plan.objective <= bound * (1 + OPTIMAL_GAP)
    return replace(
        plan,
        lower_bound=bound,
        status=Status.OPTIMAL if close else Status.FEASIBLE,
        solve_s=clock.perf_counter() - began,
    )


def least_risk(problem: EdgeProblem) -> Integers:
    """Return [N] the numbers of tuned layers with the least weighted instability and loss, whatever work they make."""
    first = _least_tuned(problem)
    risk = np.array([problem.at(np.full(len(problem), tau)).risk for tau in _numbers(problem)])
    found: Integers = first + risk.argmin(axis=0)
    return found


def costs_at(problem: EdgeProblem, band_price: Floats, clock_price: Floats) -> Floats:
    """Return [T, N] what every user costs at prices, at its best server and split, with each number of tuned layers."""
    rows = []
    for tau in _numbers(problem):
        given = problem.at(np.full(len(problem), tau))
        rows.append(Prices(given).least(band_price, clock_price))
    return np.array(rows)


def _numbers(problem: EdgeProblem) -> range:
    return range(_least_tuned(problem), problem.layers + 1)


def _least_tuned(problem: EdgeProblem) -> int:
    assert problem.choices is not None
    return problem.choices.least
