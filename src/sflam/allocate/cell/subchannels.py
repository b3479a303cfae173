"""Bandwidth in equal subchannels (2.5): how many each device gets, or which.

At a fixed round time T the energy is separable, and convex in a device's count, so that giving the next subchannel to
the device that saves most is exact; with fading that differs between subchannels and one subchannel each, it is an
assignment problem. The least energy never rises with T, so that on [T1, T2] the objective is at least lam T1 + E(T2):
the round time is found by splitting intervals until none can hold a value better by ``tolerance``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.fixed_bandwidth import best_round, least_transmit, objective, shares, timing
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import Plan

Integers = NDArray[np.intp]
Cheapest = Callable[[float], tuple[float, Integers]]
TOLERANCE = 1e-4
SPLITS = 3000  # intervals at most
NEVER = 1e30  # cost of what is impossible


@planned("subchannels")
def solve(problem: Problem, count: int, *, tolerance: float = TOLERANCE) -> Found:
    """Return :func:`counted` as a plan."""
    return counted(problem, count, tolerance)


def counted(problem: Problem, count: int, tolerance: float = TOLERANCE) -> Found:
    """Return the best shares with ``count`` equal subchannels, flat fading, several to a device.

    Args:
        problem: what to solve.
        count: subchannels of the band, at least one per device.
        tolerance: relative gap at which the search over the round time stops.

    Raises:
        AllocationError: fewer subchannels than devices.
        Impossible: no counts hold the limits.
    """
    if count < len(problem):
        raise AllocationError(f"{count} subchannels for {len(problem)} devices; every device needs one")
    cell, unit = problem.cell, float(problem.network.bandwidth[problem.server]) / count
    relaxed = Market(cell).solve()

    def cheapest(time: float) -> tuple[float, Integers]:
        return _counts(cell, count, unit, time)

    def best(counts: Integers) -> tuple[float, float]:
        time, times = best_round(cell, counts.astype(np.float64) * unit)
        return time, objective(cell, time, times.energy)

    counts, bound = _over_time(cell, count, cheapest, best, relaxed.shortest, relaxed.objective, tolerance)
    bandwidth: Floats = counts.astype(np.float64) * unit
    _, times = best_round(cell, bandwidth)
    given = replace(
        shares(cell, bandwidth, times.transmit, times.compute), subchannels=counts.astype(np.float64)
    )
    return Found(problem=problem, shares=given, lower_bound=problem.total(max(bound, relaxed.lower_bound)))


def _counts(cell: Cell, count: int, unit: float, time: float) -> tuple[float, Integers]:
    """Return the least weighted energy within a round of ``time`` s, and the counts; NEVER where none fit."""
    devices = len(cell)
    rows = min(count - devices + 1, max(8, 8 * count // devices))
    while True:
        energy = _energies(cell, unit, time, rows)
        least = np.argmax(energy < NEVER, axis=0)  # fewest subchannels minus one
        if (energy.min(axis=0) >= NEVER).any():
            if rows >= count - devices + 1:
                return NEVER, np.ones(devices, np.intp)
            rows = min(2 * rows, count - devices + 1)
            continue
        spare = count - devices - int(least.sum())
        if spare < 0:
            return NEVER, np.ones(devices, np.intp)
        with np.errstate(invalid="ignore"):
            drops = np.where(energy[:-1] < NEVER, energy[:-1] - energy[1:], -1.0)
        order = np.argsort(-drops, axis=None, kind="stable")[:spare]
        counts = least + 1 + np.bincount(order % devices, minlength=devices)
        if counts.max() < rows or rows >= count - devices + 1:
            rest = count - int(counts.sum())
            counts[int(np.argmax(counts))] += rest  # no device gains from these
            best = energy[np.minimum(counts, rows) - 1, np.arange(devices)]
            return float(best.sum()), counts
        rows = min(2 * rows, count - devices + 1)


def _energies(cell: Cell, unit: float, time: float, rows: int) -> Floats:
    """Return [rows, K] weighted J of each device with 1 ... rows subchannels; NEVER where it cannot be done."""
    devices = len(cell)
    many = cell.take(np.tile(np.arange(devices), rows))
    bandwidth = unit * np.repeat(np.arange(1.0, rows + 1), devices)
    return _weighted(many, bandwidth, time).reshape(rows, devices)


def _weighted(cell: Cell, bandwidth: Floats, time: float) -> Floats:
    """Return weighted J of each device at its bandwidth; NEVER where it cannot be done."""
    fits = np.flatnonzero(time - cell.busy >= least_transmit(cell, bandwidth))
    value = np.full(len(cell), NEVER)
    if fits.size:
        part = cell.take(fits)
        value[fits] = part.weight * timing(part, bandwidth[fits], time).energy
    return value


def match(problem: Problem, gains: Floats, *, tolerance: float = TOLERANCE) -> tuple[Plan, Integers]:
    """Return the best plan with one subchannel a device under selective fading, and the subchannel of each device.

    Args:
        problem: what to solve; its network's gains are not used.
        gains: [K, S] power gain of each device in each of S >= K equal subchannels.
        tolerance: relative gap at which the search over the round time stops.

    Raises:
        AllocationError: gains of another shape or not positive.
    """
    from scipy.optimize import linear_sum_assignment

    check_gains(problem, gains)
    every, count = np.arange(len(problem)), gains.shape[1]
    bandwidth = np.full(len(every), float(problem.network.bandwidth[problem.server]) / count)
    chosen = np.zeros(0, np.intp)

    def matched(choice: Integers) -> Problem:
        return with_gain(problem, gains[every, choice])

    @planned("matching")
    def plan() -> Found:
        nonlocal chosen
        strongest = with_gain(problem, gains.max(axis=1)).cell
        noise = problem.network.noise / gains / problem.network.amplifier_efficiency[:, None]
        many = replace(strongest.take(np.repeat(every, count)), noise=noise.ravel())
        wide = np.repeat(bandwidth, count)

        def cheapest(time: float) -> tuple[float, Integers]:
            cost = _weighted(many, wide, time).reshape(gains.shape)
            choice = linear_sum_assignment(cost)[1]
            return min(float(cost[every, choice].sum()), NEVER), choice

        def best(choice: Integers) -> tuple[float, float]:
            cell = matched(choice).cell
            time, times = best_round(cell, bandwidth)
            return time, objective(cell, time, times.energy)

        shortest = float((many.busy + least_transmit(many, wide)).reshape(gains.shape).min(axis=1).max())
        chosen, bound = _over_time(strongest, count, cheapest, best, shortest, 0.0, tolerance)
        result = matched(chosen)
        _, times = best_round(result.cell, bandwidth)
        given = shares(result.cell, bandwidth, times.transmit, times.compute)
        given = replace(given, subchannels=np.ones(len(every)))
        return Found(problem=result, shares=given, lower_bound=problem.total(bound))

    return plan(), chosen


def check_gains(problem: Problem, gains: Floats) -> None:
    """Raise AllocationError unless gains are positive and [K, S] with S >= K."""
    every = len(problem)
    if gains.ndim != 2 or gains.shape[0] != every or gains.shape[1] < every:
        raise AllocationError(f"gains have shape {list(gains.shape)}; give [{every}, S] with S >= {every}")
    if not (np.isfinite(gains) & (gains > 0)).all():
        raise AllocationError("gains must be positive and finite")


def with_gain(problem: Problem, gain: Floats) -> Problem:
    """Return the problem with gains [K] at its server."""
    gains = problem.network.gain.copy()
    gains[problem.server] = gain
    return problem.change(network=replace(problem.network, gain=gains))


def _shortest(cheapest: Cheapest, least: float) -> float:
    """Return the shortest round, s, to a millionth; ``least`` is shorter than any."""
    low, high = least, 2 * least
    while cheapest(high)[0] >= NEVER and high < least * 1e9:
        low, high = high, 2 * high
    while high > low * (1 + 1e-6):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if cheapest(middle)[0] < NEVER else (middle, high)
    return high


def _over_time(
    cell: Cell,
    count: int,
    cheapest: Cheapest,
    evaluate: Callable[[Integers], tuple[float, float]],
    shortest: float,
    least: float,
    tolerance: float,
) -> tuple[Integers, float]:
    """Return the best choice of subchannels over all round times, and a lower bound on the objective.

    Args:
        cell: for lam and the deadline.
        count: of subchannels.
        cheapest: returns the least weighted energy at a round time, and its choice.
        evaluate: returns a choice's best round time and objective.
        shortest: no round is shorter, s.
        least: no objective is smaller.
        tolerance: relative gap to stop at.
    """
    lam = cell.latency_weight
    best, chosen = np.inf, np.zeros(0, np.intp)
    known: set[bytes] = set()

    def look(time: float) -> float:
        nonlocal best, chosen
        energy, choice = cheapest(time)
        if energy < NEVER and choice.tobytes() not in known:
            known.add(choice.tobytes())
            found, value = evaluate(choice)
            if value < best and found <= cell.deadline * (1 + 1e-12):
                best, chosen = value, choice
        return energy

    high = shortest * 1.5
    while look(min(high, cell.deadline)) >= NEVER:
        if high >= cell.deadline or high > shortest * 1e9:
            least = _shortest(cheapest, shortest) + cell.constant
            raise Impossible(
                f"the shortest possible round over {count} subchannels takes {least:.6g} s, more than the deadline; "
                "give more of them, or more time"
            )
        high *= 2
    longest = min(best / lam if lam > 0 else np.inf, cell.deadline)
    if not np.isfinite(longest):
        raise Impossible("without a latency weight, subchannels need a deadline")
    points = np.unique(np.r_[np.geomspace(shortest, longest, 12), longest])
    energies = [look(float(point)) for point in points]
    spans = [
        (lam * left + energy, left, right, energy)
        for left, right, energy in zip(points[:-1], points[1:], energies[1:], strict=True)
    ]
    for _ in range(SPLITS):
        if not spans:
            break
        spans.sort(key=lambda span: -span[0])
        bound, left, right, energy = spans[-1]
        if bound >= best * (1 - tolerance):
            break
        spans.pop()
        middle = 0.5 * (left + right)
        inner = look(float(middle))
        if inner < NEVER:
            spans.append((lam * left + inner, left, middle, inner))
        spans.append((lam * middle + energy, middle, right, energy))
    bound = min([span[0] for span in spans], default=best)
    return chosen, max(min(bound, best), least if least <= best else 0.0)
