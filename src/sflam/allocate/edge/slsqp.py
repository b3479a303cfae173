"""A general solver on the shares of problem B, for checking: scipy's SLSQP in bandwidths, powers and server clocks."""

from __future__ import annotations

import numpy as np

from sflam.allocate.edge import dual as edge_dual
from sflam.allocate.edge.market import spread
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shares import EdgeShares, Integers
from sflam.allocate.referee import Found, planned, score
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import ALL_LOCAL

MOST = 40
"""Users at most: a step costs the cube of their number."""


@planned("slsqp")
def solve(
    problem: EdgeProblem, association: tuple[Integers, Integers] | None = None, starts: int = 4, seed: int = 0
) -> Found:
    """Return the best shares of several random starts at a fixed association and split.

    Args:
        problem: of at most ``MOST`` users.
        association: servers [N] and splits [N]; those of ``dual`` by default.
        starts: how many.
        seed: of the starts.

    Raises:
        AllocationError: more users.
    """
    if len(problem) > MOST:
        raise AllocationError(f"slsqp: {len(problem)} users are more than {MOST}; use method dual")
    if association is None:
        devices = edge_dual.solve(problem).devices
        association = devices.server, devices.cut
    server, split = association
    draw = np.random.default_rng(seed)
    found = [_from(problem, server, split, draw) for _ in range(starts)]
    best = min(found, key=lambda shares: score(problem, shares).objective)
    return Found(problem=problem, shares=best)


def _from(problem: EdgeProblem, server: Integers, split: Integers, draw: np.random.Generator) -> EdgeShares:
    """Return the shares that SLSQP finds from a random start, scaled back into their limits."""
    from scipy.optimize import minimize

    users = np.flatnonzero(server != ALL_LOCAL)
    home, n, network = server[users], len(users), problem.network
    member = home[None, :] == np.arange(problem.servers)[:, None]  # [M, n]
    limits = np.concatenate([network.bandwidth[home], network.max_power[users], network.server_clock[home]])
    price, noise = problem.energy_price[users], network.noise / network.gain[home, users]
    work = problem.served_cycles(home, users, split[users])
    weight = problem.energy_weight * network.server_kappa[home]

    def cost(v: Floats) -> float:
        b, p, f = np.split(np.maximum(v, 1e-9) * limits, 3)
        t = problem.payload[users] / (b * np.log1p(p / (noise * b)))
        serve = work * (problem.time_weight / f + weight * f * f)
        drawn = p / network.amplifier_efficiency[users] + network.circuit_power[users]
        return float(((problem.time_weight + price * drawn) * t + serve).sum())

    def shares(v: Floats) -> EdgeShares:
        return spread(problem, server, split, *np.split(np.maximum(v, 1e-9) * limits, 3))

    if not n:
        return shares(np.zeros(0))
    start = np.concatenate([_simplex(member, draw), draw.uniform(0.1, 1, n), _simplex(member, draw)])
    rows = [("ineq", lambda v, part=part: 1 - member @ v[part]) for part in (slice(n), slice(2 * n, None))]
    done = minimize(
        cost,
        start,
        method="SLSQP",
        bounds=[(1e-5, 1)] * (3 * n),
        constraints=[{"type": kind, "fun": function} for kind, function in rows],
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    v = done.x.copy()
    for part in (slice(n), slice(2 * n, None)):
        v[part] /= np.maximum(member @ v[part], 1.0) @ member
    v[n : 2 * n] = np.minimum(v[n : 2 * n], 1.0)
    return shares(v)


def _simplex(member: np.ndarray, draw: np.random.Generator) -> Floats:
    """Return random shares [n] that add up to 1 at every server."""
    raw = draw.uniform(0.2, 1, member.shape[1])
    share: Floats = raw / ((member @ raw) @ member)
    return share
