"""The cut of every user by enumeration, the server's clock in closed form (2.6), as arXiv 2412.00090 does for one user.

Every user minimises its own cost at the nearest server with an equal share of the band at full power and the clock

    f* = (w_t / (2 w_e kappa))^(1/3), at most its equal share

which minimises w_t L / f + w_e kappa f^2 L at any L. Shares depend on the number of users that send, so that choices
are repeated until none changes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sflam.allocate.edge.baselines import equal_shares
from sflam.allocate.edge.market import links_of
from sflam.allocate.edge.papers.fractional import nearest_allowed
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, Integers
from sflam.allocate.referee import Found, planned, score
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

ROUNDS = 20


@planned("card")
def solve(problem: EdgeProblem) -> Found:
    """Return the plan of users that each choose their own cut; no bound of its own."""
    users, layers = np.arange(len(problem)), problem.layers
    nearest = problem.network.gain.argmax(axis=0)
    split = nearest_allowed(problem, np.full(len(problem), layers / 2))
    best, value = _shares(problem, nearest, split), np.inf
    for _ in range(ROUNDS):
        tried = _shares(problem, nearest, split)
        if (found := score(problem, tried).objective) < value:
            best, value = tried, found
        # what a user alone would find: the shares of those that send, one more where it does not yet
        sends = tried.server != ALL_LOCAL
        count = np.bincount(nearest[sends], minlength=problem.servers)[nearest] + ~sends
        band = problem.network.bandwidth[nearest] / count
        links = links_of(problem, users, nearest)
        link = links.cost(band, np.log1p(links.max_power / (links.noise * band)))
        f = _clock(problem, nearest, problem.network.server_clock[nearest] / count)
        weight = problem.energy_weight * problem.network.server_kappa[nearest]
        cycle = problem.time_weight / f + weight * f**2
        every = np.arange(layers + 1)
        served = problem.served_cycles(nearest[:, None], users[:, None], every)
        cost = problem.local + problem.beside[nearest, users] + served * cycle[:, None]
        cost[:, :layers] += link[:, None]
        chosen = cost.argmin(axis=1)
        if (chosen == split).all():
            break
        split = chosen
    return Found(problem=problem, shares=best)


def _clock(problem: EdgeProblem, server: Integers, top: Floats) -> Floats:
    """Return the closed form (2.6), Hz, at most ``top``."""
    with np.errstate(divide="ignore"):
        free = np.cbrt(
            problem.time_weight / (2 * problem.energy_weight * problem.network.server_kappa[server])
        )
    return np.minimum(free, top)


def shares(problem: EdgeProblem, server: Integers, split: Integers) -> EdgeShares:
    """Return equal bandwidths at full power and the closed form's clocks, at an association and a split."""
    found = equal_shares(problem, server, split)
    home = np.where(server == ALL_LOCAL, 0, server)
    return replace(found, server_clock=_clock(problem, home, found.server_clock))


def _shares(problem: EdgeProblem, nearest: Integers, split: Integers) -> EdgeShares:
    return shares(problem, np.where(split == problem.layers, ALL_LOCAL, nearest), split)
