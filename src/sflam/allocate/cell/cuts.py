"""One cut for all devices (2.6), by any method: every cut that fits the devices' memory is tried; the server's clock.

A device whose memory the cut exceeds gets the deepest one that fits. The server trains its blocks for one device after
another at its whole rate. :mod:`sflam.allocate.cell.device_cuts` gives every device a cut of its own.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from sflam.allocate.cell import optimal
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import devices
from sflam.allocate.referee import no_plan
from sflam.plan import Plan, Status

Solver = Callable[[Problem], Plan]


def server_clock(problem: Problem) -> float:
    """Return the server's best clock, Hz: min(F, (lam' / (2 (1 - lam) kappa))^(1/3)), independent of its work.

    It minimises the cost of C cycles, lam' C / f + (1 - lam) kappa f^2 C, where lam' counts what the devices draw in
    waiting for it.
    """
    network, lam, second = problem.network, problem.latency_weight, problem.time_weight
    top = float(network.server_clock[problem.server])
    price = 2 * (1 - lam) * float(network.server_kappa[problem.server])
    if price == 0 or second == 0:
        return top
    return min(top, float(np.cbrt(second / price)))


def look(problem: Problem, cut: ArrayLike, solve_at: Solver = optimal.solve) -> Plan:
    """Return the plan of ``solve_at`` at a cut, or at one a device, with the server's turn added to T0 and J0."""
    network, work = problem.network, problem.workload
    room = problem.room
    deepest = work.blocks - np.argmax(room[:, ::-1], axis=1)
    given = np.where(room.any(axis=1), np.minimum(cut, deepest), cut)
    speed = server_clock(problem)
    flops = problem.served_flop(given) @ problem.each("local_steps")
    cycles = float(flops) / float(network.server_flops_per_cycle[problem.server])
    seconds = cycles / speed if cycles else 0.0
    joules = float(network.server_kappa[problem.server]) * speed**2 * cycles
    here = problem.change(cut=given, base_s=problem.base_s + seconds, base_j=problem.base_j + joules)
    plan = replace(solve_at(here), method="cut")
    if (lowered := given < cut).any() and plan.status is not Status.INFEASIBLE:
        note = f"{devices(network, lowered)} got an earlier cut than {np.max(cut)}, for lack of memory"
        plan = replace(plan, advice=(*plan.advice, note))
    return plan


def solve(problem: Problem, cuts: Iterable[int] | None = None, solve_at: Solver = optimal.solve) -> Plan:
    """Return the best plan over cuts, without a bound: devices of their own cuts may do better.

    Args:
        problem: its cut is not used; its T0 and J0 are without the server's turn.
        cuts: the cuts to look at; all of them by default.
        solve_at: how the problem at a cut is solved.
    """
    return uncertified(
        best_common(problem, cuts, solve_at),
        "one cut for all was chosen; devices of their own cuts may do better",
    )


def best_common(problem: Problem, cuts: Iterable[int] | None, solve_at: Solver) -> Plan:
    """Return the same with the bound that it has at its own cuts; see :func:`solve`."""
    began = clock.perf_counter()
    every = range(problem.workload.blocks + 1) if cuts is None else cuts
    plans = {cut: look(problem, cut, solve_at) for cut in every}
    best = min(plans.values(), key=lambda plan: (plan.status is Status.INFEASIBLE, plan.objective))
    spent = clock.perf_counter() - began
    if best.status is not Status.INFEASIBLE:
        return replace(best, solve_s=spent)
    advice = [f"cut {cut}: {each}" for cut, plan in plans.items() for each in plan.advice]
    return no_plan("cut", *advice, solve_s=spent)


def uncertified(plan: Plan, note: str) -> Plan:
    """Return a plan without its bound, which holds for its own cuts alone."""
    if plan.status is Status.INFEASIBLE:
        return plan
    return replace(plan, lower_bound=-np.inf, status=Status.FEASIBLE, advice=(*plan.advice, note))
