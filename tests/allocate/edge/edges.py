"""Edge problems for tests: the reference square, and random small ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.statement import edge_problem
from sflam.cost.reference import workloads_of
from sflam.network.reference import ref_b


def square(
    users: int = 20,
    servers: int = 4,
    seed: int = 0,
    *,
    layers: int = 12,
    rate: float = 1024.0,
    **changes: Any,
) -> EdgeProblem:
    """Return the reference square as a problem; ``rate`` is a server's FLOP per cycle."""
    edge = ref_b(users, servers, seed, rate)
    return edge_problem(edge.network, workloads_of(edge, layers), edge.samples, **changes)


def random_edge(
    seed: int, *, most_users: int = 6, most_servers: int = 3, most_layers: int = 6
) -> EdgeProblem:
    """Return a problem drawn over orders of magnitude: sizes, bands, clocks, weights, samples, reach, memory."""
    draw = np.random.default_rng(seed)

    def wide(low: float, high: float, *shape: int) -> Any:
        return np.exp(draw.uniform(np.log(low), np.log(high), shape))

    users, servers = int(draw.integers(1, most_users + 1)), int(draw.integers(1, most_servers + 1))
    problem = square(
        users, servers, int(draw.integers(1e6)), layers=int(draw.integers(2, most_layers + 1)), rate=512.0
    )
    network = problem.network
    gain = network.gain * wide(1e-3, 1e3, servers, users)
    heard = draw.random(gain.shape) < 0.8
    heard[draw.integers(0, servers, users), np.arange(users)] = True
    network = replace(
        network,
        gain=np.where(heard, gain, 0.0),
        bandwidth=wide(1e5, 1e8, servers),
        server_clock=wide(1e8, 1e10, servers),
        server_flops_per_cycle=wide(50, 1e5, servers),
        server_kappa=wide(1e-28, 1e-25, servers) * (draw.random() < 0.8),
        energy_weight=draw.uniform(0, 3, users) * (draw.random(users) > 0.2),
        static_power=draw.uniform(0, 1, users) * (draw.random() < 0.5),
    )
    radio = np.random.default_rng(seed + 1)
    if radio.random() < 0.5:
        network = replace(
            network,
            amplifier_efficiency=radio.uniform(0.1, 1, users),
            circuit_power=radio.uniform(0, 2, users) * (radio.random(users) < 0.7),
        )
    asked: dict[str, Any] = {}
    if draw.random() < 0.3:
        asked["least_split"] = int(draw.integers(1, problem.layers + 1))
    if draw.random() < 0.3:
        asked["most_split"] = int(draw.integers(asked.get("least_split", 1), problem.layers + 1))
    if draw.random() < 0.3 and problem.memory is not None:
        room = problem.memory[:, asked.get("least_split", 1)] * draw.uniform(1.01, 4, users)
        network = replace(network, memory=room)
    return problem.change(
        network=network,
        energy_weight=float(wide(1e-2, 1e2)),
        stability_weight=float(wide(1e-1, 1e3)) * (draw.random() < 0.9),
        samples=draw.integers(10, 5000, users).astype(float),
        eigenvalue=float(wide(1e-3, 1.0)),
        **asked,
    )
