"""Plans without a solver for problem B: the nearest server, a random one, all local, all at the edge."""

from __future__ import annotations

import numpy as np

from sflam.allocate.edge.dual import Prices
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.papers.fractional import nearest_allowed
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.search import improve
from sflam.allocate.edge.shares import EdgeShares, Integers
from sflam.allocate.referee import Found, planned
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL


@planned("nearest")
def nearest(problem: EdgeProblem) -> Found:
    """Return every user at the server of its highest gain, fading included; best shares, splits at their prices."""
    return _best_splits(problem, problem.network.gain.argmax(axis=0))


@planned("random")
def random(problem: EdgeProblem, seed: int = 0) -> Found:
    """Return every user at a random server in reach; the best shares, splits at their prices."""
    draw = np.random.default_rng(seed)
    chance = draw.random(problem.reachable.shape)
    return _best_splits(problem, np.where(problem.reachable, chance, -1.0).argmax(axis=0))


@planned("all-local")
def all_local(problem: EdgeProblem) -> Found:
    """Return every user training all layers itself.

    Raises:
        AllocationError: a user may not, for its memory or the range of splits.
    """
    if not np.isfinite(problem.local[:, problem.layers]).all():
        user = int(np.argmin(np.isfinite(problem.local[:, problem.layers])))
        raise AllocationError(
            f"all-local: user {user} may not train all {problem.layers} layers; use another method"
        )
    found = settle(problem, np.full(len(problem), ALL_LOCAL), np.full(len(problem), problem.layers))
    return Found(problem=problem, shares=found.shares)


@planned("all-edge")
def all_edge(problem: EdgeProblem) -> Found:
    """Return every user with as few layers as it may have, at the nearest server, with the best shares."""
    split = nearest_allowed(problem, np.zeros(len(problem)))
    found = settle(problem, *_sent(problem, problem.network.gain.argmax(axis=0), split))
    return Found(problem=problem, shares=found.shares)


@planned("equal")
def equal(problem: EdgeProblem, split: int | None = None) -> Found:
    """Return equal bandwidths and clocks at the nearest server, full power, half of the layers on every user.

    Args:
        problem: any.
        split: layers on every user instead, where they may have them.
    """
    half = max(problem.layers // 2, 1) if split is None else split
    layers = nearest_allowed(problem, np.full(len(problem), float(half)))
    server, layers = _sent(problem, problem.network.gain.argmax(axis=0), layers)
    return Found(problem=problem, shares=equal_shares(problem, server, layers))


def equal_shares(problem: EdgeProblem, server: Integers, split: Integers) -> EdgeShares:
    """Return b = B / n, f = F / n, p = p_max, with n users linked to a server."""
    away = server != ALL_LOCAL
    count = np.maximum(np.bincount(server[away], minlength=problem.servers), 1)
    home, network = np.where(away, server, 0), problem.network

    def each(values: Floats) -> Floats:
        return np.where(away, values, 0.0)

    return EdgeShares(
        server=server,
        split=split,
        bandwidth=each((network.bandwidth / count)[home]),
        power=each(network.max_power),
        clock=problem.clock,
        server_clock=each((network.server_clock / count)[home]),
    )


def _best_splits(problem: EdgeProblem, server: Integers) -> Found:
    split = nearest_allowed(problem, np.full(len(problem), problem.layers / 2))
    start = settle(problem, *_sent(problem, server, split))
    found, history = improve(problem, start, prices=Prices(problem), budget=0)
    return Found(problem=problem, shares=found.shares, history=history)


def _sent(problem: EdgeProblem, server: Integers, split: Integers) -> tuple[Integers, Integers]:
    """Return the association with ``ALL_LOCAL`` for users that keep all layers."""
    return np.where(split == problem.layers, ALL_LOCAL, server), split
