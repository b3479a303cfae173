"""Every association and every split of a small problem B: the optimum, for comparison with other methods."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from sflam.allocate.edge.market import Groups, Settled, settle, share_bands, share_clocks
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shadow_prices import edge_shadow_prices
from sflam.allocate.edge.shares import Integers, add_up
from sflam.allocate.referee import Found, planned
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

MOST = 3_000_000
"""Combinations looked at, at most."""


@planned("exhaustive")
def solve(problem: EdgeProblem) -> Found:
    """Return the optimum over all (M (Y - 1) + 1)^N choices; its own objective is its bound.

    Raises:
        AllocationError: more than ``MOST`` choices.
    """
    users = len(problem)
    count = choices(problem)
    if count > MOST or problem.layers**users > MOST:
        raise AllocationError(
            f"{users} users, {problem.servers} servers and {problem.layers} layers are 1e{math.log10(count):.0f} "
            f"choices, more than {MOST}; use method dual, which is certified"
        )
    found = find(problem)
    prices = edge_shadow_prices(problem, found)
    return Found(problem=problem, shares=found.shares, lower_bound=found.objective, shadow_prices=prices)


def choices(problem: EdgeProblem) -> int:
    """Return how many associations with splits there are."""
    count: int = (problem.servers * (problem.layers - 1) + 1) ** len(problem)
    return count


def find(problem: EdgeProblem) -> Settled:
    """Return the best of all choices; time and memory grow with :func:`choices`."""
    users, inner = len(problem), problem.layers - 1
    # [states, N] layers on the user; 0 where it is not at this server
    states = np.array(list(product(range(problem.layers), repeat=users)))
    cost = np.stack([_at_server(problem, states, m) for m in range(problem.servers)])  # [M, states]
    # option 0: alone; 1 + m (Y - 1) + (alpha - 1): alpha layers at home, the rest at server m
    options = problem.servers * inner + 1
    own = np.column_stack(
        [problem.local[:, problem.layers], *(problem.local + problem.beside)[:, :, 1 : problem.layers]]
    )
    place: Integers = problem.layers ** np.arange(users - 1, -1, -1)
    total, at = own[0].copy(), _state(problem, place[0])
    for user in range(1, users):
        total = (total[:, None] + own[user]).ravel()
        at = (at[:, :, None] + _state(problem, place[user])[:, None, :]).reshape(problem.servers, -1)
    for m in range(problem.servers):
        total += cost[m, at[m]]
    best = np.array(np.unravel_index(int(total.argmin()), (options,) * users))
    alone = best == 0
    home, alpha = np.divmod(np.maximum(best - 1, 0), max(inner, 1))
    return settle(problem, np.where(alone, ALL_LOCAL, home), np.where(alone, problem.layers, alpha + 1))


def _state(problem: EdgeProblem, place: np.int64) -> Integers:
    """Return [M, options]: what one user's option adds to the index of every server's state."""
    inner = problem.layers - 1
    adds = np.zeros((problem.servers, problem.servers * inner + 1), np.int64)
    for m in range(problem.servers):
        adds[m, 1 + m * inner : 1 + (m + 1) * inner] = place * np.arange(1, problem.layers)
    return adds


def _at_server(problem: EdgeProblem, states: Integers, server: int) -> Floats:
    """Return [states] the least cost of sending to and computing at a server; inf where a user cannot reach it."""
    here = states > 0
    subset, which = np.unique(here, axis=0, return_inverse=True)
    reach = problem.reachable[server]
    group, user = np.nonzero(subset & reach)
    bands = share_bands(problem, Groups(user, np.full(len(user), server), group, len(subset)))
    sending = add_up(group, bands.cost, len(subset))
    group, user = np.nonzero(here)
    cycles = problem.served_cycles(server, user, states[group, user])
    clocks = share_clocks(problem, Groups(user, np.full(len(user), server), group, len(states)), cycles)
    cost: Floats = sending[which.ravel()] + add_up(group, clocks.cost, len(states))
    cost[(here & ~reach).any(axis=1)] = np.inf
    return cost
