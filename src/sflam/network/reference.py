"""The reference networks, the same on every machine: a cell that fine-tunes a ViT-B/16, and a square with servers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import Floats, Network
from sflam.units import dbm_to_watt

NOISE_DBM = -174.0  # of one Hz
NEAREST_M, FURTHEST_M = 10.0, 250.0
LEAST_FADING = 1e-3
MAX_POWER_DBM = 23.0
FLOPS_PER_CYCLE = 512.0
KAPPA = 1e-28
SIDE_M = 500.0
SERVER_CLOCK = 1.5e9
SERVER_KAPPA = 1.5e-26
SERVER_FLOPS_PER_CYCLE = 1024.0
TOKENS = (64, 128, 256)
LEAST_SAMPLES, MOST_SAMPLES = 200, 1999


def path_gain(distance: Floats) -> Floats:
    """Return the power gain at distances in m: 128.1 + 37.6 log10(km) dB of loss, at least 10 m away."""
    loss = 128.1 + 37.6 * np.log10(np.maximum(distance, NEAREST_M) / 1e3)
    return 10.0 ** (-loss / 10.0)


def ref_a(
    devices: int = 20,
    seed: int = 0,
    *,
    bandwidth: float = 20e6,
    radius: float = FURTHEST_M,
    fading: bool = True,
    server_flops: float = 1e14,
) -> Network:
    """Return the reference cell: a disc of 10-250 m, Rayleigh fading, clocks of 0.5-1.5 GHz.

    Draws, in this order, from ``default_rng(seed)``: squared radii, fading, clocks.

    Args:
        devices: K.
        seed: of the draws.
        bandwidth: Hz.
        radius: of the disc, m.
        fading: without, the fading is not drawn either, and the gain is the path's.
        server_flops: FLOP/s of the server.
    """
    draw = np.random.default_rng(seed)
    distance = np.sqrt(draw.uniform(NEAREST_M**2, radius**2, devices))
    faded = np.maximum(draw.exponential(1.0, devices), LEAST_FADING) if fading else np.ones(devices)
    clock = draw.uniform(0.5e9, 1.5e9, devices)
    each = np.ones(devices)
    return Network(
        gain=(path_gain(distance) * faded)[None, :],
        max_power=each * dbm_to_watt(MAX_POWER_DBM),
        max_clock=clock,
        flops_per_cycle=each * FLOPS_PER_CYCLE,
        kappa=each * KAPPA,
        static_power=0.0 * each,
        memory=np.inf * each,
        energy_weight=each,
        noise=dbm_to_watt(NOISE_DBM),
        bandwidth=np.array([bandwidth]),
        server_clock=np.array([1e9]),
        server_flops_per_cycle=np.array([server_flops / 1e9]),
        server_kappa=np.zeros(1),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Edge:
    """Users among several servers, each with its own data and length of texts.

    Attributes:
        network: users and servers.
        tokens: [N] tokens of a user's samples.
        samples: [N] samples a user holds.
    """

    network: Network
    tokens: NDArray[np.int64]
    samples: NDArray[np.int64]


def ref_b(
    users: int = 20,
    servers: int = 4,
    seed: int = 0,
    server_flops_per_cycle: float = SERVER_FLOPS_PER_CYCLE,
    *,
    bandwidth: float = 20e6,
) -> Edge:
    """Return the reference square: 500 m, users and servers anywhere in it, Rayleigh fading, texts of three lengths.

    Draws, in this order, from ``default_rng(seed)``: users' positions, servers' positions, fading [N, M], tokens,
    samples, clocks.

    Args:
        users: N.
        servers: M.
        seed: of the draws.
        server_flops_per_cycle: FLOP per clock cycle of a server of 1.5 GHz.
        bandwidth: of every server, Hz.
    """
    draw = np.random.default_rng(seed)
    places = draw.uniform(0.0, SIDE_M, (users, 2))
    server_places = draw.uniform(0.0, SIDE_M, (servers, 2))
    faded = np.maximum(draw.exponential(1.0, (users, servers)), LEAST_FADING)
    tokens = draw.choice(TOKENS, users)
    samples = draw.integers(LEAST_SAMPLES, MOST_SAMPLES + 1, users)
    clock = draw.uniform(0.5e9, 1.5e9, users)
    distance = np.linalg.norm(places[:, None, :] - server_places[None, :, :], axis=-1)
    each, station = np.ones(users), np.ones(servers)
    network = Network(
        gain=(path_gain(distance) * faded).T,
        max_power=each * dbm_to_watt(MAX_POWER_DBM),
        max_clock=clock,
        flops_per_cycle=each * FLOPS_PER_CYCLE,
        kappa=each * KAPPA,
        static_power=0.0 * each,
        memory=np.inf * each,
        energy_weight=each,
        noise=dbm_to_watt(NOISE_DBM),
        bandwidth=station * bandwidth,
        server_clock=station * SERVER_CLOCK,
        server_flops_per_cycle=station * server_flops_per_cycle,
        server_kappa=station * SERVER_KAPPA,
        names=tuple(f"user-{index}" for index in range(users)),
        positions=places,
        server_positions=server_places,
    )
    return Edge(network=network, tokens=tokens, samples=samples)
