"""The method of arXiv 2409.20247, fractional programming, relaxed splits, CCCP association (section 3.3)."""

from __future__ import annotations

import numpy as np

from sflam.allocate.edge.market import Groups, senders, share_clocks, shares_from
from sflam.allocate.edge.papers.cccp import associate, options_of
from sflam.allocate.edge.papers.fp import alternate
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, Integers
from sflam.allocate.referee import Found, planned, score
from sflam.allocate.roots import bisect
from sflam.errors import AllocationError, unknown
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

SPLITS = ("rounded", "enumerated")
OUTER, INNER = 5, 200


@planned("fractional")
def solve(problem: EdgeProblem, splits: str = "rounded") -> Found:
    """Return the paper's plan; no bound of its own.

    Args:
        problem: any.
        splits: ``rounded`` relaxes splits, rounds them, and associates users at these, in turns, as printed;
            ``enumerated`` lets the association choose among all splits.

    Raises:
        AllocationError: another word.
    """
    if splits not in SPLITS:
        raise AllocationError(unknown("way to choose splits", splits, SPLITS))
    if splits == "enumerated":
        server, split, _ = associate(problem, options_of(problem))
        best = _shares(problem, server, split)
        history = [score(problem, best).objective]
    else:
        best, history = _turns(problem)
    return Found(problem=problem, shares=best, history=tuple(history))


def _turns(problem: EdgeProblem) -> tuple[EdgeShares, list[float]]:
    """Return the best shares of association, relaxation and rounding in turns, and the best objective after each."""
    split = nearest_allowed(problem, np.full(len(problem), problem.layers / 2))
    best: EdgeShares | None = None
    history: list[float] = []
    for _ in range(OUTER):
        server, split, _ = associate(problem, options_of(problem, split))
        split = nearest_allowed(problem, relax(problem, server, split))
        tried = _shares(problem, np.where(split == problem.layers, ALL_LOCAL, server), split)
        value = score(problem, tried).objective
        if history and value >= history[-1] * (1 - 1e-9):
            break
        best = tried
        history.append(value)
    assert best is not None
    return best, history


def relax(problem: EdgeProblem, server: Integers, split: Integers) -> Floats:
    """Return [N] real splits that no longer change, from whole ones, at a fixed association; ``ALL_LOCAL`` stay.

    (Y - alpha) times what a layer costs at the server, c(f), is at most (Y - alpha)^2 z + c^2 / (4 z), equal at
    z = c / (2 (Y - alpha)) (3.6). In turns: z, the splits for it, and the clocks (3.4). The cost falls at every turn.
    """
    users = np.flatnonzero(server != ALL_LOCAL)
    home = server[users]
    alpha = split[users].astype(float)
    if not len(users):
        return split.astype(float)
    network, layers = problem.network, problem.layers
    weight = problem.energy_weight * network.server_kappa[home]
    f, joules = problem.clock[users], network.kappa[users] * problem.clock[users] ** 2
    idle = network.static_power[users] / f
    layer = problem.cycles[users] * (problem.time_weight / f + problem.energy_price[users] * (joules + idle))
    most = layers if problem.most_split is None else problem.most_split
    samples = np.asarray(problem.samples, float)[users]
    groups = Groups(users, home, home, problem.servers)
    for _ in range(INNER):
        left = np.maximum(layers - alpha, 1e-6)
        shared = share_clocks(problem, groups, left * problem.server_cycles[home, users])
        each = problem.server_cycles[home, users] * (
            problem.time_weight / shared.clock + weight * shared.clock**2
        )
        z = each / (2 * left)

        def fall(a: Floats, z: Floats = z) -> Floats:
            convexity = problem.eigenvalue + 2 * problem.penalty * (1 - a / layers)
            shaky = (
                4
                * problem.lipschitz**2
                * problem.penalty
                / (layers * samples * np.maximum(convexity, 1e-12) ** 2)
            )
            shaky = shaky * (problem.tuned is None)  # else no split changes it
            value: Floats = 2 * z * (layers - a) - layer - problem.stability_weight * shaky
            return value

        before = alpha
        alpha = bisect(
            fall, np.full(len(users), float(problem.least_split)), np.full(len(users), float(most))
        )
        if np.abs(alpha - before).max() < 1e-4:
            break
    relaxed = split.astype(float)
    relaxed[users] = alpha
    return relaxed


def nearest_allowed(problem: EdgeProblem, split: Floats) -> Integers:
    """Return [N] the allowed whole splits nearest to real ones."""
    distance = np.abs(np.arange(problem.layers + 1) - split[:, None])
    distance[~np.isfinite(problem.local)] = np.inf
    chosen: Integers = distance.argmin(axis=1)
    return chosen


def _shares(problem: EdgeProblem, server: Integers, split: Integers) -> EdgeShares:
    """Return bandwidths and powers by fractional programming, clocks by their price."""
    b, x, _ = alternate(problem, server)
    clocks = share_clocks(problem, *senders(problem, server, split))
    return shares_from(problem, server, split, b, x, clocks.clock)
