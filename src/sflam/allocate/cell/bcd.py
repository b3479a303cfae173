"""Block coordinate descent, as SFLAM's planner (arXiv 2504.09114) is described: the paper's method, rebuilt.

    until nothing improves:
        power      at given bandwidths, by successive convex approximation of p t (2.10); clocks with it
        bandwidth  at given powers and clocks, a convex problem
        matching   (with subchannels, instead) move one subchannel between two devices while the cost falls
        bits       one bit less wherever the objective falls (:mod:`sflam.allocate.cell.bcd_bits`)

Every step minimises over one block with the others fixed, so the objective never rises. It can stop above the optimum:
with bandwidths given, all devices finish together, and with powers given no device can lose bandwidth without delaying
the round, though a joint change would gain.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.best_response import Response, power_balance
from sflam.allocate.cell.fixed_bandwidth import least_transmit, objective, shares, shortest_round
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.curves import TINY, growth, inverse_growth
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.allocate.roots import bisect, decreasing_root
from sflam.errors import AllocationError
from sflam.network.network import Floats

STOP = 1e-9  # relative fall of the objective below which it has converged
ROUNDS = 50
INNER = 30  # convex approximations of one power step at most


def descend(
    problem: Problem, *, start: Shares | None = None, subchannels: int = 0, inner: int = INNER
) -> Found:
    """Return the plan that block coordinate descent reaches.

    Args:
        problem: what to solve.
        start: where to start; equal bandwidth, full power and full speed by default.
        subchannels: how many equal subchannels the band has; 0 for continuous bandwidth.
        inner: convex approximations of one power step at most. Fewer steps (5) stall less: devices
            that could still save do not finish together yet, and bandwidth can move.
    """
    cell = problem.cell
    expect_enough(problem, subchannels)
    block = Blocks(cell, start, subchannels)
    history = [block.objective]
    for _ in range(ROUNDS):
        block.power_step(inner)
        if subchannels:
            block.matching_step()
        else:
            block.bandwidth_step()
        history.append(block.objective)
        if history[-2] - history[-1] <= STOP * history[-2]:
            break
    return Found(
        problem=problem, shares=block.shares(), history=tuple(problem.total(value) for value in history)
    )


solve = planned("bcd")(descend)


@planned("bcd-matching")
def solve_matching(problem: Problem, count: int) -> Found:
    """Return ``descend`` over ``count`` equal subchannels."""
    return descend(problem, subchannels=count)


def expect_enough(problem: Problem, subchannels: int) -> None:
    """Raise AllocationError where there are fewer subchannels than devices; 0 are a continuous band."""
    if 0 < subchannels < len(problem):
        raise AllocationError(f"{subchannels} subchannels for {len(problem)} devices; every device needs one")


class Blocks:
    """The variables of the descent, and its steps. Every step keeps limits and never raises the objective."""

    def __init__(self, cell: Cell, start: Shares | None, subchannels: int) -> None:
        self.cell = cell
        count = len(cell)
        self.unit, self.whole = cell.bandwidth / max(subchannels, 1), subchannels > 0
        if start is not None:
            self.bandwidth = start.bandwidth.astype(float)
        elif subchannels:
            share = np.full(count, subchannels // count)
            share[: subchannels % count] += 1
            self.bandwidth = share * self.unit
        else:
            self.bandwidth = np.full(count, cell.bandwidth / count)
        shortest_round(cell, self.bandwidth)  # raises Impossible
        self.transmit = least_transmit(cell, self.bandwidth)
        self.compute = np.where(cell.cycles > 0, cell.least_compute, 0.0)
        if start is not None:
            drawn = np.minimum(start.power / cell.amplifier_efficiency, cell.max_power)
            x = np.log1p(drawn / (cell.noise * self.bandwidth))
            self.transmit = np.maximum(self.transmit, cell.payload / (self.bandwidth * x))
            self.compute = np.where(cell.cycles > 0, np.maximum(cell.cycles / start.clock, self.compute), 0.0)

    def shares(self) -> Shares:
        """Return what the variables are as shares."""
        given = shares(self.cell, self.bandwidth, self.transmit, self.compute)
        return replace(given, subchannels=np.rint(self.bandwidth / self.unit)) if self.whole else given

    @property
    def power(self) -> Floats:
        """[K] W that amplifiers draw."""
        return self.power_at(self.transmit)

    def power_at(self, transmit: Floats) -> Floats:
        """Return [K] W for transmissions of ``transmit`` s."""
        b = self.bandwidth
        value: Floats = self.cell.noise * b * np.expm1(self.cell.payload / (b * transmit))
        return value

    @property
    def time(self) -> float:
        """Round time, s."""
        return float((self.cell.delay + self.compute + self.transmit).max())

    @property
    def objective(self) -> float:
        """lam T + sum W E."""
        energy = (self.power + self.cell.circuit_power) * self.transmit + self.cell.compute_energy(
            self.compute
        )
        return objective(self.cell, self.time, energy)

    def power_step(self, inner: int = INNER) -> None:
        """Powers, times and clocks at given bandwidths: convex approximations (2.10) until they settle."""
        for _ in range(inner):
            before = self.objective
            transmit, compute = self.transmit, self.compute
            self._approximate()
            if self.objective > before:  # rounding
                self.transmit, self.compute = transmit, compute
            if before - self.objective <= STOP * before:
                break

    def _approximate(self) -> None:
        """Minimise with p t <= ((t0 / p0) p^2 + (p0 / t0) t^2) / 2 in place of p t, and P_c t beside it."""
        cell, b = self.cell, self.bandwidth
        power = self.power
        ratio = power / self.transmit
        least = least_transmit(cell, b)

        def slope(t: Floats) -> Floats:
            """Minus the derivative of the approximate energy, W."""
            x = cell.payload / (b * t)
            radio = cell.noise * b
            value: Floats = (
                radio**2 * np.expm1(x) * np.exp(x) * x / (ratio * t) - ratio * t - cell.circuit_power
            )
            return value

        # where the approximation is least; beyond it a device idles
        idle = bisect(
            lambda u: np.clip(slope(np.exp(u)) / power, -1, 1), np.log(least), np.log(4 * self.transmit)
        )
        ceiling = np.maximum(np.exp(idle), least)

        def times(time: float) -> tuple[Floats, Floats, Floats]:
            longest = np.maximum(np.minimum(time - cell.busy, ceiling), least)
            t = longest
            if cell.cycles.any():
                span = time - cell.delay

                def balance(t: Floats) -> Floats:
                    tau = np.maximum(span - t, cell.least_compute)
                    value: Floats = (slope(t) - cell.slowing_gain(tau)) / power
                    return np.minimum(np.maximum(value, -1.0), 1.0)  # np.clip, without its detours

                t = bisect(balance, least, longest, tolerance=1e-11)
            tau = np.maximum(time - cell.delay - t, cell.least_compute)
            tau = np.where(cell.cycles > 0, tau, 0.0)
            price = cell.weight * np.maximum(np.maximum(slope(t), cell.slowing_gain(tau)), 0.0)
            return t, tau, price

        shortest, lam = shortest_round(cell, b), cell.latency_weight

        def worth(log_time: float) -> float:
            total = float(times(float(np.exp(log_time)))[2].sum())
            return (total - lam) / max(total + lam, TINY)

        top = np.log(cell.deadline) if cell.deadline > shortest else np.log(shortest)
        log_time = decreasing_root(
            worth,
            float(np.log(max(self.time, shortest))),
            low=float(np.log(shortest)),
            high=float(top),
            tolerance=1e-12,
        )
        self.transmit, self.compute, _ = times(float(np.exp(log_time)))

    def bandwidth_step(self) -> None:
        """Bandwidths at given powers and clocks."""
        fixed = replace(
            self.cell,
            max_power=self.power,
            delay=self.cell.delay + self.compute,
            cycles=np.zeros(len(self.cell)),
            energy_cap=np.full(len(self.cell), np.inf),
        )
        try:
            answer = MarketAtPower(fixed, respond=at_power).solve().answer
        except Impossible:  # rounding at the deadline
            return
        before = self.bandwidth, self.transmit, self.objective
        self.bandwidth, self.transmit = answer.bandwidth, answer.transmit
        if self.objective > before[2]:
            self.bandwidth, self.transmit = before[:2]

    def matching_step(self) -> None:
        """Move one subchannel from a device to another, the pair that gains most, while the cost falls."""
        cell, power = self.cell, self.power
        while True:
            more, less = self.bandwidth + self.unit, self.bandwidth - self.unit
            now = cell.delay + self.compute + self.transmit
            with np.errstate(divide="ignore", invalid="ignore"):
                up = cell.payload / (more * np.log1p(power / (cell.noise * more)))
                down = cell.payload / (less * np.log1p(power / (cell.noise * less)))
            down[less < self.unit / 2] = np.inf
            ranked = np.sort(now)[::-1]
            third = np.append(ranked, [-np.inf, -np.inf])[:3]
            offset = cell.delay + self.compute
            giver, taker = offset + down, offset + up
            others = _largest_without_two(now, third)
            latest = np.maximum(others, np.maximum(giver[:, None], taker[None, :]))
            spent = cell.weight * (power + cell.circuit_power)
            with np.errstate(invalid="ignore"):
                change = cell.latency_weight * (latest - self.time) + (
                    (spent * (down - self.transmit))[:, None] + (spent * (up - self.transmit))[None, :]
                )
            change = np.where(np.isfinite(change) & (latest <= cell.deadline), change, np.inf)
            np.fill_diagonal(change, np.inf)
            i, j = np.unravel_index(np.argmin(change), change.shape)
            if not change[i, j] < -STOP * self.objective:
                return
            self.bandwidth = self.bandwidth.copy()
            self.transmit = self.transmit.copy()
            self.bandwidth[i], self.transmit[i] = less[i], down[i]
            self.bandwidth[j], self.transmit[j] = more[j], up[j]
            power = self.power


def _largest_without_two(values: Floats, largest: Floats) -> Floats:
    """Return [K, K]: the largest of ``values`` [K] without those of row and column; ``largest`` are the first three."""
    first, second = np.argsort(values)[::-1][:2] if len(values) > 1 else (0, 0)
    rows, columns = np.indices((len(values), len(values)))
    no_first = (rows == first) | (columns == first)
    no_second = (rows == second) | (columns == second)
    value: Floats = np.where(~no_first, largest[0], np.where(~no_second, largest[1], largest[2]))
    return value


class MarketAtPower(Market):
    """A market of devices that must send at full power."""

    def least_bandwidth(self, time: float) -> Floats:
        """Return [K] Hz at which each is done at ``time``, or at the end of what its radio may take."""
        cell = self.cell
        t = np.minimum(time - cell.busy, cell.corner)
        found: Floats = cell.payload / (inverse_growth(cell.snr_bandwidth * t / cell.payload) * t)
        return found


def at_power(cell: Cell, time: float, price: float, near: Response | None) -> Response:
    """Return answers where every device must send at ``cell.max_power``: on the curve of (2.6), within its cap."""
    longest = np.minimum(time - cell.busy, cell.corner)
    snr = cell.snr_bandwidth
    x = inverse_growth(snr * longest / cell.payload)
    spent = cell.weight * (cell.max_power + cell.circuit_power)
    idle = np.flatnonzero(power_balance(cell, x, price) < spent)  # less time, more bandwidth would be cheaper
    if idle.size:
        part, cost = cell.take(idle), spent[idle]
        u = bisect(
            lambda u: np.log(power_balance(part, np.exp(u), price) / cost),
            np.log(x[idle]) - 60,
            np.log(x[idle]),
        )
        x[idle] = np.exp(u)
    t = cell.payload * growth(x) / snr
    zeta = np.maximum(power_balance(cell, x, price) - spent, 0.0)
    zeta[idle] = 0.0
    return Response(x, x, cell.payload / (x * t), t, cell.least_compute, zeta, np.zeros(len(cell), bool))
