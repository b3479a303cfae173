"""Bits up and down for every device, weighing rounds against their cost: Algorithm Q over pairs of widths.

    min over q, d   (1 + sum_k [chi_k v(q_k) + chi'_k v(d_k)]) J*(q, d)

At given bits down the problem is (2.16): they change the time c_k that the way down takes, and the joules of receiving,
which are constants of a device. So at prices (T, mu, eta) a device chooses the pair with the least D_k + eta noise, D_k
at its own c_k, and all of (2.17) and (2.18) holds with pairs in place of widths. In small fleets every pair of a single
device that may be better, by its bound, is then solved; where there are few combinations, all that may be better are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from sflam.allocate.cell.bit_pairs import BitPairs, Place, Rows
from sflam.allocate.cell.bits import CERTIFIED, POLISHED, ROUNDS, SETTLED, representatives
from sflam.allocate.cell.bits_bound import PRICES, TOGETHER, least_total
from sflam.allocate.cell.bits_moves import POINTS as NEAR
from sflam.allocate.cell.intervals import Intervals, least_convex
from sflam.allocate.cell.market import Market, Solution
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shadow_prices import shadow_prices
from sflam.allocate.cell.waiting import best_of
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.network.network import Floats

POINTS = np.r_[NEAR, 2.5, 5.0, 20.0]  # of T, over the incumbent's
LESS = 1e-12  # relative fall of the total that is one
ENUMERATED = 20_000  # combinations up to which each has a bound of its own
PRICES_AROUND = (0.25, 0.5, 0.75, 1.0, 1.35, 2.0, 4.0)  # of bandwidth, over the incumbent's
SOLVED = 200  # of combinations, or of single moves, at most
TABLE = 500_000  # answers of devices that are held at once
CERTIFIED_PAIRS = 15 * CERTIFIED  # devices times pairs up to which the bound is computed by default


class PairSearch:
    """Exact solutions at given pairs, each once, and each started from the last one's prices."""

    def __init__(self, pairs: BitPairs) -> None:
        self.pairs = pairs
        self.solved: dict[bytes, tuple[float, Solution | None]] = {}
        self.last: Solution | None = None
        self.best: tuple[float, Rows, Solution | None] = (np.inf, np.empty(0, np.int64), None)
        self.totals: list[float] = []

    def __call__(self, rows: Rows) -> tuple[float, Solution | None]:
        """Return the total at the pairs in ``rows`` [K] and its solution; inf and None where no plan can be."""
        key = rows.tobytes()
        if key not in self.solved:
            self.solved[key] = found = self._solve(rows)
            if found[0] < self.best[0] * (1 - LESS):
                self.best = found[0], rows.copy(), found[1]
                self.totals.append(found[0])
        return self.solved[key]

    @property
    def known(self) -> tuple[float, Rows, Solution]:
        """The best total, its pairs, and its solution."""
        total, rows, solution = self.best
        assert solution is not None
        return total, rows, solution

    def _solve(self, rows: Rows) -> tuple[float, Solution | None]:
        try:
            problem = self.pairs.at(rows)
            cell = problem.cell
            self.last = (Market(cell, self.last.price, self.last.time) if self.last else Market(cell)).solve()
        except Impossible:
            return np.inf, None
        return problem.total(self.last.objective), self.last


@planned("bits")
def solve(problem: Problem, place: Place, *, certify: bool | None = None) -> Found:
    """Return the plan with bits up and down chosen.

    Args:
        problem: its ``bits`` and ``bits_down`` are not used.
        place: gives a problem at its bits down the delays and the receiving that these take.
        certify: whether to compute the lower bound; by default where devices times pairs are ``CERTIFIED_PAIRS`` or
            fewer.
    """
    if not problem.waits:
        return _chosen(problem, place, certify)
    chains = _chosen(problem.change(lockstep=None), place, certify)
    assert isinstance(chains.problem, Problem)
    up, down = chains.problem.each("bits"), chains.problem.each("bits_down")
    return best_of([place(problem.change(bits=up, bits_down=down))], chains, "bits")


