"""Problems for tests: the reference cell, and random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from sflam.allocate.cell.problem import Problem
from sflam.cost.reference import ref_a_workload
from sflam.network.reference import ref_a

WORK = ref_a_workload()


def reference(devices: int = 20, seed: int = 0, *, fixed: bool = False, **changes: Any) -> Problem:
    """Return the reference cell; with ``fixed``, at full speed and computing energy outside the objective."""
    return Problem(network=ref_a(devices, seed), workload=WORK, choose_clocks=not fixed, **changes)


def with_sensitivity(devices: int, seed: int = 0, **changes: Any) -> Problem:
    """Return the reference cell at full speed with the sensitivities of the acceptance values."""
    draw = np.random.default_rng(1000 + seed).standard_normal(devices)
    return reference(devices, seed, fixed=True, sensitivity=20 / devices * np.exp(draw), **changes)


def random_problem(seed: int, *, most: int = 30, fixed: bool | None = None) -> Problem:
    """Return a problem drawn over orders of magnitude: size, band, distances, weights, cuts, bits, delays."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, most + 1))
    near_zero = float(np.exp(draw.uniform(np.log(1e-4), np.log(0.5))))
    network = ref_a(
        count,
        int(draw.integers(1e6)),
        bandwidth=float(np.exp(draw.uniform(np.log(1e5), np.log(1e8)))),
        radius=float(draw.uniform(60, 1200)),
    )
    network = replace(
        network,
        energy_weight=draw.uniform(0, 3, count) * (draw.random(count) > 0.1),
        static_power=draw.uniform(0, 1, count) * (draw.random() < 0.5),
    )
    return Problem(
        network=network,
        workload=WORK,
        latency_weight=near_zero if draw.random() < 0.5 else 1 - near_zero,
        cut=draw.integers(0, 5, count),
        bits=draw.integers(2, 17, count),
        delay=draw.uniform(0, 1, count),
        choose_clocks=bool(draw.random() < 0.7) if fixed is None else not fixed,
    )


def capped(problem: Problem, plan: Any, seed: int) -> Problem:
    """Return the problem with energy caps around what a plan spends, on about half the devices each, and a deadline."""
    draw = np.random.default_rng(seed)
    devices, count = plan.devices, len(problem)

    def around(spent: Any) -> Any:
        return np.where(draw.random(count) < 0.5, np.inf, spent * draw.uniform(0.85, 1.5, count))

    return problem.change(
        radio_cap=around(devices.transmit_j),
        compute_cap=around(devices.compute_j),
        energy_cap=around(devices.transmit_j + devices.compute_j),
        deadline=plan.latency * draw.uniform(0.95, 1.5) if draw.random() < 0.5 else np.inf,
    )


SEEDS = st.integers(0, 2**32 - 1)
RIVALS: dict[str, dict[str, int]] = {
    "equal": {},
    "equal-bandwidth": {},
    "bcd": {},
    "random": {"seed": 1},
    "bcd-matching": {"count": 40},
    "subchannels": {"count": 40},
}
"""Methods that no plan of the optimum is worse than, with their options."""
