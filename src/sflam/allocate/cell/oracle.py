"""A general convex solver on the same problem, for checking (section 2.2): cvxpy with Clarabel, only if installed.

At a fixed round time and fixed clocks a device's energy is convex in its bandwidth alone,

    E(b) = G t b (e^{a / (b t)} - 1)     one exponential cone per device

and with clocks chosen the whole problem has one convex form (Theorem 1): ln x + ln b + ln t >= ln a, and the energy
G a (e^x - 1) / x by Gauss-Legendre quadrature of its integral. Quantities are scaled to about 1, or Clarabel fails.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from sflam.allocate.cell.arrays import Cell
from sflam.allocate.cell.fixed_bandwidth import shares, shortest_round
from sflam.allocate.cell.problem import Problem
from sflam.allocate.limits import Impossible
from sflam.allocate.referee import Found, planned
from sflam.errors import AllocationError
from sflam.network.network import Floats

NODES = 12
ATTEMPTS = (
    (1e-9, 1.0),
    (1e-8, 1.0),
    (1e-8, 10.0),
    (1e-7, 0.1),
    (1e-6, 1.0),
)  # tolerance, size of the objective


@planned("oracle")
def solve(problem: Problem) -> Found:
    """Return the plan that Clarabel finds; slightly beyond limits at times, which the referee then reports.

    Raises:
        AllocationError: cvxpy is not installed, caps on a device's whole energy, or the solver failed.
    """
    cell = problem.cell
    found = minimise(cell)
    if found is None:
        raise Impossible("the solver found no plan")
    return Found(problem=problem, shares=shares(cell, *found))


def minimise(cell: Cell) -> tuple[Floats, Floats, Floats] | None:
    """Return bandwidths, transmission and computing times [K]; None where the solver calls it infeasible."""
    cp = _cvxpy()
    if np.isfinite(cell.energy_cap).any():
        raise AllocationError("the oracle knows no cap on a device's whole energy; use method optimal")
    count, share = len(cell), cell.bandwidth / len(cell)
    uncapped = replace(cell, radio_cap=np.full(count, np.inf))
    scale = shortest_round(uncapped if cell.circuits else cell, np.full(count, share))  # seconds
    b, t, x = (cp.Variable(count, pos=True) for _ in range(3))  # in share, scale, nat/s/Hz
    time = cp.Variable(pos=True)
    speeds = cell.cycles > 0
    speed = cp.Variable(count)  # ln of the share of full speed, at least
    slow: Any = cp.Variable(count, pos=True) if speeds.any() else np.zeros(count)  # times full speed's time
    tau = cp.multiply(cell.least_compute / scale, slow) if speeds.any() else np.zeros(count)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    nodes, weights = (nodes + 1) / 2, weights / 2
    energy: Any = 0
    lead = cell.weight * cell.noise * cell.payload
    for node, weight in zip(nodes, weights, strict=True):
        counted = np.flatnonzero(lead > 0)
        energy = energy + cp.sum(cp.exp(node * x[counted] + np.log(weight * lead[counted])))
    if cell.circuits:
        energy = energy + scale * (cell.weight * cell.circuit_power) @ t
    if speeds.any():
        load = cell.weight * cell.kappa * cell.cycles * cell.max_clock**2
        some = np.flatnonzero(load > 0)
        energy = energy + cp.sum(cp.exp(2 * speed[some] + np.log(load[some])))
    limits = [
        cp.log(x) + cp.log(b) + cp.log(t) >= np.log(cell.payload / (share * scale)),
        cell.delay / scale + tau + t <= time,
        cp.sum(b) <= count,
        # b ln(1 + Gam / b) >= a / t
        cp.rel_entr(b, b + cell.snr_bandwidth / share)
        <= -cp.multiply(cell.payload / (share * scale), cp.inv_pos(t)),
    ]
    if speeds.any():
        limits += [slow >= 1, cp.log(slow) + speed >= 0]
    capped = np.flatnonzero(np.isfinite(cell.radio_cap))
    if cell.circuits and capped.size:
        ratio = cell.radio_cap[capped] / (cell.noise * cell.payload)[capped]
        fed = scale * cell.circuit_power[capped] / (cell.noise * cell.payload)[capped]
        grown: Any = 0
        for node, weight in zip(nodes, weights, strict=True):
            grown = grown + cp.exp(node * x[capped] + np.log(weight) - np.log(ratio))
        limits.append(grown + cp.multiply(fed / ratio, t[capped]) <= 1)
    elif capped.size:
        limits.append(x <= np.minimum(cell.max_efficiency, 1e3))
    if np.isfinite(cell.deadline):
        limits.append(time <= cell.deadline / scale)
    whole = cell.latency_weight * scale * time + energy
    status = None
    for tolerance, size in ATTEMPTS:
        task = cp.Problem(cp.Minimize(whole * (size / (cell.latency_weight * scale or 1.0))), limits)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # inaccurate solutions are scored like all others
                task.solve(
                    solver=cp.CLARABEL, tol_gap_abs=tolerance, tol_gap_rel=tolerance, tol_feas=tolerance
                )
        except cp.error.SolverError:
            continue
        status = task.status
        if status in ("optimal", "infeasible"):
            break
    if status is None:
        raise AllocationError("the oracle failed: Clarabel found no solution at any tolerance")
    if status not in ("optimal", "optimal_inaccurate"):
        return None
    compute = slow.value * cell.least_compute if speeds.any() else np.zeros(count)
    transmit = float(time.value) * scale - cell.delay - compute  # all of the round that computing leaves
    if cell.circuits:  # or less
        transmit = np.minimum(transmit, t.value * scale)
    return b.value * share, transmit, compute


def _cvxpy() -> Any:
    try:
        import cvxpy
    except ImportError as error:
        raise AllocationError("method oracle needs cvxpy and clarabel: install sflam[oracle]") from error
    return cvxpy
