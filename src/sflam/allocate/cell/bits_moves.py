"""Bounds, at a plan's own prices, on the total after changing a single width: only promising changes are solved.

At the incumbent's price mu of bandwidth, J*(q) >= min over T of F(T) = lam T + sum_k D_k(T, mu, q_k) - mu B, for all
bits (weak duality). F is convex in T: between two points it lies above its tangents at both. K devices, I points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.bits_bound import Table
from sflam.allocate.cell.intervals import least_convex
from sflam.allocate.cell.market import Solution
from sflam.allocate.cell.problem import Problem
from sflam.cost.convergence import quantization_noise

POINTS = np.exp(
    [-0.5, -0.2, -0.08, -0.03, -0.01, 0.0, 0.01, 0.03, 0.08, 0.2, 0.5]
)  # of T, over the incumbent's
CHANGES = (-1, 1)


def hopeful(
    problem: Problem, table: Table, bits: NDArray[np.int64], best: float, solution: Solution
) -> NDArray[np.bool_]:
    """Return [2, K], whether one bit less, or more, at a device can have a total (2.16) below ``best``.

    Args:
        problem: what is solved.
        table: gives D_k and -dD_k/dT, [I, Q, K] each, at times [I] and a price.
        bits: [K], the incumbent's.
        best: its total.
        solution: its solution.
    """
    lam, price, every = problem.time_weight, solution.price, np.arange(len(bits))
    low, high = problem.widths[0], problem.widths[-1]
    widths = np.arange(max(low, int(bits.min()) - 1), min(high, int(bits.max()) + 1) + 1)
    moved = np.stack([bits + change for change in CHANGES])
    allowed = np.isin(moved, problem.widths) & (moved >= problem.each("bits_floor"))
    rows = np.clip(moved, widths[0], widths[-1]) - widths[0]  # [2, K]
    now = bits - widths[0]
    times = solution.time * POINTS
    costs, falls = table(problem, times, price, widths)  # [I, Q, K]
    cost, fall = costs[:, None, now, every], falls[:, None, now, every]  # [I, 1, K]
    spent = (lam * times - price * problem.cell.bandwidth)[:, None, None]
    with np.errstate(invalid="ignore"):  # inf - inf where a device is too slow: not a number
        values = spent + cost.sum(axis=2, keepdims=True) - cost + costs[:, rows, every]  # of F, [I, 2, K]
    slopes = lam - (fall.sum(axis=2, keepdims=True) - fall) - falls[:, rows, every]
    noise = np.stack([quantization_noise(each) for each in np.clip(moved, low, high)])
    change = problem.each("sensitivity") * (noise - quantization_noise(bits))
    totals = (problem.rounds_at(bits) + change) * (least_convex(times, values, slopes) + problem.constant)
    return allowed & ~(totals >= best)
