"""Block coordinate descent that chooses bits too: SFLAM's quantization step, alternating with its other steps.

Starting at the widest codes, a bit is removed where the objective (2.16) falls: more noise costs rounds, less payload
saves time and energy. One device at a time, or all at once: where all finish together, no single device shortens the
round. Bandwidth and power keep their values; the other steps then use the time gained.
"""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.bcd import INNER, ROUNDS, STOP, Blocks, expect_enough
from sflam.allocate.cell.bits import Bits
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import Found, planned, score
from sflam.cost.convergence import quantization_noise
from sflam.cost.energy import computing_j, sending_j
from sflam.network.channel import rate_in_nats
from sflam.network.network import Floats


@planned("bcd-bits")
def solve(problem: Problem, *, subchannels: int = 0, inner: int = INNER) -> Found:
    """Return the plan that the descent over power, bandwidth and bits reaches; it has no bound of its own.

    Args:
        problem: its ``bits`` are not used; its ``sensitivity`` gives the value of a bit.
        subchannels: how many equal subchannels the band has, matched as in ``bcd-matching``; 0 for a continuous one.
        inner: convex approximations of one power step at most.
    """
    expect_enough(problem, subchannels)
    now = problem.change(bits=problem.widths[-1])
    held: Shares | None = None
    history: list[float] = []
    for _ in range(ROUNDS):
        block = Blocks(now.cell, held, subchannels)
        block.power_step(inner)
        if subchannels:
            block.matching_step()
        else:
            block.bandwidth_step()
        held = block.shares()
        history.append(now.total(block.objective))
        fewer = bits_step(now, held)
        settled = len(history) > 1 and history[-2] - history[-1] <= STOP * history[-2]
        settled = settled and np.array_equal(fewer, now.each("bits"))
        now = now.change(bits=fewer)
        if settled:
            break
    assert held is not None
    return Found(problem=now, shares=held, history=(*history, score(now, held).objective))


def bits_step(problem: Problem, held: Shares) -> Bits:
    """Return the bits [K] after taking bits away while the objective falls; what is held stays as it is."""
    widths = np.array(problem.widths)
    sizes = np.array([problem.payload_at(int(width)) for width in widths])  # [W, K] nats
    noise = quantization_noise(widths)
    network, lam = problem.network, problem.latency_weight
    second = problem.time_weight
    rate = rate_in_nats(held.bandwidth, held.power, network.gain[problem.server], network.noise)
    busy: Floats = problem.each("local_steps") * problem.each("delay") + problem.cycles / held.clock
    weight = (1 - lam) * network.energy_weight
    computing = computing_j(problem.cycles, held.clock, network.kappa)
    fixed = float(weight @ computing) if problem.choose_clocks else 0.0
    fixed += float(weight @ problem.received_j)
    drawn = sending_j(held.power, 1.0, network.amplifier_efficiency, network.circuit_power)
    level = np.searchsorted(widths, problem.each("bits"))
    lowest = np.searchsorted(widths, problem.widest(widths[0]))

    def payload(level: Bits) -> Floats:
        return sizes[level, np.arange(len(level))]

    def cost(level: Bits) -> float:
        sent = payload(level) / rate
        rounds = 1.0 + float(problem.each("sensitivity") @ noise[level])
        time = problem.base_s + float((busy + sent).max())
        energy = float(weight @ (drawn * sent)) + fixed + (1 - lam) * problem.base_j
        return rounds * (second * time + energy)

    best = cost(level)
    while True:
        lower = np.maximum(level - 1, lowest)
        moves = [lower]
        sent, less = payload(level) / rate, payload(lower) / rate
        single = _best_single(level, lower, sent, less, noise, busy, weight * drawn, problem, fixed)
        if single is not None:
            moves.append(np.where(np.arange(len(level)) == single, level - 1, level))
        found = min(moves, key=cost)
        if not cost(found) < best * (1 - STOP):
            return np.asarray(widths[level], np.int64)
        level, best = found, cost(found)


def _best_single(
    level: Bits,
    lower: Bits,
    sent: Floats,
    less: Floats,
    noise: Floats,
    busy: Floats,
    spent: Floats,
    problem: Problem,
    fixed: float,
) -> int | None:
    """Return the device that gains most from one bit less, ``lower``; None where all have the fewest.

    Sending takes ``sent`` s now and ``less`` with a bit less.
    """
    free = level > lower
    if not free.any():
        return None
    finish = busy + sent
    order = np.argsort(finish)
    others = np.full(len(level), finish[order[-1]])
    others[order[-1]] = finish[order[-2]] if len(level) > 1 else -np.inf
    second = problem.time_weight
    time = problem.base_s + np.maximum(others, busy + less)
    energy = spent @ sent - spent * (sent - less) + fixed + (1 - problem.latency_weight) * problem.base_j
    chi = problem.each("sensitivity")
    rounds = 1.0 + chi @ noise[level] + chi * (noise[lower] - noise[level])
    return int(np.argmin(np.where(free, rounds * (second * time + energy), np.inf)))
