"""What one more unit of each limit of (2.1) is worth: the multipliers of its optimum.

At the optimum, with zeta_k the worth of a second of device k, w = W + multipliers of its caps on radio energy, and n
the multiplier of its power, bandwidth and time are balanced (G, x and psi as in 2.2):

    w t psi(x) + n psi(x) = mu / G
    w t psi(x) + n x e^x  = (zeta + w P_c) t / (G b)
    n = (zeta t / b - mu (1 - c / psi(x))) / (G (e^x - 1 + c)),  c = P_c / (G b)

A cap on computing is a limit on tau: E = kappa C^3 / tau^2, so that a joule more is worth zeta - w 2 kappa C^3 / tau^3
for each of its tau / (2 E) seconds. Where time is shared, energy is a function of x alone, and both multipliers of the
radio are slopes of it (:mod:`sflam.allocate.cell.airtime`).
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.airtime import AirtimeCell, radio_worths
from sflam.allocate.cell.barrier import StageSolution
from sflam.allocate.cell.best_response import Response
from sflam.allocate.cell.problem import Problem
from sflam.allocate.curves import psi
from sflam.cost.energy import computing_j
from sflam.network.network import Floats
from sflam.plan import ShadowPrices

TIGHT = 1e-7
"""Relative distance from a limit up to which it binds."""


def shadow_prices(problem: Problem, time: float, price: float, answer: Response) -> ShadowPrices:
    """Return the multipliers of the optimum.

    Args:
        problem: what was solved.
        time: T of its cell, s.
        price: mu, 1/Hz.
        answer: of the devices at both.
    """
    cell, network = problem.cell, problem.network
    b, t, x = answer.bandwidth, answer.transmit, answer.efficiency
    extra = np.zeros(len(cell)) if answer.extra is None else answer.extra
    second = answer.time_price + extra * cell.idle_power
    hertz, airtime = price, 0.0
    if isinstance(cell, AirtimeCell):
        power, radio, hertz = radio_worths(cell, price, answer, extra, TIGHT)
        airtime = price * float(network.bandwidth[problem.server])
    else:
        hot = cell.noise * b * np.expm1(x) >= cell.max_power * (1 - TIGHT)
        fed = cell.circuit_power / (cell.noise * b)
        balance = np.maximum(second * t / b - price * (1 - fed / psi(x)), 0.0)
        power = np.where(hot, balance / (cell.noise * (np.expm1(x) + fed)), 0.0)
        weight = (price / (cell.noise * psi(x)) - power) / t
        full = x >= cell.efficiency_within(t) * (1 - TIGHT)
        radio = np.where(full, np.maximum(weight - cell.weight - extra, 0.0), 0.0)

    caps = {name: problem.each(name).astype(float) for name in ("radio_cap", "compute_cap", "energy_cap")}
    clock = cell.max_clock
    computing = computing_j(problem.cycles, clock, network.kappa)
    left = caps["energy_cap"] - computing - problem.received_j
    shared = ~np.isinf(caps["energy_cap"]) & (left < caps["radio_cap"])
    shared &= not problem.choose_clocks  # there, the cap on all energy leaves its rest to the radio
    joint = extra + np.where(shared, radio, 0.0)
    slowed = (clock < network.max_clock * (1 - 1e-12)) & (computing >= caps["compute_cap"] * (1 - TIGHT))
    counted = joint + (cell.weight if problem.choose_clocks else 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        tau = problem.cycles / clock
        saved = 2 * network.kappa * clock**3
        joule = (second - counted * saved) * tau / (2 * computing)
    at_full_speed = slowed & ((answer.compute <= tau * (1 + TIGHT)) | (not problem.choose_clocks))
    late = time >= cell.deadline * (1 - 1e-12)
    beyond = float(answer.time_price.sum()) - cell.latency_weight
    return ShadowPrices(
        bandwidth=problem.rounds * hertz,
        airtime=problem.rounds * airtime,
        deadline=problem.rounds * max(beyond, 0.0) if late else 0.0,
        power=problem.rounds * power / network.amplifier_efficiency,
        radio_cap=problem.rounds * np.where(shared, 0.0, radio),
        compute_cap=problem.rounds * np.where(at_full_speed, joule, 0.0),
        energy_cap=problem.rounds * joint,
    )


def stage_worths(cell: AirtimeCell, found: StageSolution) -> tuple[float, Floats]:
    """Return what a Hz of a channel whose time is shared is worth, and a drawn W of each device, [K].

    At the same slots a wider channel holds more nats at less power each, and full power reaches a smaller x.
    """
    worth, ratio = found.price, cell.snr_bandwidth / cell.channel
    x, top = found.efficiency, cell.full_efficiency
    radio = cell.sending(x, cell.payload / (cell.channel * x))
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = cell.weight + np.where(worth.radio > 0, worth.radio / radio, 0.0)
        weight = weight + np.where(worth.joint > 0, worth.joint / cell.energy_cap, 0.0)
    falls = ratio / ((1 + ratio) * top)  # -d ln x_top / d ln B = d ln x_top / d ln p_max
    full, lead = cell.full_power > 0, cell.noise * cell.payload
    wider = np.where(full, radio * (1 - falls), lead * psi(x) / x)  # of an e-fold of the channel
    taken = np.where(full, radio * (cell.max_power / (cell.max_power + cell.circuit_power) - falls), 0.0)
    hertz = float((weight * wider + worth.power * (1 - falls)).sum()) / float(cell.channel[0])
    return hertz, (worth.power * falls - weight * taken) / cell.max_power


def stage_prices(problem: Problem, found: StageSolution) -> ShadowPrices:
    """Return the multipliers of the optimum of a round of stages: an e-fold's worth, in its units."""
    cell, network, worth = problem.cell, problem.network, found.price
    assert problem.stages is not None, "the problem has no stages"
    caps = {name: problem.each(name).astype(float) for name in ("radio_cap", "compute_cap", "energy_cap")}
    computing = computing_j(problem.cycles, cell.max_clock, network.kappa)
    with np.errstate(divide="ignore", invalid="ignore"):
        radio = np.where(np.isfinite(cell.radio_cap), worth.radio / cell.radio_cap, 0.0)
        joint = np.where(np.isfinite(cell.energy_cap), worth.joint / cell.energy_cap, 0.0)
    left = caps["energy_cap"] - computing - problem.received_j
    shared = ~np.isinf(caps["energy_cap"]) & (left < caps["radio_cap"]) & (not problem.choose_clocks)
    joint = joint + np.where(shared, radio, 0.0)
    slowed = (cell.max_clock < network.max_clock * (1 - 1e-12)) & (
        computing >= caps["compute_cap"] * (1 - TIGHT)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        if problem.choose_clocks:  # the fastest clock is the root of the cap
            joule = worth.clock / (2 * caps["compute_cap"])
        else:
            tau = problem.cycles / cell.max_clock
            second = (found.second * problem.stages.compute).sum(axis=0)
            joule = (second - joint * 2 * network.kappa * cell.max_clock**3) * tau / (2 * computing)
    late = float(worth.deadline) / cell.deadline if np.isfinite(cell.deadline) else 0.0
    hertz, airtime, watt = found.bandwidth_price, 0.0, worth.power / network.max_power
    if isinstance(cell, AirtimeCell):
        hertz, watt = stage_worths(cell, found)
        airtime, watt = float(worth.band), watt / network.amplifier_efficiency
    return ShadowPrices(
        bandwidth=problem.rounds * hertz,
        airtime=problem.rounds * airtime,
        deadline=problem.rounds * late,
        power=problem.rounds * watt,
        radio_cap=problem.rounds * np.where(shared, 0.0, radio),
        compute_cap=problem.rounds * np.where(slowed, joule, 0.0),
        energy_cap=problem.rounds * joint,
    )
