"""Plans without a solver: equal shares, equal bandwidth with the best powers, random shares."""

from __future__ import annotations

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.bits import best_common
from sflam.allocate.cell.fixed_bandwidth import best_round, shares
from sflam.allocate.cell.optimal import optimum
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import Found, planned


@planned("equal")
def equal(problem: Problem) -> Found:
    """Return equal bandwidth, full power, full speed."""
    return Found(problem=problem, shares=equal_shares(problem.cell))


@planned("equal-bandwidth")
def equal_bandwidth(problem: Problem) -> Found:
    """Return equal bandwidth with the best powers and clocks for it: what (2.10) alone converges to."""
    cell = problem.cell
    bandwidth = np.full(len(cell), cell.bandwidth / len(cell))
    _, times = best_round(cell, bandwidth)
    return Found(problem=problem, shares=shares(cell, bandwidth, times.transmit, times.compute))


@planned("random")
def random(problem: Problem, seed: int = 0) -> Found:
    """Return random shares of the band, powers and clocks: uniform on the simplex, uniform up to the limit."""
    draw, cell = np.random.default_rng(seed), problem.cell
    count = len(cell)
    bandwidth, airtime = cell.split(draw.dirichlet(np.ones(count)) * cell.bandwidth)
    power = 1 - np.where(cell.full_power > 0, 0.0, draw.random(count))
    power = power * cell.max_power * cell.amplifier_efficiency
    clocks = (1 - draw.random(count)) * cell.max_clock if cell.cycles.any() else cell.max_clock
    drawn = Shares(bandwidth=bandwidth, power=power, clock=clocks, airtime=airtime)
    return Found(problem=problem, shares=drawn)


@planned("fixed-bits")
def fixed_bits(problem: Problem, width: int | None = None) -> Found:
    """Return the optimal plan at one width for all devices, the best one by default."""
    if width is None:
        floor = problem.widest(
            problem.widths[0]
        ).max()  # all have one width, so that the highest floor is everyone's
        width = best_common(problem.change(bits=floor, bits_floor=floor))[0]
    return optimum(problem.change(bits=width))


def equal_shares(cell: Cell) -> Shares:
    """Return equal bandwidth, full power, full speed."""
    bandwidth, airtime = cell.split(np.full(len(cell), cell.bandwidth / len(cell)))
    return Shares(
        bandwidth=bandwidth,
        airtime=airtime,
        power=cell.max_power * cell.amplifier_efficiency,
        clock=cell.max_clock,
    )
