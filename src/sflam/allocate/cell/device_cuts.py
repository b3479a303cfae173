"""A cut for every device (2.6): what each device does hangs on its own cut, and so does its turn at the server.

    min over y   lam (T0 + sum_k s_k(y_k) + T) + sum_k W_k E_k(y_k) + (1 - lam) (J0 + sum_k j_k(y_k))

s_k and j_k are the seconds and joules of the server for device k, one device after the other. At prices of bandwidth mu
and of time each device takes the cut with the least D_k(T, mu, y) + a_k(y), with D_k as for bits (2.17) and a_k(y) the
price of its turn. The choices change the prices; this is repeated from the best common cut, and then single devices
are moved. Weak duality bounds the optimum over all cuts, and what any one device's cut can be: where few cuts are left,
all their combinations are solved, and the best is the optimum.
"""

from __future__ import annotations

import itertools
import time as clock
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from sflam.allocate.cell import bits
from sflam.allocate.cell import cuts as one_cut
from sflam.allocate.cell.cut_bounds import LESS, CutBounds, turns
from sflam.allocate.cell.cut_options import CutOptions, Cuts, Place
from sflam.allocate.cell.cuts import uncertified
from sflam.allocate.cell.market import Market, Solution
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shadow_prices import shadow_prices
from sflam.allocate.cell.waiting import best_of
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.plan import Plan, Status

CERTIFIED = 2000  # devices up to which the bound is computed
MOVED = 60  # devices up to which single moves are tried
ENUMERATED = 20_000  # combinations of cuts up to which each has a bound of its own
SOLVED = 64  # of those, at most
ROUNDS = 30
TURNS = 5  # of cuts and bits


class CutSearch:
    """Exact solutions at given cuts, each once, and each started from the last one's prices."""

    def __init__(self, options: CutOptions) -> None:
        self.options = options
        self.solved: dict[bytes, tuple[float, Solution | None]] = {}
        self.last: Solution | None = None
        self.best: tuple[float, Cuts, Solution | None] = (np.inf, np.empty(0, np.int64), None)

    def __call__(self, rows: Cuts) -> tuple[float, Solution | None]:
        """Return the objective at the cuts in ``rows`` and its solution; inf and None where no plan can be."""
        key = rows.tobytes()
        if key not in self.solved:
            self.solved[key] = found = self._solve(rows)
            if found[0] < self.best[0] * (1 - LESS):
                self.best = found[0], rows.copy(), found[1]
        return self.solved[key]

    @property
    def known(self) -> tuple[float, Cuts, Solution]:
        """The best objective, its rows, and its solution."""
        total, rows, solution = self.best
        assert solution is not None
        return total, rows, solution

    def _solve(self, rows: Cuts) -> tuple[float, Solution | None]:
        if not self.options.allowed[rows, np.arange(len(rows))].all():
            return np.inf, None
        problem = self.options.at(rows)
        try:
            cell = problem.cell
            market = Market(cell, self.last.price, self.last.time) if self.last else Market(cell)
            self.last = market.solve()
        except Impossible:
            return np.inf, None
        return problem.total(self.last.objective), self.last


def solve_with_bits(problem: Problem, cuts: Sequence[int], place: Place) -> Plan:
    """Return a plan with a cut and bits for every device: each in turn at the other's best, from one cut for all.

    Both are the best for what the other is; no bound over both is known. The arguments are those of :func:`solve`.
    """
    began = clock.perf_counter()

    def bits_at(here: Problem) -> Plan:
        return bits.solve(place(here), certify=False)

    plan = one_cut.best_common(problem, cuts, bits_at)
    for _ in range(TURNS):
        if plan.status is Status.INFEASIBLE:
            break
        moved = solve(problem.change(bits=plan.devices.bits), cuts, place)
        if not moved.objective < plan.objective * (1 - LESS):
            break
        again = one_cut.look(problem, moved.devices.cut, bits_at)
        plan = min(moved, again, key=lambda each: each.objective)
    found = uncertified(plan, "cuts and bits are chosen in turns, and not certified together")
    return replace(found, solve_s=clock.perf_counter() - began)


@planned("cut")
def solve(
    problem: Problem, cuts: Iterable[int] | None = None, place: Place = lambda problem: problem
) -> Found:
    """Return the best plan over cuts of the devices, each its own.

    Args:
        problem: its cut is not used; its T0 and J0 are without the server's turn.
        cuts: the cuts to choose from; all of them by default.
        place: gives a problem at cuts the delays that hang on them.
    """
    every = range(problem.workload.blocks + 1) if cuts is None else list(cuts)
    if problem.waits:
        return _waiting(problem, every, place)
    return _chosen(problem, every, place)


