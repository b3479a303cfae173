"""Problems whose radios have amplifiers, circuits and receivers, and a general solver in all their variables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import minimize

from sflam.allocate.cell.problem import Problem
from sflam.network.channel import rate_in_nats
from sflam.plan import Plan


def with_radio(problem: Problem, circuit: Any, efficiency: Any = 1.0, receive: Any = 0.0) -> Problem:
    """Return the problem with these W drawn while sending, efficiencies, and W drawn while receiving."""
    count = len(problem)
    radio = {"circuit_power": circuit, "amplifier_efficiency": efficiency, "receive_power": receive}
    arrays = {name: np.broadcast_to(np.asarray(value, float), (count,)) for name, value in radio.items()}
    return problem.change(network=replace(problem.network, **arrays))


def drawn_radio(problem: Problem, seed: int) -> Problem:
    """Return the problem with radios drawn over orders of magnitude, none on some devices."""
    draw, count = np.random.default_rng(seed), len(problem)
    circuit = np.exp(draw.uniform(np.log(1e-3), np.log(3), count)) * (draw.random(count) < 0.8)
    return with_radio(problem, circuit, draw.uniform(0.1, 1, count), draw.uniform(0, 2, count))


def general(problem: Problem, plan: Plan, starts: int = 1) -> float:
    """Return the least objective that SLSQP finds in ln of bandwidths, powers, clocks and the round; limits hold.

    It starts near a plan, and then from far away: sending takes what it takes, and may end before the round does.
    """
    network, count = problem.network, len(problem)
    gain, weight = network.gain[0], network.energy_weight * (1 - problem.latency_weight)
    heard = network.receive_power * problem.each("local_steps") * problem.each("receiving")
    delay = problem.each("local_steps") * problem.each("delay")
    draw = np.random.default_rng(0)
    near = np.r_[
        np.log(plan.devices.bandwidth * 0.97),
        np.log(plan.devices.power * 0.97),
        np.log(plan.devices.clock * (0.97 if problem.choose_clocks else 1.0)),
        np.log(plan.latency * 1.1),
    ]

    def parts(u: np.ndarray) -> tuple[np.ndarray, ...]:
        b, p, f = np.exp(u[:count]), np.exp(u[count : 2 * count]), np.exp(u[2 * count : 3 * count])
        t = problem.payload / rate_in_nats(b, p, gain, network.noise)
        return b, p, f, t, problem.cycles / f, float(np.exp(u[-1]))

    def joules(u: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        _, p, f, t, _, time = parts(u)
        sent = (p / network.amplifier_efficiency + network.circuit_power) * t
        return sent, network.kappa * f**2 * problem.cycles, network.static_power * time + heard

    def objective(u: np.ndarray) -> float:
        sent, computed, rest = joules(u)
        spent = sent + rest + (computed if problem.choose_clocks else 0.0)
        base = (1 - problem.latency_weight) * problem.base_j
        return problem.latency_weight * parts(u)[-1] + base + float(weight @ spent)

    def slack(u: np.ndarray) -> np.ndarray:
        b, _, _, t, tau, time = parts(u)
        sent, computed, rest = joules(u)
        room = [1 - (problem.base_s + delay + t + tau) / time, [1 - b.sum() / network.bandwidth[0]]]
        for name, spent in (("radio_cap", sent), ("energy_cap", sent + computed + rest)):
            caps = problem.each(name)
            held = np.isfinite(caps)
            room.append((1 - spent / np.where(held, caps, 1.0))[held])
        if np.isfinite(problem.deadline):
            room.append([1 - time / problem.deadline])
        return np.concatenate(room)

    size = plan.objective
    limits = [(None, None)] * count + [(None, x) for x in np.log(network.max_power)]
    clocks = np.log(network.max_clock)
    limits += [(None if problem.choose_clocks else x, x) for x in clocks] + [(None, None)]
    highest = np.array([np.inf if top is None else top for _, top in limits])
    best = np.inf
    for turn in range(starts):
        start = np.minimum(near + (draw.normal(0, 0.3, len(near)) if turn else 0.0), highest)
        found = minimize(
            lambda u: objective(u) / size,
            start,
            method="SLSQP",
            bounds=limits,
            constraints={"type": "ineq", "fun": slack},
            options={"maxiter": 500, "ftol": 1e-13},
        )
        if slack(found.x).min() > -1e-7:
            best = min(best, objective(found.x))
    return best
