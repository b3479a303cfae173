"""Bandwidth in equal subchannels (2.5): how many each device gets, or which one.

At a fixed round time T the energy is separable, and convex in a device's count, so that giving the next subchannel to
whoever saves most is exact; with fading that differs between subchannels and one each, it is an assignment problem.
Either way the least energy never rises with T, so that on [T1, T2] the objective is at least lam T1 + E(T2): the round
time is found by splitting intervals until none can hold anything better than ``tolerance``.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.fixed_bandwidth import best_round, least_transmit, objective, shares, timing
from sflam.allocate.cell.limits import Impossible
from sflam.allocate.cell.optimal import Market
from sflam.allocate.cell.problem import Problem
from sflam.errors import AllocationError
from sflam.network.network import Floats
from sflam.plan import Plan

Integers = NDArray[np.intp]
TOLERANCE = 1e-4
SPLITS = 3000  # intervals at most
NEVER = 1e30  # cost of what is impossible


def solve(problem: Problem, count: int, method: str = "subchannels", *, tolerance: float = TOLERANCE) -> Plan:
    """Return the best plan with ``count`` equal subchannels, flat fading, several to a device.

    Args:
        problem: what to solve.
        count: subchannels of the band, at least one per device.
        method: the plan's name.
        tolerance: relative gap at which the search over the round time stops.

    Raises:
        AllocationError: fewer subchannels than devices.
    """
    began = clock.perf_counter()
    if count < len(problem):
        raise AllocationError(f"{count} subchannels for {len(problem)} devices; every device needs one")
    unit = float(problem.network.bandwidth[problem.server]) / count
    try:
        cell = problem.cell
        relaxed = Market(cell).solve()

        def cheapest(time: float) -> tuple[float, Integers]:
            return _counts(cell, count, unit, time)

        counts, bound = _over_time(
            cell,
            cheapest,
            lambda counts: cell,
            lambda counts: counts.astype(np.float64) * unit,
            relaxed.shortest,
            relaxed.objective,
            tolerance,
        )
    except Impossible as impossible:
        return problem.no_plan(method, *impossible.advice, solve_s=clock.perf_counter() - began)
    bandwidth: Floats = counts.astype(np.float64) * unit
    _, times = best_round(cell, bandwidth)
    told = replace(
        shares(cell, bandwidth, times.transmit, times.compute), subchannels=counts.astype(np.float64)
    )
    return problem.plan(
        method,
        told,
        lower_bound=problem.total(max(bound, relaxed.lower_bound)),
        solve_s=clock.perf_counter() - began,
    )


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
            counts[int(np.argmax(counts))] += rest  # nobody gains from these
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
    """Return [n] W E within a round of ``time`` s; NEVER where the devices cannot be done."""
    fits = np.flatnonzero(time - cell.busy >= least_transmit(cell, bandwidth))
    value = np.full(len(cell), NEVER)
    if fits.size:
        part = cell.take(fits)
        value[fits] = part.weight * timing(part, bandwidth[fits], time).energy
    return value


def match(
    problem: Problem, gains: Floats, method: str = "matching", *, tolerance: float = TOLERANCE
) -> tuple[Plan, Integers]:
    """Return the best plan with one subchannel for each device, fading differing between them, and who has which.

    Args:
        problem: what to solve; its network's gains are not used.
        gains: [K, S] power gain of each device in each of S >= K equal subchannels.
        method: the plan's name.
        tolerance: relative gap at which the search over the round time stops.

    Raises:
        AllocationError: gains of another shape or not positive.
    """
    from scipy.optimize import linear_sum_assignment

    began = clock.perf_counter()
    every = len(problem)
    if gains.ndim != 2 or gains.shape[0] != every or gains.shape[1] < every:
        raise AllocationError(f"gains have shape {list(gains.shape)}; give [{every}, S] with S >= {every}")
    if not (np.isfinite(gains) & (gains > 0)).all():
        raise AllocationError("gains must be positive and finite")
    count = gains.shape[1]
    band = float(problem.network.bandwidth[problem.server])
    bandwidth = np.full(every, band / count)
    rows = np.indices(gains.shape)[0]

    def with_gains(chosen: Integers) -> Problem:
        gain = problem.network.gain.copy()
        gain[problem.server] = gains[np.arange(every), chosen]
        return problem.change(network=replace(problem.network, gain=gain))

    try:
        noise = problem.network.noise / gains
        best = problem.change(
            network=replace(
                problem.network, gain=np.tile(gains.max(axis=1), (len(problem.network.bandwidth), 1))
            )
        ).cell
        many = replace(best.take(rows.ravel()), noise=noise.ravel())
        wide = bandwidth[rows.ravel()]

        def cheapest(time: float) -> tuple[float, Integers]:
            cost = _weighted(many, wide, time).reshape(gains.shape)
            _, chosen = linear_sum_assignment(cost)
            total = float(cost[np.arange(every), chosen].sum())
            return min(total, NEVER), chosen

        shortest = float((many.busy + least_transmit(many, wide)).reshape(gains.shape).min(axis=1).max())
        chosen, bound = _over_time(
            best,
            cheapest,
            lambda chosen: with_gains(chosen).cell,
            lambda chosen: bandwidth,
            shortest,
            0.0,
            tolerance,
        )
    except Impossible as impossible:
        refused = problem.no_plan(method, *impossible.advice, solve_s=clock.perf_counter() - began)
        return refused, np.zeros(0, np.intp)
    matched = with_gains(chosen)
    _, times = best_round(matched.cell, bandwidth)
    told = shares(matched.cell, bandwidth, times.transmit, times.compute)
    plan = matched.plan(
        method,
        replace(told, subchannels=np.ones(every)),
        lower_bound=problem.total(bound),
        solve_s=clock.perf_counter() - began,
    )
    return plan, chosen


def _over_time(
    cell: Cell,
    cheapest: Callable[[float], tuple[float, Integers]],
    cell_of: Callable[[Integers], Cell],
    bandwidth_of: Callable[[Integers], Floats],
    shortest: float,
    least: float,
    tolerance: float,
) -> tuple[Integers, float]:
    """Return the best choice over all round times, and a lower bound on the objective.

    Args:
        cell: for lam and the deadline.
        cheapest: at a round time, the least weighted energy and the choice that has it.
        cell_of: the cell under a choice.
        bandwidth_of: the bandwidths under a choice.
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
            part, bandwidth = cell_of(choice), bandwidth_of(choice)
            found, times = best_round(part, bandwidth)
            value = objective(part, found, times.energy)
            if value < best and found <= cell.deadline * (1 + 1e-12):
                best, chosen = value, choice
        return energy

    high = shortest * 1.5
    while look(min(high, cell.deadline)) >= NEVER:
        if high >= cell.deadline or high > shortest * 1e9:
            raise Impossible("no choice of subchannels meets the deadline; give more of them, or more time")
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
