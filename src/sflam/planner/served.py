"""The plan of a served round, from what was measured of its devices: bits for each, and seconds of every phase.

A device's round is a chain of its phases, whose seconds follow from its rates and the bits that cross, of which those
up, down or both are chosen. A served run has no energy to count, so that the objective is (2.16) with lambda = 1,

    min over q, q'   (1 + sum_k chi_k v(q_k) + chi'_k v(q'_k)) max_k T_k(q_k, q'_k)

- ``network.access = "fdma"``: every device has a way of its own. Given T each takes the least noise that its chain
  allows, so the best T is one of the chains' own lengths: all are tried. Bits that are worth next to nothing are then
  spared; the gap is to the exact optimum.
- ``network.access = "airtime"``: devices share one way, and the allocators of problem A share its time out.

K devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sflam.allocate.cell import bits_both
from sflam.allocate.cell.problem import Problem
from sflam.allocate.registry import allocate
from sflam.config import Job
from sflam.cost.convergence import quantization_noise
from sflam.errors import AllocationError
from sflam.network.channel import gain_of_rate
from sflam.network.network import Floats, Network
from sflam.plan import Status
from sflam.planner.cell import problem_of
from sflam.workload import Workload

BAND = 1e8
"""Hz of the channel that stands for a shared way; what it carries is measured, so that its band is of no account."""
NOISE, POWER = 1e-20, 1.0
QUICK_CLOCK, QUICK_WORK = 1e12, 1e8
"""Of devices whose computing is counted as measured seconds, and not as cycles."""
LEAST_RATE, MOST_RATE = 1.0, 1e11
"""bit/s that a rate is planned with at least and at most, whatever was measured."""
SPARE = 1e-3
"""Of the objective that bits may be worth and still be spared: where a way turns slow they would cost much."""
MOST_SECONDS = 1e6
"""Of a phase: what a device claims is no reason to stop."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was measured of a device.

    Attributes:
        up: bit/s of its way to the server, when it has that for itself.
        down: bit/s of the way back.
        compute_s: s of computing on a sample.
        exchange_s: s that an exchange takes beside its bytes and the server.
        wait_s: s from a body to its answer.
        whole: whether all of it was measured; a probe knows the ways alone.
    """

    up: float
    down: float = MOST_RATE
    compute_s: float = 0.0
    exchange_s: float = 0.0
    wait_s: float = 0.0
    whole: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedPlan:
    """What the devices of a served round are given, and the seconds that are expected of each; [K] each.

    Attributes:
        bits_up: of an activation value.
        bits_down: of a gradient value.
        rate: bit/s to send with.
        compute_s: s of computing.
        up_s: s in which the bodies of steps go up.
        wait_s: s of waiting for answers.
        down_s: s in which answers come, and of what an exchange takes beside its bytes.
        adapter_s: s in which adapters come and go.
        rounds: to learn, over those without quantization.
        gap: certified distance from the best; None without a bound.
    """

    bits_up: NDArray[np.int64]
    bits_down: NDArray[np.int64]
    rate: Floats
    compute_s: Floats
    up_s: Floats
    wait_s: Floats
    down_s: Floats
    adapter_s: Floats
    rounds: float
    gap: float | None

    @property
    def finish(self) -> Floats:
        """s of each device's round."""
        total: Floats = self.compute_s + self.up_s + self.wait_s + self.down_s + self.adapter_s
        return total

    @property
    def seconds(self) -> float:
        """s of the round."""
        return float(self.finish.max())


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRound:
    """A served round to be planned.

    Attributes:
        job: its ``[plan]``, ``[quant]`` and ``network.access``.
        workload: what a mini-batch costs.
        own: what it costs each device, where ranks or tuned blocks differ; else empty.
        cuts: [K] blocks on each.
        rows: [K] samples of each device's round.
        exchanges: [K] bodies of its steps.
        rates: [K].
        bits_up: [K] of an activation value, where they are not chosen.
        bits_down: [K] of a gradient value, likewise.
    """

    job: Job
    workload: Workload
    own: tuple[Workload, ...]
    cuts: NDArray[np.int64]
    rows: Floats
    exchanges: Floats
    rates: tuple[Rates, ...]
    bits_up: NDArray[np.int64]
    bits_down: NDArray[np.int64]

    def column(self, name: str) -> Floats:
        """Return [K] of what was measured, held within what can be planned with."""
        least, most = (LEAST_RATE, MOST_RATE) if name in ("up", "down") else (0.0, MOST_SECONDS)
        values = np.nan_to_num([getattr(rate, name) for rate in self.rates], nan=least, posinf=most)
        found: Floats = np.clip(values, least, most)
        return found

    @property
    def fixed(self) -> Floats:
        """[K] s that bits do not change."""
        computing = self.column("compute_s") * self.rows
        total: Floats = computing + (self.column("wait_s") + self.column("exchange_s")) * self.exchanges
        return total

    @property
    def steps(self) -> Floats:
        """[K] mini-batches of each device's round."""
        found: Floats = self.rows / self.job.learn.batch
        return found

    def problem(self) -> Problem:
        """Return problem A with seconds in place of cycles, on a channel that carries what was measured."""
        rate, one, none = self.column("up"), np.ones(len(self.rates)), np.zeros(len(self.rates))
        band = max(BAND, float(rate.max()))
        network = Network(
            gain=gain_of_rate(rate, band, POWER * one, NOISE)[None, :],
            max_power=POWER * one,
            max_clock=QUICK_CLOCK * one,
            flops_per_cycle=QUICK_WORK * one,
            kappa=none,
            static_power=none,
            memory=np.inf * one,
            energy_weight=one,
            noise=NOISE,
            bandwidth=np.array([band]),
            server_clock=np.array([1e9]),
            server_flops_per_cycle=np.array([1e5]),
            server_kappa=np.zeros(1),
            full_power=one,
            airtime=1.0,
        )
        wish = replace(self.job.plan, counts="all", optimize=(), latency_weight=1.0, timing="chain")
        job = replace(
            self.job, plan=wish, network=replace(self.job.network, downlink_mbps=0.0, scenario="cell")
        )
        return problem_of(
            job,
            cut=self.cuts,
            bits=self.bits_up,
            bits_down=self.bits_down,
            server=False,
            network=network,
            workload=self.workload,
            steps=self.steps,
            own=self.own,
        )

    def placed(self, problem: Problem) -> Problem:
        """Return the problem with the seconds of all but the way up as each device's delay."""
        down = self.fixed + problem.down_bits / self.column("down")
        return problem.change(delay=down / self.steps)