def _chosen(problem: Problem, place: Place, certify: bool | None) -> Found:
    """Return bits up and down for chains."""
    pairs = BitPairs(problem, place)
    search = PairSearch(pairs)
    few = BitPairs(representatives(problem), place)
    first = search if few.problem is problem else PairSearch(few)
    _common(few, first)
    _descend(few, first)
    if first is not search:
        _spread(pairs, search, first)
        _descend(pairs, search)
    if len(problem) <= POLISHED:
        _move(pairs, search)
    small = len(problem) * len(pairs.up) <= CERTIFIED_PAIRS
    lower = -np.inf
    if certify or (certify is None and small):
        lower = _bound(pairs, search)
        if len(pairs.up) ** len(problem) <= ENUMERATED:
            lower = max(lower, _enumerate(pairs, search))
    total, rows, solution = search.known
    chosen = pairs.at(rows)
    advice = () if lower > -np.inf else ("the bits are not certified: only resources are optimal for them",)
    return Found(
        problem=chosen,
        shares=solution.shares(chosen.cell),
        lower_bound=min(lower, total),
        advice=advice,
        history=tuple(search.totals),
        shadow_prices=shadow_prices(chosen, solution.time, *solution.balanced),
    )


def _common(pairs: BitPairs, search: PairSearch) -> None:
    """Look for the best pair that all devices share, one direction after the other.

    Raises:
        Impossible: none holds the limits.
    """
    places = range(len(pairs.widths))
    up = down = 0
    while True:
        before = search.best[0]
        up = _best_of(pairs, search, [pairs.common(place, down) for place in places])
        if search.best[2] is None:
            Market(pairs.lowest.cell).solve()  # raises Impossible with the reason
            raise Impossible("no common width holds the limits")
        down = _best_of(pairs, search, [pairs.common(up, place) for place in places])
        if not search.best[0] < before * (1 - LESS):
            return


def _best_of(pairs: BitPairs, search: PairSearch, ascending: Sequence[Rows]) -> int:
    """Return the place of the best of some pairs whose cost J* never falls.

    The search ends once J* at the least noise exceeds the best.
    """
    least, found = 1 + float(np.where(pairs.below, np.inf, pairs.noise).min(axis=0).sum()), []
    for rows in ascending:
        total, solution = search(rows)
        found.append(total)
        if solution is None or least * (solution.objective + pairs.at(rows).constant) > search.best[0]:
            break
    return int(np.argmin(found))


def _prices(pairs: BitPairs, rows: Rows, solution: Solution) -> tuple[float, float, float]:
    """Return round time, price of bandwidth, and price of noise eta = J / (1 + nu)."""
    problem = pairs.at(rows)
    return solution.time, solution.price, (solution.objective + problem.constant) / problem.rounds


def _choose(pairs: BitPairs, rows: Rows, prices: tuple[float, float, float]) -> Rows:
    """Return each device's best pair at prices: of all, or in large fleets of one direction after the other."""
    time, price, eta = prices
    every, side = np.arange(len(rows)), len(pairs.widths)
    if len(rows) * len(pairs.up) <= TABLE:
        worth = pairs.costs(np.array([time]), price)[0][0] + eta * pairs.noise
        return np.asarray(worth.argmin(axis=0))
    for up in (True, False, True):
        along = np.arange(side)[:, None]
        options = along * side + rows % side if up else rows - rows % side + along  # [Q, K]
        worth = np.stack(
            [pairs.of(each, every, np.full(len(rows), time), price)[0] for each in options]
        ) + eta * np.take_along_axis(pairs.noise, options, axis=0)
        rows = options[worth.argmin(axis=0), every]
    return rows


def _descend(pairs: BitPairs, search: PairSearch) -> None:
    """Repeat prices -> pairs -> prices until nothing is gained."""
    for _ in range(ROUNDS):
        total, rows, solution = search.known
        search(_choose(pairs, rows, _prices(pairs, rows, solution)))
        if not search.best[0] < total * (1 - SETTLED):
            return


def _spread(pairs: BitPairs, search: PairSearch, few: PairSearch) -> None:
    """Begin with what devices of the whole fleet choose at the prices of a few that represent them.

    Raises:
        Impossible: no pair that all share holds the limits.
    """
    _, rows, solution = few.known
    time, price, eta = _prices(few.pairs, rows, solution)
    price *= len(few.pairs.problem) / len(pairs.problem)  # fewer hertz, each worth as much more
    most = divmod(int(np.bincount(rows).argmax()), len(pairs.widths))
    search(_choose(pairs, pairs.common(*most), (time, price, eta)))
    if search.best[2] is None:
        _common(pairs, search)


