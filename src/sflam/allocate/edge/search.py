"""Improving an association by exact evaluation: splits at exact prices, moves, swaps. The objective only falls."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from sflam.allocate.edge.market import Groups, Settled, settle, share_bands, share_clocks
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import Integers, add_up
from sflam.allocate.referee import score
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

AT_ONCE = 16
"""Moves that are evaluated together."""
SWAPS = 64
"""Exchanges of two users that are looked at."""
LEAST_GAIN = 1e-12
Moves = tuple[Integers, Integers, Integers]
"""Users, their new servers and splits, [n, k] each: n moves of k users."""


class Table(Protocol):
    """Costs at prices; ``Prices`` of ``edge_dual``."""

    splits: Integers

    def table(self, band_price: Floats, clock_price: Floats) -> Floats:
        """Return [S, M, N] costs."""


def improve(
    problem: EdgeProblem, best: Settled, *, prices: Table, budget: int
) -> tuple[Settled, tuple[float, ...]]:
    """Return a plan at which splits at its prices, single moves and likely swaps gain nothing; and the objectives.

    Args:
        problem: any.
        best: where to start.
        prices: costs at prices.
        budget: moves to evaluate exactly; with 0 only splits change.
    """
    history = [best.objective]
    best = respond(problem, best, prices, history)
    if not len(prices.splits):
        return best, tuple(history)
    while budget > 0:
        found = None
        for moves in (ranked(problem, best, prices), swaps(problem, best, prices)):
            found, spent = first_gain(problem, best, moves, budget)
            budget -= spent
            if found is not None or budget <= 0:
                break
        if found is None:
            break
        best = found
        history.append(best.objective)
        best = respond(problem, best, prices, history)
    return best, tuple(history)


def first_gain(problem: EdgeProblem, best: Settled, moves: Moves, budget: int) -> tuple[Settled | None, int]:
    """Return the best of the first batch of moves that holds a gain, None without any, and how many were tried."""
    spent = 0
    while spent < min(len(moves[0]), budget):
        users, servers, splits = (each[spent : spent + AT_ONCE] for each in moves)
        spent += len(users)
        values = try_moves(problem, best, users, servers, splits)
        winner = int(values.argmin())
        if values[winner] < best.objective * (1 - LEAST_GAIN):
            server, split = best.shares.server.copy(), best.shares.split.copy()
            server[users[winner]], split[users[winner]] = servers[winner], splits[winner]
            tried = settle(problem, server, split)
            if tried.objective < best.objective * (1 - LEAST_GAIN):
                return tried, spent
    return None, spent


def respond(problem: EdgeProblem, best: Settled, prices: Table, history: list[float]) -> Settled:
    """Give every user its best split at exact prices, at its own server or none, again while that gains."""
    users = np.arange(len(problem))
    for _ in range(20):
        if not len(prices.splits):
            break
        server = best.shares.server
        away = server != ALL_LOCAL
        at_home = cost_at(problem, best, prices)[:, np.where(away, server, 0), users]  # [S, N]
        choice = at_home.argmin(axis=0)
        alone = ~away | (problem.local[:, problem.layers] <= at_home[choice, users])
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


def ranked(problem: EdgeProblem, now: Settled, prices: Table) -> Moves:
    """Return single moves by their gain at prices, the best first: one per user and server, at its best split there."""
    here, there, to, layers = _places(problem, now, prices)
    gain = np.where(np.isfinite(there), here - there, -np.inf)
    gain[(to[:, None] == now.shares.server) & (layers == now.shares.split)] = -np.inf
    order = np.argsort(-gain, axis=None, kind="stable")
    row, user = np.divmod(order[np.isfinite(gain.ravel()[order])], gain.shape[1])
    return user[:, None], to[row][:, None], layers[row, user][:, None]


def swaps(problem: EdgeProblem, now: Settled, prices: Table) -> Moves:
    """Return exchanges of two users' places by their gain at prices, the best first, ``SWAPS`` at most."""
    here, there, to, layers = _places(problem, now, prices)
    server = now.shares.server
    row = np.where(server == ALL_LOCAL, problem.servers, server)
    gain = here[:, None] - there[row].T  # [N, N]: user n at the place of user k
    gain = gain + gain.T
    gain[(server[:, None] == server) | ~np.isfinite(gain)] = -np.inf
    first, second = np.triu_indices(len(server), 1)
    order = np.argsort(-gain[first, second], kind="stable")[:SWAPS]
    order = order[np.isfinite(gain[first, second][order])]
    pair = np.stack([first[order], second[order]], axis=1)
    target = row[pair[:, ::-1]]
    return pair, to[target], layers[target, pair]


