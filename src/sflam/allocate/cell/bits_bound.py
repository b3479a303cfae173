"""The certificate of Algorithm Q: a lower bound on (2.16) over all bits and all shares (2.18).

For any prices eta of noise and mu of bandwidth,

    D(eta) = min over T { lam T + sum_k min_q [D_k(T, mu, q) + eta chi_k v(q)] - mu B }

bounds J from below by D(eta) - eta nu, and so the total by the least of (1 + nu) max_j (D(eta_j) - eta_j nu) over nu.
The minimum over T is bounded interval by interval (:mod:`sflam.allocate.cell.intervals`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.intervals import Intervals
from sflam.allocate.cell.market import Market, Solution
from sflam.allocate.cell.problem import Problem
from sflam.cost.convergence import quantization_noise
from sflam.network.network import Floats

Bits = NDArray[np.int64]
Table = Callable[[Problem, Floats, float, Bits], tuple[Floats, Floats]]
FAR = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.4, 2.0, 3.0, 6.0, 20.0, 100.0)
TOGETHER = 50_000  # answers of devices to prices that are asked for at once
PRICES = np.array(sorted((*FAR, *np.exp(np.linspace(-0.2, 0.2, 9)))))  # of noise, relative to the incumbent's


def bound(problem: Problem, table: Table, total: float, solution: Solution) -> float:
    """Return the lower bound (2.18).

    Args:
        problem: what was solved, at its lowest width.
        table: gives D_k and -dD_k/dT, [I, Q, K] each, at times [I] and a price.
        total: the best total known.
        solution: its solution.
    """
    widths = np.array(problem.widths)
    sensitivity = problem.each("sensitivity").astype(float)
    noise = quantization_noise(widths)[:, None] * sensitivity
    lam = problem.time_weight
    lowest = Market(problem.cell).shortest()
    highest = min(problem.cell.deadline, (total / lam - problem.base_s) if lam > 0 else np.inf)
    rounds = total / (solution.objective + problem.constant)
    prices = PRICES * (solution.objective + problem.constant) / rounds
    together = max(1, TOGETHER // (len(widths) * len(problem)))

    def ask(times: Floats) -> tuple[Floats, Floats]:
        some = np.split(times, range(together, len(times), together))
        found = [table(problem, each, solution.price, widths) for each in some]
        costs, slopes = (np.concatenate(each) for each in zip(*found, strict=True))
        return costs, slopes

    spent = solution.price * problem.cell.bandwidth
    earliest = problem.cell.busy + problem.cell.soonest(problem.payload_at(widths))
    below = widths[:, None] < problem.each("bits_floor")
    earliest = np.where(below, np.inf, earliest)
    dual = Intervals(ask, lam, spent, prices[:, None, None] * noise, earliest)
    best = dual.least(lowest * (1 - 1e-12), max(highest, lowest), solution.time) + problem.constant
    return least_total(
        best, prices, float(noise[-1].sum()), float(np.where(below, 0.0, noise).max(axis=0).sum())
    )


def least_total(values: Floats, prices: Floats, low: float, high: float) -> float:
    """Return the least of (1 + nu) max_j (D_j - eta_j nu) over nu in [low, high]: at an end or where two lines cross.

    Args:
        values: [J] D_j.
        prices: [J] eta_j, different from each other.
        low: least nu.
        high: largest nu.
    """
    i, j = np.triu_indices(len(prices), 1)
    exchanges = (values[i] - values[j]) / (prices[i] - prices[j])
    nus = np.concatenate([[low, high], exchanges[(exchanges > low) & (exchanges < high)]])
    lines = values[:, None] - prices[:, None] * nus
    return float(((1 + nus) * lines.max(axis=0)).min())