def _move(pairs: BitPairs, search: PairSearch) -> None:
    """Give single devices other pairs, those that may be better, most promising first, until nothing improves."""
    left, every = SOLVED, np.arange(len(pairs.problem))
    improved = True
    while improved and left > 0:
        improved = False
        best, rows, solution = search.known
        times, values, slopes = _around(pairs, solution)
        spent = (pairs.problem.time_weight * times - solution.price * pairs.lowest.cell.bandwidth)[
            :, None, None
        ]
        cost, fall = values[:, rows, every][:, None], slopes[:, rows, every][:, None]  # [I, 1, K]
        with np.errstate(invalid="ignore"):  # inf - inf where a device is too slow: not a number
            value = spent + cost.sum(axis=2, keepdims=True) - cost + values
        slope = pairs.problem.time_weight - (fall.sum(axis=2, keepdims=True) - fall) - slopes
        noise = 1 + pairs.noise[rows, every].sum() + pairs.noise - pairs.noise[rows, every]
        totals = noise * (least_convex(times, value, slope) + pairs.constant)  # [O, K]
        totals[rows, every] = totals[np.isinf(pairs.earliest)] = np.inf
        may = np.argwhere(~(totals >= best * (1 - LESS)))
        may = may[np.argsort(totals[may[:, 0], may[:, 1]], kind="stable")]
        for row, device in may[:left]:
            left -= 1
            tried = rows.copy()
            tried[device] = row
            search(tried)
            if search.best[0] < best:
                improved = True
                break


def _of(pairs: BitPairs, combinations: Rows, solution: Solution, price: float) -> Floats:
    """Return a lower bound on the total of each of ``combinations`` [C, K], by weak duality at a price of bandwidth."""
    every, lam = np.arange(len(pairs.problem)), pairs.problem.time_weight
    times = solution.time * POINTS
    costs, falls = pairs.costs(times, price)
    found = []
    for some in np.array_split(combinations, 1 + combinations.size * len(times) // TABLE):
        values = costs[:, some, every].sum(axis=2)
        values += (lam * times - price * pairs.lowest.cell.bandwidth)[:, None]
        slopes = lam - falls[:, some, every].sum(axis=2)
        rounds = 1 + pairs.noise[some, every].sum(axis=1)
        found.append(rounds * (least_convex(times, values, slopes) + pairs.constant))
    return np.concatenate(found)


def _around(pairs: BitPairs, solution: Solution) -> tuple[Floats, Floats, Floats]:
    """Return times [I] around a solution's, and every D_k and -dD_k/dT [I, O, K] there at its price."""
    times = solution.time * POINTS
    return times, *pairs.costs(times, solution.price)


def _bound(pairs: BitPairs, search: PairSearch) -> float:
    """Return the lower bound (2.18) with pairs in place of widths."""
    total, _, solution = search.known
    problem, lam = pairs.problem, pairs.problem.time_weight
    lowest = pairs.lowest.cell
    shortest = Market(lowest).shortest()
    highest = min(lowest.deadline, (total / lam - problem.base_s) if lam > 0 else np.inf)
    eta = _prices(pairs, search.known[1], solution)[2]
    prices = PRICES * eta
    together = max(1, TOGETHER // (len(pairs.up) * len(problem)))

    def ask(times: Floats) -> tuple[Floats, Floats]:
        some = np.split(times, range(together, len(times), together))
        costs, slopes = zip(*(pairs.costs(each, solution.price) for each in some), strict=True)
        return np.concatenate(costs), np.concatenate(slopes)

    spent = solution.price * lowest.bandwidth
    dual = Intervals(ask, lam, spent, prices[:, None, None] * pairs.noise, pairs.earliest)
    best = dual.least(shortest * (1 - 1e-12), max(highest, shortest), solution.time) + pairs.constant
    ends = (
        float(each(np.where(pairs.below, outside, pairs.noise), axis=0).sum())
        for each, outside in ((np.min, np.inf), (np.max, 0.0))
    )
    return least_total(best, prices, *ends)


def _enumerate(pairs: BitPairs, search: PairSearch) -> float:
    """Solve the combinations that promise most, all where few may be better than the best; return a bound.

    Weak duality at prices of bandwidth around the incumbent's bounds each; see :mod:`sflam.allocate.cell.bits_moves`.
    """
    solution = search.known[2]
    options = [np.flatnonzero(np.isfinite(column)).tolist() for column in pairs.earliest.T]
    combinations = np.array(list(itertools.product(*options)), np.int64)
    bounds = np.max(
        [_of(pairs, combinations, solution, solution.price * each) for each in PRICES_AROUND], axis=0
    )
    least = np.inf
    for number, at in enumerate(np.argsort(bounds, kind="stable").tolist()):
        if bounds[at] >= search.best[0] * (1 - LESS):
            break
        if number == SOLVED:
            return float(min(least, bounds[at]))
        _, solved = search(combinations[at])
        if solved is not None:
            least = min(least, pairs.at(combinations[at]).total(solved.lower_bound))
    return min(least, search.best[0])
