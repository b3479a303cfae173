"""Devices that wait for each other at every step: rounds played event by event, and a general solver of their plans."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.cost.timing import expected_steps
from sflam.plan import Plan
from tests.allocate.cell.builders import WORK


def waiting(problem: Problem, seed: int) -> Problem:
    """Return the problem with steps of its own for each device, some ragged, and a wait for all at every one."""
    draw = np.random.default_rng(seed)
    steps = draw.integers(1, 5, len(problem)) - draw.choice([0.0, 0.0, 0.3, 0.75], len(problem))
    lockstep = expected_steps(WORK, steps, len(problem))
    receiving = problem.each("delay") * draw.choice([0.0, 1.0])
    return problem.change(local_steps=steps, lockstep=lockstep, receiving=receiving)


def played(problem: Problem, shares: Shares) -> float:
    """Return the s of a round, event by event: each device on its own clock, the trunk once all are there."""
    network, steps = problem.network, problem.each("local_steps")
    rate = shares.bandwidth * np.log2(1 + shares.power * network.gain[0] / (network.noise * shares.bandwidth))
    rate, slots = rate * shares.airtime, problem.each("receiving") * (1 / shares.airtime - 1)
    now, number = 0.0, int(np.ceil(steps.max()))
    free = np.zeros(len(problem))
    for step in range(number):
        rows = np.clip(steps - step, 0, 1)
        here = np.flatnonzero(rows)
        arrived = []
        for k in here:
            cut, work = problem.each("cut")[k], problem.workload
            speed = shares.clock[k] * network.flops_per_cycle[k]
            ahead = rows[k] * work.device_forward[cut] / speed
            sent = rows[k] * work.up_bits(int(problem.each("bits")[k])) / rate[k]
            arrived.append(free[k] + ahead + sent)
        now = max(arrived)  # the trunk's turn is counted apart, in T0
        back = []
        for k in here:
            cut, work = problem.each("cut")[k], problem.workload
            speed = shares.clock[k] * network.flops_per_cycle[k]
            back.append(
                now
                + rows[k] * (problem.each("delay") + slots)[k]
                + rows[k] * work.device_backward[cut] / speed
            )
        now = max(back)  # all wait for all
        free[:] = now
    return now


def general(problem: Problem, shares: Shares) -> float:
    """Return the least objective that SLSQP finds in logarithms of bandwidths, powers, clocks and stages' times.

    Where time is shared, what is called b here is a share of it times the channel.
    """
    network, count, work = problem.network, len(problem), problem.workload
    gain, weight = network.gain[0], network.energy_weight * (1 - problem.latency_weight)
    steps, cut = problem.each("local_steps"), problem.each("cut")
    number = int(np.ceil(steps.max()))
    rows = np.clip(steps - np.arange(number)[:, None], 0, 1)
    ahead = np.array([work.device_forward[y] for y in cut]) / network.flops_per_cycle
    behind = np.array([work.device_backward[y] for y in cut]) / network.flops_per_cycle
    bits = np.array([work.up_bits(int(q)) for q in problem.each("bits")])
    channel, slots, size = network.bandwidth[0], bool(network.airtime), None
    heard = problem.each("receiving") * slots
    delay = problem.each("delay") - heard

    def seconds(b, p):
        over = channel if slots else b
        return bits / (b * np.log2(1 + p * gain / (network.noise * over)))

    def back(b, f):
        return delay + heard * channel / b + behind / f

    def parts(u):
        b, p, f = np.exp(u[:count]), np.exp(u[count : 2 * count]), np.exp(u[2 * count : 3 * count])
        return b, p, f, seconds(b, p), np.exp(u[3 * count :])

    def spent(u):
        b, p, f, t, times = parts(u)
        sending = t * b / channel if slots else t
        radio = (p / network.amplifier_efficiency + network.circuit_power) * sending * steps
        computing = network.kappa * f**2 * (ahead + behind) * steps
        idle = network.static_power * (problem.base_s + times.sum())
        return radio, computing, idle, problem.received_j

    def objective(u):
        radio, computing, idle, heard = spent(u)
        counted = radio + computing * problem.choose_clocks + idle + heard
        return (
            problem.latency_weight * (problem.base_s + parts(u)[4].sum())
            + (1 - problem.latency_weight) * problem.base_j
            + weight @ counted
        ) / size

    def slack(u):
        b, _, f, t, times = parts(u)
        first, second = times[:number], times[number:]
        up = 1 - rows * (ahead / f + t) / first[:, None]
        down = 1 - rows * back(b, f) / second[:, None]
        radio, computing, idle, heard = spent(u)
        found = [up.ravel(), down.ravel(), [1 - b.sum() / network.bandwidth[0]]]
        for name, joules in (
            ("radio_cap", radio),
            ("compute_cap", computing),
            ("energy_cap", radio + computing + idle + heard),
        ):
            cap = problem.each(name)
            held = np.isfinite(cap)
            found.append(1 - joules[held] / cap[held])
        if np.isfinite(problem.deadline):
            found.append([1 - (problem.base_s + times.sum()) / problem.deadline])
        return np.concatenate(found)

    def stages(b, p, f):
        first = (rows * (ahead / f + seconds(b, p))).max(axis=1)
        return np.log(1.02 * np.concatenate([first, (rows * back(b, f)).max(axis=1) + 1e-9]))

    best = np.inf
    known = network.full_power > 0
    clock = shares.clock * (0.99 if problem.choose_clocks else 1)
    near = shares.bandwidth * shares.airtime * 0.97, shares.power * np.where(known, 1, 0.97), clock
    even = np.full(count, channel / count), np.where(known, 1, 0.6) * network.max_power, network.max_clock
    for b, p, f in (near, even):
        start, size = np.r_[np.log(b), np.log(p), np.log(f), stages(b, p, f)], 1.0
        size = objective(start)
        clocks = start[2 * count : 3 * count]
        tops = np.r_[
            np.full(count, np.log(network.bandwidth[0])), np.log(network.max_power), np.log(network.max_clock)
        ]
        tops = np.r_[tops, start[3 * count :] + 6]
        lows = start - 9
        lows[2 * count : 3 * count] = clocks - 4 * problem.choose_clocks
        lows[count : 2 * count][known] = start[count : 2 * count][known]
        found = minimize(
            objective,
            start,
            method="SLSQP",
            bounds=list(zip(np.minimum(lows, tops), tops, strict=True)),
            constraints={"type": "ineq", "fun": slack},
            options={"ftol": 1e-15, "maxiter": 2000},
        )
        if slack(found.x).min() > -1e-9:
            best = min(best, found.fun * size)
    return best


def given_by(plan: Plan) -> Shares:
    """Return what a plan decides."""
    each = plan.devices
    return Shares(bandwidth=each.bandwidth, power=each.power, clock=each.clock, airtime=each.airtime)
