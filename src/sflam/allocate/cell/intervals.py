"""A lower bound over round times T of a dual that is no convex function of T: choices are made at every T anew.

For a given choice every D_k is convex in T, so that it lies above its tangents at both ends of an interval; the least
of one tangent per choice is concave, and a concave function is least at an end. Intervals are split where the bound is
loosest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import Floats

Ask = Callable[[Floats], tuple[Floats, Floats]]
FIRST = 24  # intervals to start with
BUDGET = 160  # more intervals at most
MOST = 5_000_000  # numbers that are held at once
ENOUGH = 2e-6  # relative width of the bound over T below which intervals are not split


class Intervals:
    """Lower bounds, over intervals of T, of  lam T + sum_k min_q [D_k(T, q) + a_jk(q)] - spent  for several a at once.

    Args:
        ask: gives D_k and -dD_k/dT, [I, Q, K] each, at times [I]; inf and 0 where T is too short for a choice.
        lam: 1/s.
        spent: what does not hang on T or the choices.
        added: [J, Q, K] a, the price of the choices themselves.
        earliest: [Q, K] s before which a choice is not possible.
    """

    def __init__(self, ask: Ask, lam: float, spent: float, added: Floats, earliest: Floats) -> None:
        self.ask, self.lam, self.spent, self.added, self.earliest = ask, lam, spent, added, earliest
        self._known: dict[float, tuple[Floats, Floats]] = {}
        self._ends: list[tuple[float, float]] = []

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
            with np.errstate(
                invalid="ignore"
            ):  # no left end at which all is possible: nothing to compare with
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
        self._ends = ends
        least = np.array([each[0] for each in found]).min(axis=0)
        return np.asarray(least)

    def alternatives(self) -> Floats:
        """Return [Q, K] bounds where one device's choice is given, after :meth:`least`; of the first a alone."""
        least = np.full(self.added.shape[1:], np.inf)
        for left, right in self._ends:
            at_left, at_right = self._tangents(left, right)
            for time, each in ((left, at_left), (right, at_right)):
                costs = each + self.added[0]
                others = costs.min(axis=0)
                with np.errstate(invalid="ignore"):  # inf - inf where a device has no choice at all
                    bounds = self.lam * time + (others.sum() - others) + costs - self.spent
                bounds = np.where(np.isnan(bounds), np.inf, bounds)
                if time == left:
                    first = bounds
            least = np.minimum(least, np.minimum(first, bounds))
        return least

    def of(self, choices: NDArray[np.int64]) -> Floats:
        """Return [C] bounds for whole choices [C, K], after :meth:`least`; of the first a alone."""
        times = np.array(sorted({time for ends in self._ends for time in ends}))
        costs = np.stack([self._known[time][0] for time in times.tolist()]) + self.added[0]
        falls = np.stack([self._known[time][1] for time in times.tolist()])
        every = np.arange(choices.shape[1])
        found = []
        for some in np.array_split(choices, 1 + choices.size * len(times) // MOST):
            values = self.lam * times[:, None] + costs[:, some, every].sum(axis=2) - self.spent
            slopes = self.lam - falls[:, some, every].sum(axis=2)
            least = least_convex(times, values, slopes, to_last=True)
            unknown = ~np.isfinite(values)
            for place in np.flatnonzero((unknown[:-1] & unknown[1:]).any(axis=1)).tolist():
                between = unknown[place] & unknown[place + 1]
                between &= self.earliest[some, every].max(axis=1) < times[place + 1]
                nothing = self.lam * times[place] + self.added[0][some, every].sum(axis=1) - self.spent
                least = np.where(between, np.minimum(least, nothing), least)
            found.append(least)
        return np.concatenate(found)

    def between(self, left: float, right: float) -> tuple[Floats, Floats]:
        """Return the bound [J] over an interval, and the dual [J] at its left end (inf where not finite)."""
        at_left, at_right = self._tangents(left, right)
        costs, _ = self._known[left]
        first = self.lam * left + (at_left + self.added).min(axis=1).sum(axis=1) - self.spent
        last = self.lam * right + (at_right + self.added).min(axis=1).sum(axis=1) - self.spent
        value = self.lam * left + (costs + self.added).min(axis=1).sum(axis=1) - self.spent
        return np.minimum(first, last), value

    def _tangents(self, left: float, right: float) -> tuple[Floats, Floats]:
        """Return what lies below D_k, [Q, K] at both ends of an interval, and is linear between them."""
        length = right - left
        costs, slopes = self._known[left]
        costs_right, slopes_right = self._known[right]
        # of the tangents at both ends the one that is higher in the middle; a choice that is impossible at one end
        # (too soon, or waiting uses up a cap) has the other's alone; at both, it may still be possible between them,
        # where it costs no less than nothing
        within = ~np.isfinite(costs) & ~np.isfinite(costs_right) & (self.earliest < right)
        falling = np.where(np.isfinite(costs), slopes, 0.0) * length
        rising = np.where(np.isfinite(costs_right), slopes_right, 0.0) * length
        later = ~np.isfinite(costs) | (
            np.isfinite(costs_right)
            & (costs_right + rising / 2 > np.where(np.isfinite(costs), costs, 0.0) - falling / 2)
        )
        at_left = np.where(later, costs_right + rising, costs)
        at_right = np.where(later, costs_right, costs - falling)
        return np.where(within, 0.0, at_left), np.where(within, 0.0, at_right)

    def _look(self, times: Floats) -> None:
        """Ask for the table at times [I]."""
        costs, slopes = self.ask(times)
        self._known |= {time: (costs[i], slopes[i]) for i, time in enumerate(times.tolist())}


def least_convex(times: Floats, values: Floats, slopes: Floats, *, to_last: bool = False) -> Floats:
    """Return a lower bound [...] over T > 0 of convex functions known at ``times`` [I] by value and slope [I, ...].

    With ``to_last`` no T beyond the last is looked at.
    """
    known = np.isfinite(values)
    values, slopes = np.where(known, values, 0.0), np.where(known, slopes, 0.0)
    least = np.full(values.shape[1:], np.inf)
    for place in range(len(times) - 1):
        left, right = times[place], times[place + 1]
        a, b, da, db = values[place], values[place + 1], slopes[place], slopes[place + 1]
        both, right_only = known[place] & known[place + 1], ~known[place] & known[place + 1]
        left_only = known[place] & ~known[place + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(db > da, (a - b + db * (right - left)) / (db - da), 0.0)
        exchange = a + da * np.clip(step, 0.0, right - left)
        inside = np.where(da >= 0, a, np.where(db <= 0, b, exchange))
        alone = b - np.maximum(db, 0.0) * right  # its tangent, down to T = 0
        ahead = a + np.minimum(da, 0.0) * (right - left)  # that of the left end
        least = np.where(both, np.minimum(least, inside), least)
        least = np.where(right_only, np.minimum(least, alone), least)
        least = np.where(left_only, np.minimum(least, ahead), least)
    # Below the first point F lies above that point's tangent; above the last one it must be rising.
    first = np.where(known[0], values[0] - np.maximum(slopes[0], 0.0) * times[0], np.inf)
    open_end = ~known[-1] | (slopes[-1] < 0) if not to_last else np.zeros(known.shape[1:], bool)
    return np.asarray(np.where(open_end, -np.inf, np.minimum(least, first)))
