"""Association by optimal assignment at prices: each server has a limited number of seats (section 3.3)."""

from __future__ import annotations

import time as clock

import numpy as np

from sflam.allocate.edge import EdgeProblem
from sflam.allocate.edge_dual import Prices
from sflam.allocate.edge_fractional import nearest_allowed
from sflam.allocate.edge_market import settle
from sflam.allocate.edge_search import cost_at, improve
from sflam.plan import ALL_LOCAL, Plan

SEATS = 1.5  # over equal shares of the users
ROUNDS = 5


def solve(problem: EdgeProblem) -> Plan:
    """Return the best plan of five rounds: costs at prices, assignment to seats, splits and prices anew.

    Every user has a seat of its own at home. Starts at the nearest servers.
    """
    from scipy.optimize import linear_sum_assignment

    began = clock.perf_counter()
    users, layers = len(problem), problem.layers
    prices = Prices(problem)
    split = nearest_allowed(problem, np.full(users, layers / 2))
    server = np.where(split == layers, ALL_LOCAL, problem.network.gain.argmax(axis=0))
    now, history = improve(problem, settle(problem, server, split), prices=prices, budget=0)
    best = now
    seats = int(np.ceil(SEATS * users / problem.servers))
    alone = problem.local[:, layers]
    for _ in range(ROUNDS if len(prices.splits) else 0):
        cost = cost_at(problem, now, prices)  # [S, M, N]
        at = cost.argmin(axis=0)
        table = np.repeat(cost.min(axis=0).T, seats, axis=1)  # [N, M seats]
        home = np.full((users, users), np.inf)
        np.fill_diagonal(home, alone)
        table = np.concatenate([table, home], axis=1)
        finite = np.where(np.isfinite(table), table, 1e6 * table[np.isfinite(table)].max())
        _, seat = linear_sum_assignment(finite)
        stays = seat >= problem.servers * seats
        to = np.minimum(seat // seats, problem.servers - 1)
        split = np.where(stays, layers, prices.splits[at[to, np.arange(users)]])
        tried = settle(problem, np.where(stays, ALL_LOCAL, to), split)
        now, more = improve(problem, tried, prices=prices, budget=0)
        if now.objective < best.objective:
            best = now
            history = (*history, *[value for value in more if value < history[-1]])
    return problem.plan("hungarian", best.shares, history=history, solve_s=clock.perf_counter() - began)