def plan_served(served: MeasuredRound, *, choose: bool = True) -> ServedPlan:
    """Return the plan of a round; without ``choose`` with the bits that are in force.

    Raises:
        AllocationError: no bits keep ``plan.deadline``.
    """
    wish = served.job.plan.optimize if choose else ()
    problem = served.problem()
    if served.job.network.access == "airtime":
        return _shared(served, problem, wish)
    return _apart(served, problem, wish)


def too_late(served: MeasuredRound) -> tuple[int, ...]:
    """Return the devices, by their place, whose shortest chain is longer than ``plan.deadline``."""
    deadline = served.job.plan.deadline
    if not deadline:
        return ()
    times, _, _ = _chains(served, served.problem(), served.job.plan.optimize)
    return tuple(np.flatnonzero(times.min(axis=(1, 2)) > deadline).tolist())


def _widths(problem: Problem, name: str, *, chosen: bool) -> NDArray[np.int64]:
    """Return the widths [Q, K] that each device has to choose from; its own alone where none are chosen."""
    own = problem.each(name)
    return np.array(problem.widths)[:, None] + np.zeros_like(own) if chosen else own[None, :]


def _chains(
    served: MeasuredRound, problem: Problem, wish: Sequence[str]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Return the s [K, Q, D] of every device's chain on a way of its own, and the widths up [Q, K] and down [D, K]."""
    ups = _widths(problem, "bits", chosen="bits" in wish)
    downs = _widths(problem, "bits_down", chosen="bits_down" in wish)
    sent = np.stack([problem.change(bits=each).payload for each in ups]) / np.log(2)
    up, down = (
        sent / served.column("up"),
        np.stack([problem.change(bits_down=each).down_bits for each in downs]) / served.column("down"),
    )
    times: Floats = served.fixed[:, None, None] + up.T[:, :, None] + down.T[:, None, :]
    return times, ups, downs


def _apart(served: MeasuredRound, problem: Problem, wish: Sequence[str]) -> ServedPlan:
    """Return the exact optimum of devices with ways of their own."""
    times, ups, downs = _chains(served, problem, wish)
    count = len(served.rates)
    chi, chi_down = problem.each("sensitivity"), problem.each("sensitivity_down")
    noise = (
        chi[:, None, None] * quantization_noise(ups).T[:, :, None]
        + chi_down[:, None, None] * quantization_noise(downs).T[:, None, :]
    )
    flat_t, flat_v = times.reshape(count, -1), noise.reshape(count, -1)
    # the soonest first, and of equally noisy ones the soonest
    order = np.argsort(flat_t, axis=1, kind="stable")
    sorted_t, sorted_v = (np.take_along_axis(each, order, 1) for each in (flat_t, flat_v))
    least_v = np.minimum.accumulate(sorted_v, axis=1)
    fresh = np.concatenate([np.full((count, 1), True), least_v[:, 1:] < least_v[:, :-1]], axis=1)
    ends = np.unique(sorted_t[fresh])
    ends = ends[ends >= sorted_t[:, 0].max()]
    ends = np.unique(np.append(ends, sorted_t[:, 0].max()))
    deadline = problem.deadline
    if not (ends <= deadline).any():
        raise AllocationError(
            f"the shortest round takes {ends[0]:.4g} s, longer than plan.deadline = {deadline:g}; raise it, or set "
            'plan.late = "drop" to leave devices out that cannot keep it'
        )
    ends = ends[ends <= deadline]
    at = [np.searchsorted(sorted_t[k], ends, side="right") - 1 for k in range(count)]
    total = sum((least_v[k][at[k]] for k in range(count)), np.zeros(len(ends)))
    best = int(np.argmin((1.0 + total) * ends))
    spare = SPARE * (1.0 + total[best]) / count
    place = np.array(
        [order[k][int(np.argmax(sorted_v[k] <= least_v[k][at[k][best]] + spare))] for k in range(count)]
    )
    every = np.arange(count)
    bits, bits_down = ups[place // len(downs), every], downs[place % len(downs), every]
    found = problem.change(bits=bits, bits_down=bits_down)
    plan = _phases(served, found, np.ones(count), 0.0)
    optimum = (1.0 + float(total[best])) * float(ends[best])
    return replace(plan, gap=max(0.0, plan.rounds * plan.seconds / optimum - 1.0))


def _shared(served: MeasuredRound, problem: Problem, wish: Sequence[str]) -> ServedPlan:
    """Return the plan of devices that share one way."""
    problem = served.placed(problem)
    if "bits" in wish and "bits_down" in wish:
        plan = bits_both.solve(problem, served.placed)
    else:
        plan = allocate(problem, "bits" if "bits" in wish else "optimal")
    if not len(plan.devices) or plan.status is Status.INFEASIBLE:
        raise AllocationError(
            f'no plan holds the limits: {"; ".join(plan.advice)}; raise plan.deadline, or set plan.late = "drop"'
        )
    given = plan.devices
    down = given.bits_down if given.bits_down.any() else problem.each("bits_down")
    found = problem.change(bits=given.bits, bits_down=down)
    gap = plan.gap if np.isfinite(plan.gap) else None
    return _phases(served, found, np.asarray(given.airtime, float), gap)


def _phases(served: MeasuredRound, problem: Problem, share: Floats, gap: float | None) -> ServedPlan:
    """Return a plan with the seconds of its phases, where each device has a share of what its way carries."""
    up, down = served.column("up") * share, served.column("down")
    handed, fetched = problem.adapter_bits_up, problem.adapter_bits_down
    return ServedPlan(
        bits_up=problem.each("bits"),
        bits_down=problem.each("bits_down"),
        rate=up,
        compute_s=served.column("compute_s") * served.rows,
        up_s=(problem.payload / np.log(2) - handed) / up,
        wait_s=served.column("wait_s") * served.exchanges,
        down_s=served.column("exchange_s") * served.exchanges + (problem.down_bits - fetched) / down,
        adapter_s=handed / up + fetched / down,
        rounds=problem.rounds,
        gap=gap,
    )