def _waiting(problem: Problem, every: Sequence[int], place: Place) -> Found:
    """Return cuts for devices that wait for each other: the best of those for chains and of each common one."""
    chains = _chosen(problem.change(lockstep=None), every, place)
    assert isinstance(chains.problem, Problem)
    options = CutOptions(problem, np.array(sorted(every), np.int64), place)
    rows = [np.searchsorted(options.cuts, chains.problem.each("cut")), *options.common()]
    return best_of(map(options.at, rows), chains, "cuts")


def _chosen(problem: Problem, every: Sequence[int], place: Place) -> Found:
    """Return the best plan over cuts for chains."""
    options = CutOptions(problem, np.array(sorted(every), np.int64), place)
    search = CutSearch(options)
    common = [search(rows)[0] for rows in options.common()]
    if search.best[2] is None:
        search(options.fastest())
    if search.best[2] is None:
        Market(options.at(options.fastest()).cell).solve()  # raises Impossible with the reason
        raise Impossible(
            "no common cut holds the limits, nor does the cut at which each device is done first"
        )
    _descend(options, search)
    lower = _certify(options, search) if len(problem) <= CERTIFIED else -np.inf
    advice = () if lower > -np.inf else ("the cuts are not certified: only resources are optimal for them",)
    total, rows, solution = search.known
    chosen = options.at(rows)
    return Found(
        problem=chosen,
        shares=solution.shares(chosen.cell),
        lower_bound=lower,
        advice=advice,
        history=(*sorted((each for each in common if np.isfinite(each)), reverse=True), total),
        shadow_prices=shadow_prices(chosen, solution.time, *solution.balanced),
    )


def _descend(options: CutOptions, search: CutSearch) -> None:
    """Repeat prices -> cuts -> prices; where all changes together are no gain, only the most promising are made."""
    every = np.arange(len(options.problem))
    for _ in range(ROUNDS):
        total, rows, solution = search.known
        turn, _ = turns(options, solution)
        worth = options.costs(np.array([solution.time]), solution.price)[0][0] + turn
        better = np.where(options.allowed, worth, np.inf).argmin(axis=0)
        with np.errstate(invalid="ignore"):  # inf - inf of a device that is done just in time
            gain = np.nan_to_num(worth[rows, every] - worth[better, every])
        order = np.argsort(-gain, kind="stable")[: np.count_nonzero(gain > LESS * total)]
        while len(order) and search.best[0] == total:
            search(np.where(np.isin(every, order), better, rows))
            order = order[: len(order) // 2]
        if search.best[0] == total:
            return


def _certify(options: CutOptions, search: CutSearch) -> float:
    """Return a lower bound over all cuts, and make the best better on the way where the fleet is small."""
    found = CutBounds(options, *search.known, close=False)
    lower = found.lower
    if len(options.problem) <= MOVED and found.combinations > ENUMERATED:
        _move(options, search, found)
        found = CutBounds(options, *search.known, close=True)
        lower = max(lower, found.lower)
    return max(lower, _enumerate(search, found)) if found.combinations <= ENUMERATED else lower


def _move(options: CutOptions, search: CutSearch, found: CutBounds) -> None:
    """Give single devices other cuts, those that may be better, most promising first, until nothing improves."""
    improved = True
    while improved:
        improved = False
        total, rows, _ = search.known
        places = np.argwhere(found.may & (np.arange(len(options.cuts))[:, None] != rows))
        tried = np.tile(rows, (len(places), 1))
        tried[np.arange(len(places)), places[:, 1]] = places[:, 0]
        least = found.of(tried)
        for at in np.argsort(least, kind="stable").tolist():
            if least[at] >= search.best[0] * (1 - LESS):
                break
            improved |= search(tried[at])[0] < total * (1 - LESS)


def _enumerate(search: CutSearch, found: CutBounds) -> float:
    """Solve the combinations of cuts that promise most, all where few may be better than the best; return a bound."""
    choices = [np.flatnonzero(column) for column in found.may.T]
    every = np.array(list(itertools.product(*(each.tolist() for each in choices))), np.int64)
    bounds, least = found.of(every), np.inf
    for number, at in enumerate(np.argsort(bounds, kind="stable").tolist()):
        if bounds[at] >= search.best[0] * (1 - LESS):
            break
        if number == SOLVED:
            return float(min(least, bounds[at]))
        _, solution = search(every[at])
        if solution is not None:
            least = min(least, search.options.at(every[at]).total(solution.lower_bound))
    return min(least, search.best[0])
