"""Association by optimal assignment at prices: each server has a limited number of seats (section 3.3)."""

from __future__ import annotations

import numpy as np

from sflam.allocate.edge.dual import Prices, first_prices
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.papers.fractional import nearest_allowed
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.search import improve
from sflam.allocate.referee import Found, planned
from sflam.plan import ALL_LOCAL

SEATS = 1.5  # over equal shares of the users
ROUNDS = 5
TINY = 1e-20
"""The price of a resource that is not used up, 1/Hz."""


@planned("hungarian")
def solve(problem: EdgeProblem) -> Found:
    """Return the best plan of five rounds: costs at prices, assignment to seats, splits and prices anew.

    Prices are the geometric means of the last ones and the new, or users would oscillate between servers. Every
    user also has a seat of its own, for training all layers. Starts at the nearest servers.
    """
    from scipy.optimize import linear_sum_assignment

    users, layers = len(problem), problem.layers
    prices = Prices(problem)
    half = nearest_allowed(problem, np.full(users, layers / 2))
    server = np.where(half == layers, ALL_LOCAL, problem.network.gain.argmax(axis=0))
    now, history = improve(problem, settle(problem, server, half), prices=prices, budget=0)
    best = now
    seats = int(np.ceil(SEATS * users / problem.servers))
    alone = problem.local[:, layers]
    mu, nu = first_prices(problem)
    for _ in range(ROUNDS if len(prices.splits) else 0):
        mu, nu = (
            np.sqrt(np.maximum(old, TINY) * np.maximum(new, TINY))
            for old, new in zip((mu, nu), (now.band_price, now.clock_price), strict=True)
        )
        cost = prices.table(mu, nu)  # [S, M, N]
        at = cost.argmin(axis=0)
        table = np.repeat(cost.min(axis=0).T, seats, axis=1)  # [N, M seats]
        home = np.full((users, users), np.inf)
        np.fill_diagonal(home, alone)
        table = np.concatenate([table, home], axis=1)
        finite = np.where(np.isfinite(table), table, 1e6 * table[np.isfinite(table)].max())
        _, seat = linear_sum_assignment(finite)
        stays = seat >= problem.servers * seats
        to = np.minimum(seat // seats, problem.servers - 1)
        priced = np.where(stays, layers, prices.splits[at[to, np.arange(users)]])
        halved = np.where(stays | (half == layers), layers, half)
        starts = [settle(problem, np.where(each == layers, ALL_LOCAL, to), each) for each in (priced, halved)]
        found = [improve(problem, start, prices=prices, budget=0) for start in starts]
        now, more = min(found, key=lambda each: each[0].objective)
        if now.objective < best.objective:
            best = now
            history = (*history, *[value for value in more if value < history[-1]])
    return Found(problem=problem, shares=best.shares, history=history)
