"""The reference cell: devices around a base station that fine-tune a ViT-B/16, the same on every machine."""

from __future__ import annotations

import numpy as np

from sflam.network.network import Floats, Network
from sflam.units import dbm_to_watt
from sflam.workload import Workload, transformer_workload

NOISE_DBM = -174.0  # of one Hz
NEAREST_M, FURTHEST_M = 10.0, 250.0
LEAST_FADING = 1e-3
MAX_POWER_DBM = 23.0
FLOPS_PER_CYCLE = 512.0
KAPPA = 1e-28


def path_gain(distance: Floats) -> Floats:
    """Return the power gain at distances in m: 128.1 + 37.6 log10(km) dB of loss, at least 10 m away."""
    loss = 128.1 + 37.6 * np.log10(np.maximum(distance, NEAREST_M) / 1e3)
    gain: Floats = 10.0 ** (-loss / 10.0)
    return gain


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


def ref_a_workload(batch: int = 16, *, outputs: int = 1000) -> Workload:
    """Return ViT-B/16 at 224 pixels with LoRA of rank 8 on queries and values."""
    return transformer_workload(
        "vit-b16",
        hidden=768,
        tokens=197,
        blocks=12,
        mlp=3072,
        heads=12,
        batch=batch,
        outputs=outputs,
        embed_flops=2.0 * 768 * 768 * 196,
        embed_weights=742_656,
        rank=8,
        sites=("q", "v"),
    )
