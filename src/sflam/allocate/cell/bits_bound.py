"""The certificate of Algorithm Q: a lower bound on (2.16) over all bits and all shares (2.18).

For any prices eta of noise and mu of bandwidth,

    D(eta) = min over T { lam T + sum_k min_q [D_k(T, mu, q) + eta chi_k v(q)] - mu B }

bounds J from below by D(eta) - eta nu, and so the total by the least of (1 + nu) max_j (D(eta_j) - eta_j nu) over nu.
The minimum over T is bounded interval by interval: every D_k is convex in T, so that it lies above its tangents at both
ends; the least of one tangent per width is concave, and a concave function is least at an end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.optimal import Market, Solution
from sflam.allocate.cell.problem import Problem
from sflam.cost.convergence import quantization_noise
from sflam.network.network import Floats

Bits = NDArray[np.int64]
Table = Callable[[Problem, Floats, float, Bits], tuple[Floats, Floats]]
FAR = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 1.4, 2.0, 3.0, 6.0, 20.0, 100.0)
PRICES = np.array(sorted((*FAR, *np.exp(np.linspace(-0.2, 0.2, 9)))))  # of noise, relative to the incumbent's
FIRST = 24  # intervals to start with
BUDGET = 160  # more intervals at most
TOGETHER = 50_000  # answers of devices to prices that are asked for at once
ENOUGH = 2e-6  # relative width of the bound over T below which intervals are not split


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
    dual = Intervals(problem, table, solution.price, prices, noise)
    best = dual.least(lowest * (1 - 1e-12), max(highest, lowest), solution.time) + problem.constant
    return least_total(best, prices, float(noise[-1].sum()), float(noise[0].sum()))


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


class Intervals:
    """Lower bounds of the dual over intervals of T, for several prices of noise at once."""

    def __init__(self, problem: Problem, table: Table, price: float, prices: Floats, noise: Floats) -> None:
        self.problem = problem
        self.table = table
        self.price = price
        self.noise = prices[:, None, None] * noise  # [J, Q, K]
        self._known: dict[float, tuple[Floats, Floats]] = {}

    def least(self, low: float, high: float, near: float) -> Floats:
        """Return [J] bounds of the dual over T in [low, high]; most intervals are around ``near``."""
        shape = np.linspace(-1, 1, FIRST // 2 + 1)[1:-1]
        points = np.unique(
            np.clip(np.r_[near * np.exp(0.5 * shape**3), np.geomspace(low, high, FIRST // 2)], low, high)
        )
        points = np.unique(np.r_[low, points, high])
        ends = list(itertools.pairwise(points.tolist())) or [(low, high)]
        self._look(points)
        found = [self.between(*interval) for interval in ends]
        left = BUDGET
        while True:
            bounds = np.array([each[0] for each in found])  # [I, J]
            values = np.array([each[1] for each in found]).min(axis=0)  # the dual itself, at left ends
            least = bounds.min(axis=0)
            slack = (values - least) / np.maximum(np.abs(values), 1e-300)
            # each price's lowest interval, those of the loosest prices first
            loose = [j for j in np.argsort(-slack) if slack[j] > ENOUGH]
            split = list(dict.fromkeys(int(np.argmin(bounds[:, j])) for j in loose))[:left]
            if not split:
                break
            left -= len(split)
            middles = [float(np.sqrt(ends[index][0] * ends[index][1])) for index in split]
            self._look(np.array(middles))
            for index, middle in zip(split, middles, strict=True):
                first, last = ends[index]
                ends[index], found[index] = (first, middle), self.between(first, middle)
                ends.append((middle, last))
                found.append(self.between(middle, last))
        least = np.array([each[0] for each in found]).min(axis=0)
        return np.asarray(least)

    def between(self, left: float, right: float) -> tuple[Floats, Floats]:
        """Return the bound [J] over an interval, and the dual [J] at its left end (inf where not finite)."""
        lam, length = self.problem.time_weight, right - left
        costs, slopes = self._known[left]
        costs_right, slopes_right = self._known[right]
        # of the tangents at both ends the one that is higher in the middle; a width that is impossible at the left
        # end has one at the right end alone
        falling = np.where(np.isfinite(costs), slopes, 0.0) * length
        rising = np.where(np.isfinite(costs_right), slopes_right, 0.0) * length
        later = ~np.isfinite(costs) | (
            costs_right + rising / 2 > np.where(np.isfinite(costs), costs, 0.0) - falling / 2
        )
        at_left = np.where(later, costs_right + rising, costs)
        at_right = np.where(later, costs_right, costs - falling)
        spent = self.price * self.problem.cell.bandwidth
        first = lam * left + (at_left + self.noise).min(axis=1).sum(axis=1) - spent
        last = lam * right + (at_right + self.noise).min(axis=1).sum(axis=1) - spent
        value = lam * left + (costs + self.noise).min(axis=1).sum(axis=1) - spent
        return np.minimum(first, last), value

    def _look(self, times: Floats) -> None:
        """Ask for the table at times [I], as many at once as memory should hold."""
        widths = np.array(self.problem.widths)
        together = max(1, TOGETHER // (len(widths) * len(self.problem)))
        for some in np.split(times, range(together, len(times), together)):
            costs, slopes = self.table(self.problem, some, self.price, widths)
            self._known |= {time: (costs[i], slopes[i]) for i, time in enumerate(some.tolist())}
