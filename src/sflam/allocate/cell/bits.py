"""Bits for every device, weighing rounds against their cost (2.16): Algorithm Q.

    min over q   (1 + sum_k chi_k v(q_k)) J*(q)

At given prices each device chooses the width with the least D_k(q) + eta chi_k v(q), where D_k is the cost of its
bandwidth, energy and time at prices (T, mu), and eta = J / (1 + nu) the price of quantization noise (2.17). Choices
change the prices; this is repeated from the best common width until no choice changes. In small fleets one bit more
and one bit less are then evaluated exactly for each device.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.best_response import Response
from sflam.allocate.cell.bits_bound import bound
from sflam.allocate.cell.bits_moves import CHANGES, hopeful
from sflam.allocate.cell.energy_caps import respond_within
from sflam.allocate.cell.market import Market, Solution
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shadow_prices import shadow_prices
from sflam.allocate.cell.waiting import best_of
from sflam.allocate.curves import growth
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.cost.convergence import quantization_noise
from sflam.network.network import Floats

Bits = NDArray[np.int64]
POLISHED = 60  # devices up to which one bit more and less is tried exactly
CERTIFIED = 2000  # devices up to which the bound is computed by default
MOVED = 8  # devices up to which single ones are given other bits where they wait for each other
BESIDE = 1  # widths on either side of the best common one that are tried for those
SAMPLE = 1000  # devices that find the common width of a larger fleet
ROUNDS = 30
SETTLED = 1e-7  # relative fall of the total that ends the descent


class Search:
    """Exact solutions at given bits, each started from the last one's prices."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.cell = problem.cell
        self.last: Solution | None = None

    def solve(self, bits: Bits) -> tuple[float, Solution | None]:
        """Return the total (2.16) at these bits and its solution; inf and None where no plan holds the limits."""
        problem = self.problem.change(bits=bits)
        last = self.last
        try:
            cell = problem.cell
            market = Market(cell, last.price, last.time) if last else Market(cell)
            solution = market.solve()
        except Impossible:
            return np.inf, None
        self.last = solution
        return problem.total(solution.objective), solution


@planned("bits")
def solve(problem: Problem, *, certify: bool | None = None) -> Found:
    """Return the plan with bits chosen by Algorithm Q.

    Args:
        problem: its ``bits`` are not used.
        certify: whether to compute the lower bound (2.18); by default for up to ``CERTIFIED`` devices.
    """
    return _waiting(problem, certify) if problem.waits else _chosen(problem, certify)


def _waiting(problem: Problem, certify: bool | None) -> Found:
    """Return bits for devices that wait for each other: the best of those for chains and of common widths, and from
    there a bit more or less for single devices of a small fleet."""
    alone = problem.change(lockstep=None)
    chains = _chosen(alone, certify)
    assert isinstance(chains.problem, Problem)
    common = best_common(alone.change(bits=alone.widest(alone.widths[0])))[0]
    near = [w for at, w in enumerate(problem.widths) if abs(at - problem.widths.index(common)) <= BESIDE]
    start = [chains.problem.each("bits"), *(problem.widest(width) for width in near)]
    found = best_of((problem.change(bits=each) for each in start), chains, "bits")
    while len(problem) <= MOVED:
        assert isinstance(found.problem, Problem)
        bits = found.problem.each("bits")
        moved = [bits + change * (np.arange(len(bits)) == k) for k in range(len(bits)) for change in CHANGES]
        moved = [each for each in moved if (each == problem.widest(each)).all()]
        better = best_of((problem.change(bits=each) for each in moved), chains, "bits")
        if not better.history[0] < found.history[0] * (1 - SETTLED):
            break
        found = better
    return found


def _chosen(problem: Problem, certify: bool | None) -> Found:
    """Return the plan of Algorithm Q, for chains."""
    problem = problem.change(bits=problem.widest(problem.widths[0]))
    sample = representatives(problem)
    common, solved, history = best_common(sample)
    search = Search(problem)
    start = sample.widest(common)
    bits, best, solution, seen = _descend(sample, Search(sample), start, solved)
    if sample is not problem and solution is not None:
        time, price, eta = _prices(sample.change(bits=bits), solution)
        # The sample's hertz are as many times fewer, and each is worth as much more.
        price *= len(sample) / len(problem)
        bits = _choose(problem, time, price, eta, problem.widest(common))
        search.last = replace(solution, price=price)
        bits, best, solution, seen = _descend(problem, search, bits)
    if solution is None:
        raise Impossible("no common width holds the limits")
    if len(problem) <= POLISHED:
        bits, best, solution = _polish(problem, search, bits, best, solution)
    lower = -np.inf
    if certify or (certify is None and len(problem) <= CERTIFIED):
        lower = bound(problem, cost_table, best, solution)
    chosen = problem.change(bits=bits)
    advice = () if lower > -np.inf else ("the bits are not certified: only resources are optimal for them",)
    return Found(
        problem=chosen,
        shares=solution.shares(chosen.cell),
        lower_bound=lower,
        advice=advice,
        history=(*history, *seen, best),
        shadow_prices=shadow_prices(chosen, solution.time, *solution.balanced),
    )


