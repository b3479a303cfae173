"""Cells that share the time of one channel, and a general solver in shares, powers, clocks and the round's time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from sflam.allocate.cell.problem import Problem
from sflam.plan import Plan
from tests.allocate.cell.builders import random_problem
from tests.allocate.cell.radios import drawn_radio


def sharing_time(problem: Problem, full_power: Any = 0.0) -> Problem:
    """Return the problem with the channel's time shared; ``full_power`` is 1 where only full power is known."""
    full = np.broadcast_to(np.asarray(full_power, float), (len(problem),))
    return problem.change(network=replace(problem.network, airtime=1.0, full_power=full))


def random_airtime(seed: int, most: int = 8) -> Problem:
    """Return a random cell that shares time: radios, what comes down, clocks, and rates that were measured."""
    problem = drawn_radio(random_problem(seed, most=most), seed)
    draw, count = np.random.default_rng(seed + 1), len(problem)
    if draw.random() < 0.6:
        heard = problem.each("delay") * draw.uniform(0, 1, count) * (draw.random(count) < 0.7)
        # of all together no more than a few rounds' time
        problem = problem.change(receiving=heard / count)
    return sharing_time(problem, (draw.random(count) < 0.3) * (draw.random() < 0.4))


def general(problem: Problem, plan: Plan, starts: int = 1) -> float:
    """Return the least objective that SLSQP finds in ln of shares, powers, clocks and the round, all from the physics:

    in its own slots a device sends over the whole band, for payload / rate seconds of the channel's time, and receives
    for a fixed number of them; its share of the time makes that longer.
    """
    network, count = problem.network, len(problem)
    gain, band = network.gain[0], float(network.bandwidth[0])
    steps, lam = problem.each("local_steps"), problem.latency_weight
    heard = steps * problem.each("receiving")
    other = steps * problem.each("delay") - heard
    weight = (1 - lam) * network.energy_weight
    draw = np.random.default_rng(0)
    near = np.r_[
        np.log(plan.devices.airtime * 0.97),
        np.log(plan.devices.power * np.where(network.full_power > 0, 1.0, 0.97)),
        np.log(plan.devices.clock * (0.97 if problem.choose_clocks else 1.0)),
        np.log(plan.latency * 1.1),
    ]

    def parts(v: np.ndarray) -> tuple[Any, ...]:
        share, power, clock = (
            np.exp(v[:count]),
            np.exp(v[count : 2 * count]),
            np.exp(v[2 * count : 3 * count]),
        )
        rate = band * np.log1p(power * gain / (network.noise * band))  # nat/s in its own slots
        sending = problem.payload / rate
        return share, power, clock, sending, float(np.exp(v[-1]))

    def joules(v: np.ndarray) -> tuple[np.ndarray, ...]:
        _, power, clock, sending, time = parts(v)
        sent = (power / network.amplifier_efficiency + network.circuit_power) * sending
        rest = network.static_power * time + network.receive_power * heard
        return sent, network.kappa * clock**2 * problem.cycles, rest

    def objective(v: np.ndarray) -> float:
        sent, computed, rest = joules(v)
        spent = sent + rest + (computed if problem.choose_clocks else 0.0)
        return lam * parts(v)[-1] + (1 - lam) * problem.base_j + float(weight @ spent)

    def slack(v: np.ndarray) -> np.ndarray:
        share, _, clock, sending, time = parts(v)
        sent, computed, rest = joules(v)
        done = problem.base_s + other + problem.cycles / clock + (sending + heard) / share
        room = [1 - done / time, [1 - share.sum()]]
        for name, spent in (
            ("radio_cap", sent),
            ("compute_cap", computed),
            ("energy_cap", sent + computed + rest),
        ):
            caps = problem.each(name)
            held = np.isfinite(caps)
            room.append((1 - spent / np.where(held, caps, 1.0))[held])
        if np.isfinite(problem.deadline):
            room.append([1 - time / problem.deadline])
        return np.concatenate(room)

    clocks, powers = np.log(network.max_clock), np.log(network.max_power)
    limits: list[tuple[Any, Any]] = [(None, None)] * count
    limits += [(top if full else None, top) for top, full in zip(powers, network.full_power, strict=True)]
    if problem.choose_clocks or not np.isfinite(problem.each("compute_cap")).any():
        limits += [(None if problem.choose_clocks else x, x) for x in clocks]
    else:
        limits += [(x, x) for x in np.log(plan.devices.clock)]
    limits += [(None, None)]
    # where nothing bounds a logarithm, 30 to either side of the plan's: a step of the solver may go anywhere
    low = np.array([x - 30 if end is None else end for x, (end, _) in zip(near, limits, strict=True)])
    high = np.array([x + 30 if end is None else end for x, (_, end) in zip(near, limits, strict=True)])
    limits = list(zip(low, high, strict=True))
    size, best = plan.objective, np.inf
    for turn in range(starts):
        start = np.clip(near + (draw.normal(0, 0.3, len(near)) if turn else 0.0), low, high)
        found = minimize(
            lambda v: objective(v) / size,
            start,
            method="SLSQP",
            bounds=limits,
            constraints={"type": "ineq", "fun": slack},
            options={"maxiter": 600, "ftol": 1e-14},
        )
        if slack(found.x).min() > -1e-8:
            best = min(best, objective(found.x))
    return best