def _places(problem: EdgeProblem, now: Settled, prices: Table) -> tuple[Floats, Floats, Integers, Integers]:
    """Return costs at prices, [N] where users are and [M + 1, N] at every place, none last; places; best splits."""
    users = np.arange(len(problem))
    cost = cost_at(problem, now, prices)
    split = cost.argmin(axis=0)  # [M, N]
    server, alone = now.shares.server, problem.local[:, problem.layers]
    place = np.searchsorted(prices.splits, np.minimum(now.shares.split, prices.splits[-1]))
    here = np.where(server == ALL_LOCAL, alone, cost[place, np.maximum(server, 0), users])
    there = np.concatenate([np.take_along_axis(cost, split[None], axis=0)[0], alone[None]])
    layers = np.concatenate([prices.splits[split], np.full((1, len(users)), problem.layers)])
    return here, there, np.append(np.arange(problem.servers), ALL_LOCAL), layers


def try_moves(
    problem: EdgeProblem, now: Settled, users: Integers, servers: Integers, splits: Integers
) -> Floats:
    """Return [n] the objectives after each of n moves of k users [n, k], exactly: touched servers are shared anew."""
    server, split = now.shares.server, now.shares.split
    n = len(users)
    after = np.repeat(server[None], n, axis=0)
    layers = np.repeat(split[None], n, axis=0)
    turn = np.arange(n)[:, None]
    after[turn, users], layers[turn, users] = servers, splits
    touched = np.zeros((n, problem.servers), bool)
    for each in (server[users], servers):
        touched[np.nonzero(each >= 0)[0], each[each >= 0]] = True
    kept = (after >= 0) & touched[turn, np.maximum(after, 0)]
    at, user = np.nonzero(kept)
    home = after[at, user]
    groups = Groups(user, home, at * problem.servers + home, n * problem.servers)
    guess_mu, guess_nu = np.tile(_positive(now.band_price), n), np.tile(_positive(now.clock_price), n)
    bands = share_bands(problem, groups, guess_mu)
    cycles = problem.served_cycles(home, user, layers[at, user])
    clocks = share_clocks(problem, groups, cycles, guess_nu)
    new = add_up(at, bands.cost + clocks.cost, n)
    new += problem.fixed(after, layers).sum(axis=1)
    return new + _untouched(problem, now, touched)


def _untouched(problem: EdgeProblem, now: Settled, touched: np.ndarray) -> Floats:
    """Return [n] what the servers cost that a move does not touch."""
    costs = server_costs(problem, now)
    return (~touched) @ costs


def server_costs(problem: EdgeProblem, now: Settled) -> Floats:
    """Return [M] what sending to and computing at every server costs."""
    found = score(problem, now.shares)
    away = now.shares.server != ALL_LOCAL
    cost = problem.time_weight * (found.transmit + found.serve)
    cost = cost + problem.energy_price * found.sending_energy + problem.energy_weight * found.server_energy
    return add_up(now.shares.server[away], cost[away], problem.servers)


def _positive(prices: Floats) -> Floats:
    """Return prices with a guess where there is none."""
    known = prices[prices > 0]
    return np.where(prices > 0, prices, np.median(known) if known.size else 1e-8)
