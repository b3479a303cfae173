"""Improving an association by exact evaluation: splits at exact prices, then single moves. The objective only falls."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sflam.allocate.edge import EdgeProblem
from sflam.allocate.edge_market import Groups, Settled, settle, share_bands, share_clocks
from sflam.allocate.edge_shares import Integers, add_up
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

AT_ONCE = 16
"""Moves that are evaluated together."""
LEAST_GAIN = 1e-12


class Table(Protocol):
    """Costs at prices; ``Prices`` of ``edge_dual``."""

    splits: Integers

    def table(self, band_price: Floats, clock_price: Floats) -> Floats:
        """Return [S, M, N] costs."""


def improve(
    problem: EdgeProblem, best: Settled, *, prices: Table, budget: int, move: bool = True
) -> tuple[Settled, tuple[float, ...]]:
    """Return a plan at which neither splits at its prices nor a single move gains, and the objectives on the way.

    Args:
        problem: any.
        best: where to start.
        prices: costs at prices.
        budget: moves to evaluate exactly.
        move: whether users may change servers; without, only splits.
    """
    history = [best.objective]
    best = respond(problem, best, prices, history, move=move)
    if not move or not len(prices.splits):
        return best, tuple(history)
    spent = 0
    while spent < budget:
        moves = ranked(problem, best, prices)
        improved = None
        for first in range(0, min(len(moves[0]), budget - spent), AT_ONCE):
            users, servers, splits = (each[first : first + AT_ONCE] for each in moves)
            spent += len(users)
            values = try_moves(problem, best, users, servers, splits)
            winner = int(values.argmin())
            if values[winner] < best.objective * (1 - LEAST_GAIN):
                improved = users[winner], servers[winner], splits[winner]
                break
        if improved is None:
            break
        server, split = best.shares.server.copy(), best.shares.split.copy()
        server[improved[0]], split[improved[0]] = improved[1:]
        tried = settle(problem, server, split)
        if tried.objective >= best.objective * (1 - LEAST_GAIN):
            break
        best = tried
        history.append(best.objective)
        best = respond(problem, best, prices, history, move=True)
    return best, tuple(history)


def respond(
    problem: EdgeProblem, best: Settled, prices: Table, history: list[float], *, move: bool
) -> Settled:
    """Give every user its best split at exact prices, at its own server, again while that gains."""
    users = np.arange(len(problem))
    for _ in range(20):
        if not len(prices.splits):
            break
        server = best.shares.server
        away = server != ALL_LOCAL
        at_home = cost_at(problem, best, prices)[:, np.where(away, server, 0), users]  # [S, N]
        choice = at_home.argmin(axis=0)
        alone = (
            problem.local[:, problem.layers] <= at_home[choice, users] if move else np.zeros(len(users), bool)
        )
        alone |= ~away
        split = np.where(alone, problem.layers, prices.splits[choice])
        tried = settle(problem, np.where(alone, ALL_LOCAL, server), split)
        if tried.objective >= best.objective * (1 - LEAST_GAIN):
            break
        best = tried
        history.append(best.objective)
    return best


def cost_at(problem: EdgeProblem, now: Settled, prices: Table) -> Floats:
    """Return [S, M, N] costs at a plan's prices; an idle server's price is almost nothing."""
    mu = np.where(
        now.band_price > 0, now.band_price, 1e-3 * now.band_price[now.band_price > 0].min(initial=1e-8)
    )
    return prices.table(mu, now.clock_price)


def ranked(problem: EdgeProblem, now: Settled, prices: Table) -> tuple[Integers, Integers, Integers]:
    """Return (user, server, split) of single moves by their gain at prices, the best first.

    One move per user and server, at the split that is best there; all-local is a server too.
    """
    users = np.arange(len(problem))
    cost = cost_at(problem, now, prices)
    split = cost.argmin(axis=0)  # [M, N]
    least = np.take_along_axis(cost, split[None], axis=0)[0]
    server, chosen = now.shares.server, now.shares.split
    place = np.searchsorted(prices.splits, np.minimum(chosen, prices.splits[-1]))
    here = np.where(
        server == ALL_LOCAL,
        problem.local[:, problem.layers],
        cost[place, np.maximum(server, 0), users],
    )
    every = np.concatenate([least, problem.local[None, :, problem.layers]])  # [M + 1, N]
    to = np.concatenate(
        [
            np.broadcast_to(np.arange(problem.servers)[:, None], least.shape),
            np.full((1, len(users)), ALL_LOCAL),
        ]
    )
    layers = np.concatenate([prices.splits[split], np.full((1, len(users)), problem.layers)])
    gain = here - every
    gain[(to == server) & (layers == chosen)] = -np.inf
    gain = np.where(np.isfinite(every), gain, -np.inf)
    order = np.argsort(-gain, axis=None, kind="stable")
    order = order[np.isfinite(gain.ravel()[order])]
    user = np.broadcast_to(users, gain.shape).ravel()[order]
    return user, to.ravel()[order], layers.ravel()[order]


def try_moves(
    problem: EdgeProblem, now: Settled, users: Integers, servers: Integers, splits: Integers
) -> Floats:
    """Return [n] the objectives after each of n single moves, exactly: the two servers it touches are shared anew."""
    server, split, every = now.shares.server, now.shares.split, np.arange(len(problem))
    n = len(users)
    after = np.repeat(server[None], n, axis=0)
    layers = np.repeat(split[None], n, axis=0)
    after[np.arange(n), users], layers[np.arange(n), users] = servers, splits
    touched = np.zeros((n, problem.servers), bool)
    for each in (server[users], servers):
        touched[np.flatnonzero(each >= 0), each[each >= 0]] = True
    kept = (after >= 0) & touched[np.arange(n)[:, None], np.maximum(after, 0)]
    at, user = np.nonzero(kept)
    home = after[at, user]
    groups = Groups(user, home, at * problem.servers + home, n * problem.servers)
    guess_mu, guess_nu = np.tile(_positive(now.band_price), n), np.tile(_positive(now.clock_price), n)
    bands = share_bands(problem, groups, guess_mu)
    cycles = (problem.layers - layers[at, user]) * problem.server_cycles[home, user]
    clocks = share_clocks(problem, groups, cycles, guess_nu)
    new = add_up(at, bands.cost + clocks.cost, n)
    new += problem.local[every, layers].sum(axis=1)
    return new + _untouched(problem, now, touched)


def _untouched(problem: EdgeProblem, now: Settled, touched: np.ndarray) -> Floats:
    """Return [n] what the servers cost that a move does not touch."""
    costs = server_costs(problem, now)
    return (~touched) @ costs


def server_costs(problem: EdgeProblem, now: Settled) -> Floats:
    """Return [M] what sending to and computing at every server costs."""
    score = problem.score(now.shares)
    away = now.shares.server != ALL_LOCAL
    cost = problem.time_weight * (score.transmit + score.serve)
    cost = cost + problem.energy_price * score.transmit_energy + problem.energy_weight * score.server_energy
    return add_up(now.shares.server[away], cost[away], problem.servers)


def _positive(prices: Floats) -> Floats:
    """Return prices with a guess where there is none."""
    known = prices[prices > 0]
    return np.where(prices > 0, prices, np.median(known) if known.size else 1e-8)
