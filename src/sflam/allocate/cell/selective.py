"""Frequency-selective fading with several subchannels a device (2.5): greedy, then swaps; NP-hard in general.

A device's power over its subchannels is water-filling: theta - N0 w / g where that is positive. At a given round time,
the next subchannel goes where it saves most energy; then subchannels move or are swapped while that saves any. The
round time is searched on a grid that is refined. Devices compute at full speed. The lower bound gives every device its
best subchannel's gain everywhere and continuous bandwidth; it is looser where gains differ more. Devices send for as
long as the round leaves them, also where circuits draw power and less would do. Powers are what amplifiers draw.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.cell.subchannels import NEVER, Integers, check_gains, with_gain
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.network.network import Floats
from sflam.plan import Plan

GRID, ZOOMS = 7, 7  # round times per pass, and passes
SWEEPS = 20  # of moves and swaps


def pour(floors: Floats, load: float) -> tuple[float, float]:
    """Return power (W) and water level (W) that carry ``load`` = a / (w t) nats over floors N0 w / g [n].

    sum ln(theta / floor) = load over the floors below theta; power = sum (theta - floor).
    """
    ordered = np.sort(floors)
    count = np.arange(1, len(ordered) + 1)
    levels = (load + np.cumsum(np.log(ordered))) / count
    wet = int(np.flatnonzero(levels > np.log(ordered)).max()) + 1
    level = float(np.exp(min(levels[wet - 1], 600.0)))
    return level * wet - float(ordered[:wet].sum()), level


class Round:
    """The subchannels' owners at a given round time, and their cost.

    Args:
        cell: the devices, at their best gains.
        floors: [K, S] N0 w / g, W.
        unit: w, Hz.
        time: T, s.
    """

    def __init__(self, cell: Cell, floors: Floats, unit: float, time: float) -> None:
        self.cell, self.floors = cell, floors
        self.transmit = time - cell.busy
        with np.errstate(divide="ignore"):
            self.load = np.where(self.transmit > 0, cell.payload / (unit * self.transmit), np.inf)

    def cost(self, device: int, owned: Integers) -> float:
        """Return W E of a device on its subchannels, with a penalty above its power limit."""
        if not len(owned) or not np.isfinite(self.load[device]):
            return NEVER
        power, _ = pour(self.floors[device, owned], float(self.load[device]))
        limit = float(self.cell.max_power[device])
        fed = float(self.cell.circuit_power[device])
        spent = float(self.cell.weight[device] * self.transmit[device]) * (power + fed)
        allowed = min(limit, float(self.cell.radio_cap[device] / self.transmit[device]) - fed)
        if allowed <= 0:
            return NEVER
        return spent if power <= allowed * (1 + 1e-12) else 1e6 * (1 + power / allowed)

    def assign(self) -> tuple[float, Integers]:
        """Return the cost and the owner [S] of every subchannel, by greedy choice and then swaps."""
        from scipy.optimize import linear_sum_assignment

        devices, count = self.floors.shape
        _, first = linear_sum_assignment(np.log(self.floors))
        owner = np.full(count, -1)
        owner[first] = np.arange(devices)
        cost = np.array([self.cost(k, np.flatnonzero(owner == k)) for k in range(devices)])
        gain = np.array([self._gains(k, owner, cost[k]) for k in range(devices)])  # [K, S]
        while (owner < 0).any():
            gain[:, owner >= 0] = -np.inf
            k, s = np.unravel_index(np.argmax(gain), gain.shape)
            owner[s] = k
            cost[k] = self.cost(int(k), np.flatnonzero(owner == k))
            gain[k] = self._gains(int(k), owner, cost[k])
        self._swap(owner, cost)
        return float(cost.sum()), owner

    def _gains(self, device: int, owner: Integers, cost: float) -> Floats:
        mine, free = np.flatnonzero(owner == device), np.flatnonzero(owner < 0)
        gain = np.full(len(owner), -np.inf)
        gain[free] = [cost - self.cost(device, np.append(mine, s)) for s in free]
        return gain

    def _swap(self, owner: Integers, cost: Floats) -> None:
        """Move a subchannel to another device, or let two change owners, while the cost falls."""
        for _ in range(SWEEPS):
            before = float(cost.sum())
            for s in range(len(owner)):
                self._place(s, owner, cost)
            if before - float(cost.sum()) <= 1e-9 * before:
                return

    def _place(self, s: int, owner: Integers, cost: Floats) -> None:
        giver = int(owner[s])
        best, change = 0.0, None
        for other in range(len(cost)):
            if other == giver:
                continue
            mine, theirs = np.flatnonzero(owner == giver), np.flatnonzero(owner == other)
            left, more = mine[mine != s], np.append(theirs, s)
            now = cost[giver] + cost[other]
            for back in (-1, *theirs.tolist()):
                kept = left if back < 0 else np.append(left, back)
                if not len(kept):
                    continue
                costs = self.cost(giver, kept), self.cost(other, more if back < 0 else more[more != back])
                saved = now - sum(costs)
                if saved > best + 1e-12 * now:
                    best, change = saved, (other, back, costs)
        if change is not None:
            other, back, (cost[giver], cost[other]) = change
            owner[s] = other
            if back >= 0:
                owner[back] = giver


def solve(problem: Problem, gains: Floats) -> tuple[Plan, Integers]:
    """Return a plan where subchannels fade differently and a device may have several, and the owner of each.

    The plan's bandwidth is a device's number of subchannels times their width, its power the sum over them; the
    referee sees the flat gain that carries the same rate at that power.

    Args:
        problem: what to solve; its network's gains are not used.
        gains: [K, S] power gain of each device in each of S >= K equal subchannels.

    Raises:
        AllocationError: gains of another shape or not positive.
    """
    check_gains(problem, gains)
    owner = np.zeros(0, np.intp)

    @planned("selective")
    def plan() -> Found:
        nonlocal owner
        unit = float(problem.network.bandwidth[problem.server]) / gains.shape[1]
        network = problem.network
        floors = network.noise * unit / gains / network.amplifier_efficiency[:, None]
        relaxed = with_gain(problem, gains.max(axis=1))
        cell = relaxed.change(choose_clocks=False).cell
        bound = Market(relaxed.cell).solve()
        time, owner = _search(cell, floors, unit, bound.shortest)
        count = np.bincount(owner, minlength=len(problem)).astype(np.float64)
        turn = Round(cell, floors, unit, time)
        power = np.array([pour(floors[k, owner == k], float(turn.load[k]))[0] for k in range(len(problem))])
        bandwidth: Floats = count * unit
        power = np.minimum(power, cell.max_power) * network.amplifier_efficiency
        flat = np.expm1(cell.payload / turn.transmit / bandwidth) * network.noise * bandwidth / power
        given = Shares(
            bandwidth=bandwidth,
            power=power,
            clock=cell.max_clock,
            subchannels=count,
        )
        return Found(
            problem=with_gain(problem, flat), shares=given, lower_bound=relaxed.total(bound.lower_bound)
        )

    return plan(), owner


def _search(cell: Cell, floors: Floats, unit: float, shortest: float) -> tuple[float, Integers]:
    """Return the best round time found and its owners."""
    lam = cell.latency_weight
    low, high = shortest, min(8 * shortest, cell.deadline)
    best, found = np.inf, (np.inf, np.zeros(0, np.intp))
    for _ in range(ZOOMS):
        times = np.geomspace(low, high, GRID)
        values = np.full(GRID, np.inf)
        for i, time in enumerate(times):
            cost, owner = Round(cell, floors, unit, float(time)).assign()
            values[i] = lam * time + cost
            if cost < 1e6 and values[i] < best:
                best, found = values[i], (float(time), owner)
        nearest = int(np.argmin(values))
        low, high = times[max(nearest - 1, 0)], times[min(nearest + 1, GRID - 1)]
    if not np.isfinite(best):
        raise Impossible(
            "no assignment of subchannels found within the limits; give more of them, or more time"
        )
    return found