def best_common(problem: Problem) -> tuple[int, Solution, tuple[float, ...]]:
    """Return the best width that all devices share, its solution, and the totals seen on the way, largest first.

    A device with a higher floor has its floor.

    Widths are tried in ascending order. J* never falls with the width, so that the search ends once J* at the least
    noise exceeds the best total.

    Raises:
        Impossible: none holds the limits.
    """
    search = Search(problem)
    least = problem.change(bits=problem.widths[-1]).rounds
    found: dict[int, tuple[float, Solution]] = {}
    lowest = int(problem.widest(problem.widths[0]).min())
    for width in (each for each in problem.widths if each >= lowest):
        total, solution = search.solve(problem.widest(width))
        if solution is None:
            break
        found[width] = total, solution
        if least * (solution.objective + problem.constant) > min(total for total, _ in found.values()):
            break
    if not found:
        Market(
            problem.change(bits=problem.widest(problem.widths[0])).cell
        ).solve()  # raises Impossible with the reason
    best = min(found, key=lambda width: found[width][0])
    return best, found[best][1], tuple(sorted((total for total, _ in found.values()), reverse=True))


def representatives(problem: Problem) -> Problem:
    """Return a problem of a few devices that represent all: they have the same share of the band, more of the rest."""
    count = len(problem)
    if count <= 2 * SAMPLE:
        return problem
    index = np.arange(0, count, -(-count // SAMPLE))
    scale = count / len(index)
    part = problem.only(index)
    network = part.network
    less = (
        {"airtime": network.airtime / scale} if network.airtime else {"bandwidth": network.bandwidth / scale}
    )
    network = replace(network, energy_weight=network.energy_weight * scale, **less)
    chi = {name: part.each(name) * scale for name in ("sensitivity", "sensitivity_down")}
    return part.change(network=network, **chi)


def _descend(
    problem: Problem, search: Search, bits: Bits, solved: Solution | None = None
) -> tuple[Bits, float, Solution | None, tuple[float, ...]]:
    """Repeat prices -> bits -> prices, and return the best seen; ``solved`` is the solution at ``bits`` if known."""
    best: tuple[Bits, float, Solution | None] = (bits, np.inf, None)
    seen: set[bytes] = set()
    totals: list[float] = []
    for _ in range(ROUNDS):
        seen.add(bits.tobytes())
        if solved is None:
            total, solution = search.solve(bits)
        else:
            total, solution = problem.change(bits=bits).total(solved.objective), solved
            search.last, solved = solved, None
        if solution is None:
            break
        totals.append(total)
        settled = total > best[1] * (1 - SETTLED) and len(totals) > 2
        if total < best[1]:
            best = bits, total, solution
        if settled:
            break
        current = problem.change(bits=bits)
        bits = _choose(current, *_prices(current, solution), bits, solution.answer)
        if bits.tobytes() in seen:
            break
    return *best, tuple(totals)


def _prices(problem: Problem, solution: Solution) -> tuple[float, float, float]:
    """Return round time, price of bandwidth, and price of noise eta = J / (1 + nu)."""
    return solution.time, solution.price, (solution.objective + problem.constant) / problem.rounds


def _choose(
    problem: Problem, time: float, price: float, eta: float, start: Bits, known: Response | None = None
) -> Bits:
    """Return each device's best width at prices (2.17), searched from ``start``.

    D_k is convex in the payload, which is linear in the width, and the noise is convex too: a local
    minimum is the best width. Of equal ones the smaller is taken. A device that is done sending before its time has
    a D_k that is concave in its payload, and so has one that shares time: where circuits draw power, or time is shared,
    all widths are compared.
    """
    widths, chi = np.array(problem.widths), problem.each("sensitivity")
    payload, noise = problem.payload_at(widths), eta * quantization_noise(widths)
    place, lowest = np.searchsorted(widths, start), np.searchsorted(widths, problem.widest(widths[0]))

    def worth(at: Bits, index: Bits) -> Floats:
        cost = costs_at(problem, time, price, payload[at, index], index, known)
        total: Floats = cost + noise[at] * chi[index]
        return total

    every = np.arange(len(start))
    if problem.network.circuit_power.any() or problem.network.airtime:
        values = np.stack([worth(np.full(len(start), at), every) for at in range(len(widths))])
        values[np.arange(len(widths))[:, None] < lowest] = np.inf
        least: Bits = widths[np.argmin(values, axis=0)]
        return least
    value = worth(place, every)
    still = np.ones(len(start), bool)
    for step in (-1, 1):
        active = every[still]
        while active.size:
            there = place[active] + step
            inside = (there >= lowest[active]) & (there < len(widths))
            active, there = active[inside], there[inside]
            found = worth(there, active)
            better = found <= value[active] if step < 0 else found < value[active]
            active = active[better]
            place[active], value[active], still[active] = there[better], found[better], False
    return widths[place]


def _polish(
    problem: Problem, search: Search, bits: Bits, best: float, solution: Solution
) -> tuple[Bits, float, Solution]:
    """Try one bit more and one less at each device, where that may be better, until nothing improves."""
    improved = True
    while improved:
        improved = False
        left = hopeful(problem, cost_table, bits, best, solution)
        for k in range(len(bits)):
            for row, change in enumerate(CHANGES):
                if not left[row, k]:
                    continue
                tried = bits.copy()
                tried[k] += change
                total, found = search.solve(tried)
                if found is not None and total < best * (1 - 1e-12):
                    bits, best, solution, improved = tried, total, found, True
                    left = hopeful(problem, cost_table, bits, best, solution)
    return bits, best, solution


def cost_table(problem: Problem, times: Floats, price: float, widths: Bits) -> tuple[Floats, Floats]:
    """Return D_k(T, mu, q) and zeta_k, both [I, Q, K], at times [I]; inf and 0 where T is too short for that width, or
    the width is below the device's floor."""
    payload = problem.payload_at(widths)  # [Q, K]
    payload = np.where(np.asarray(widths)[:, None] < problem.each("bits_floor"), np.inf, payload)
    at, rows, index = np.indices((len(times), *payload.shape)).reshape(3, -1)
    found = _costs(problem.cell.take(index), times[at], price, payload[rows, index])
    costs, slopes = (each.reshape(len(times), *payload.shape) for each in found)
    return costs, slopes


def costs_at(
    problem: Problem, time: float, price: float, payload: Floats, index: Bits, known: Response | None = None
) -> Floats:
    """Return D_k(T, mu, q) [n] of the devices ``index`` [n] with payloads [n]; inf where T is too short.

    ``known`` are the answers at (T, mu) and the problem's own bits: where no cap binds at any width and full speed is
    best, cost is linear in the payload (2.17), and no equation has to be solved.
    """
    cell = problem.cell.take(index)
    costs, linear = np.empty(len(index)), np.zeros(len(index), bool)
    if known is not None:
        grown, ratio = growth(known.efficiency[index]), payload / cell.payload
        linear = known.free[index] & (payload * grown <= cell.snr_bandwidth * known.transmit[index])
        linear &= np.isinf(cell.max_efficiency) & np.isinf(cell.energy_cap)
        fed = cell.weight * cell.circuit_power
        second = (known.time_price[index] + fed) * ratio - fed
        linear &= second >= cell.weight * cell.full_speed_gain
        value = cell.weight * cell.noise * payload * grown + price * known.bandwidth[index] * ratio
        value += fed * known.transmit[index]
        value += cell.weight * cell.compute_energy(cell.least_compute)
        costs[linear] = value[linear]
    some = np.flatnonzero(~linear)
    costs[some] = _costs(cell.take(some), np.full(len(some), time), price, payload[some])[0]
    return costs


def _costs(cell: Cell, time: Floats, price: float, payload: Floats) -> tuple[Floats, Floats]:
    """Return D and zeta [n] of devices with other payloads; inf and 0 where T is too short, or a cap forbids one."""
    return costs_of(replace(cell, payload=payload), time, price)


def costs_of(cell: Cell, time: Floats, price: float) -> tuple[Floats, Floats]:
    """Return D and zeta [n] of devices at times [n]; inf and 0 where T is too short, or a cap forbids one."""
    costs, slopes = np.full(len(cell), np.inf), np.zeros(len(cell))
    soon = time - cell.busy > cell.soonest(cell.payload) * (1 + 1e-12)
    fits = np.flatnonzero(soon & (cell.radio_cap > cell.least_energy))
    if fits.size:
        costs[fits], slopes[fits] = _cost(cell.take(fits), time[fits], price)
    return costs, slopes


def _cost(cell: Cell, time: Floats, price: float) -> tuple[Floats, Floats]:
    answer = respond_within(cell, time, price)
    energy = answer.energy(cell) + cell.compute_energy(answer.compute)
    cost: Floats = cell.weight * energy + price * answer.bandwidth
    if answer.extra is not None:
        cost = cost + np.where(
            answer.extra > 0, answer.extra * (energy - np.minimum(cell.left(time), 1e300)), 0.0
        )
    return cost, answer.time_price
