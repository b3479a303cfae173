"""The front between time and energy that ``sflam plan`` shows."""

from __future__ import annotations

from sflam.allocate.cell.pareto import front, frugal_round
from sflam.allocate.cell.problem import Problem
from sflam.plan import Plan


def trade(problem: Problem, near: float, points: int) -> tuple[tuple[float, float], ...]:
    """Return the front between time (s) and weighted energy (J), from the shortest round to well beyond ``near`` s.

    Points are quadratically denser towards the shortest round, where the front bends most; one is at ``near``.
    """
    first = front(problem, 2, longest=near)[0]
    shortest = first.latency
    reach = max(5 * (near - shortest), 0.5 * (shortest - problem.base_s))
    reach = min(reach, frugal_round(problem) - shortest)
    times = [shortest + reach * (index / (points - 1)) ** 2 for index in range(1, points)]
    if near > shortest * (1 + 1e-5):
        times[min(range(len(times)), key=lambda index: abs(times[index] - near))] = near
    found = [first, *(front(problem, 2, longest=time)[1] for time in times)]
    return tuple((point.latency, point.energy) for point in found)


def weighted_energy(problem: Problem, plan: Plan) -> float:
    """Return a plan's energy in J as the objective weighs it, as in the front of ``trade``."""
    if not len(plan.devices):
        return plan.energy
    spent = plan.devices.transmit_j + (plan.devices.compute_j if problem.choose_clocks else 0.0)
    spent = spent + plan.devices.idle_j + plan.devices.receive_j
    return plan.energy + float((problem.network.energy_weight - 1) @ spent)
