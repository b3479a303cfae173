"""Lower bounds over all cuts (2.6), by weak duality, and what any one device's cut can be in a better plan.

At prices mu of bandwidth and delta of the deadline D, a plan with the cuts y costs at least

    min over T { (lam + delta) T + sum_k [D_k(T, mu, y_k) + (lam + delta) s_k(y_k) + (1 - lam) j_k(y_k)] }
    - mu B - delta D

and the least over y is the sum of each device's own, bounded over T interval by interval.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from sflam.allocate.cell.cut_options import CutOptions, Cuts
from sflam.allocate.cell.intervals import Intervals
from sflam.allocate.cell.market import Solution
from sflam.network.network import Floats

PRICES = np.exp([0.0, -0.15, 0.15, -0.05, 0.05, -0.4, 0.4])  # of bandwidth, over the incumbent's
TIGHT = (0.8, 1.25)  # of the deadline, likewise
LESS = 1e-12  # relative: what is not smaller by more is no improvement


def turns(options: CutOptions, solution: Solution) -> tuple[Floats, float]:
    """Return [Y, K] what the server's turns, and receiving, cost at a solution's prices, and delta, the deadline's."""
    problem, worth = options.problem, 0.0
    if np.isfinite(problem.deadline):
        worth = max(0.0, float(solution.answer.time_price.sum()) - problem.time_weight)
    joules = (1 - problem.latency_weight) * (options.joules + options.heard)
    return (problem.time_weight + worth) * options.seconds + joules, worth


class CutBounds:
    """Bounds at the prices of the best plan known.

    Attributes:
        lower: no plan has a smaller objective.
        may: [Y, K] whether a plan with such a cut can be better than the best, or the best's own.

    Args:
        options: what is chosen from.
        total: the best objective known.
        rows: [K] its cuts, as rows of the options.
        solution: its solution, whose prices are taken.
        close: whether other prices of bandwidth are tried, too.
    """

    def __init__(
        self, options: CutOptions, total: float, rows: Cuts, solution: Solution, *, close: bool
    ) -> None:
        problem, lam = options.problem, options.problem.time_weight
        turn, worth = turns(options, solution)
        longest = problem.deadline - problem.base_s - options.shortest_turn
        if lam > 0:
            longest = min(longest, total / (problem.rounds * lam) - problem.base_s - options.shortest_turn)
        low = min(float(options.alone.min(axis=0).max()) * (1 + 1e-9), longest)
        near = min(max(solution.time, low), longest)
        scales = [(scale, 1.0) for scale in PRICES[: None if close else 1]]
        scales += [(1.0, tight) for tight in TIGHT if worth]
        self.lower, self.may = -np.inf, options.allowed.copy()
        self._rounds, self._duals = problem.rounds, list[tuple[Intervals, float]]()
        for price, (scale, tight) in itertools.product({solution.price, solution.balanced[0]}, scales):
            mu, delta = float(price * scale), worth * tight
            added = np.where(options.allowed, turn + (delta - worth) * options.seconds, np.inf)[None]
            spent = mu * float(problem.network.shared_band[problem.server])
            dual = Intervals(partial(options.costs, price=mu), lam + delta, spent, added, options.alone)
            fixed = options.constant - (delta * (problem.deadline - problem.base_s) if delta else 0.0)
            self.lower = max(self.lower, self._rounds * (float(dual.least(low, longest, near)[0]) + fixed))
            self.may &= self._rounds * (dual.alternatives() + fixed) < total * (1 - LESS)
            self._duals.append((dual, fixed))
        self.may[rows, np.arange(len(rows))] = True

    @property
    def combinations(self) -> float:
        """How many combinations of cuts may be better than the best, at most."""
        return float(np.exp(np.log(self.may.sum(axis=0)).sum()))

    def of(self, rows: Cuts) -> Floats:
        """Return [C] bounds of the objective at whole combinations [C, K]."""
        each = [self._rounds * (dual.of(rows) + fixed) for dual, fixed in self._duals]
        return np.asarray(np.max(each, axis=0))
