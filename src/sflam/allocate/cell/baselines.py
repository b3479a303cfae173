"""What one would do without a solver: equal shares, equal bandwidth with the best powers, random shares."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sflam.allocate.cell import optimal
from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.bits import best_common
from sflam.allocate.cell.fixed_bandwidth import best_round, shares
from sflam.allocate.cell.limits import Impossible
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.plan import Plan


def equal(problem: Problem) -> Plan:
    """Return equal bandwidth, full power, full speed."""
    return _direct(problem, "equal", equal_shares)


def equal_bandwidth(problem: Problem) -> Plan:
    """Return equal bandwidth with the best powers and clocks for it: what (2.10) alone converges to."""

    def decide(cell: Cell) -> Shares:
        bandwidth = np.full(len(cell), cell.bandwidth / len(cell))
        _, times = best_round(cell, bandwidth)
        return shares(cell, bandwidth, times.transmit, times.compute)

    return _direct(problem, "equal-bandwidth", decide)


def random(problem: Problem, seed: int = 0) -> Plan:
    """Return random shares of the band, powers and clocks: uniform on the simplex, uniform up to the limit."""
    draw = np.random.default_rng(seed)

    def decide(cell: Cell) -> Shares:
        count = len(cell)
        bandwidth = draw.dirichlet(np.ones(count)) * cell.bandwidth
        power = (1 - draw.random(count)) * cell.max_power
        clocks = (1 - draw.random(count)) * cell.max_clock if cell.cycles.any() else cell.max_clock
        return Shares(bandwidth=bandwidth, power=power, clock=clocks)

    return _direct(problem, "random", decide)


def equal_shares(cell: Cell) -> Shares:
    """Return equal bandwidth, full power, full speed."""
    count = len(cell)
    return Shares(
        bandwidth=np.full(count, cell.bandwidth / count), power=cell.max_power, clock=cell.max_clock
    )


def _direct(problem: Problem, method: str, decide: Callable[[Cell], Shares]) -> Plan:
    began = clock.perf_counter()
    try:
        decided = decide(problem.cell)
    except Impossible as impossible:
        return problem.no_plan(method, *impossible.advice, solve_s=clock.perf_counter() - began)
    return problem.plan(method, decided, solve_s=clock.perf_counter() - began)


def fixed_bits(problem: Problem, width: int | None = None) -> Plan:
    """Return the optimal plan at one width for all devices, the best one by default."""
    began = clock.perf_counter()
    try:
        chosen = best_common(problem.change(bits=problem.widths[0]))[0] if width is None else width
    except Impossible as impossible:
        return problem.no_plan("fixed-bits", *impossible.advice, solve_s=clock.perf_counter() - began)
    plan = optimal.solve(problem.change(bits=chosen), "fixed-bits")
    return replace(plan, solve_s=clock.perf_counter() - began)
