"""The exact solver against a general convex solver, and against SLSQP in other variables."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from sflam.allocate.cell import optimal, oracle
from sflam.allocate.cell.problem import Problem
from sflam.errors import AllocationError
from tests.allocate.cell.builders import random_problem, reference


@pytest.mark.parametrize(
    "problem",
    [
        reference(),
        reference(fixed=True),
        reference(30, 3, fixed=True),
        reference(20, 2, latency_weight=0.9),
        reference(20, 1, latency_weight=0.1),
        reference(8, 5, deadline=1.2),
    ],
    ids=["clocks", "fixed", "K=30", "lam=0.9", "lam=0.1", "deadline"],
)
def test_named_cases_agree(problem: Problem) -> None:
    pytest.importorskip("cvxpy")
    best, other = optimal.solve(problem), oracle.solve(problem)
    if not other.advice:  # Clarabel's point holds its limits
        assert other.objective == pytest.approx(best.objective, rel=1e-6)
    assert other.objective >= best.lower_bound * (1 - 1e-5)


@pytest.mark.slow
def test_random_cases_agree() -> None:
    pytest.importorskip("cvxpy")
    agreed = 0
    for seed in range(40):
        problem = random_problem(seed)
        try:
            other = oracle.solve(problem)
        except AllocationError:  # it gives up on badly scaled ones
            continue
        if other.status != "infeasible":
            best = optimal.solve(problem)
            assert other.objective >= best.objective * (1 - 1e-9)
            agreed += other.objective <= best.objective * (1 + 1e-6)
    assert agreed >= 15


def test_without_cvxpy_its_installation_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(AllocationError, match="sflam\\[oracle\\]"):
        oracle.solve(reference(2))


def test_slsqp_in_bandwidth_and_power_finds_the_same() -> None:
    """The papers' variables (b, p): the map to (b, t) is one to one, so every local optimum is this one."""
    optimize = pytest.importorskip("scipy.optimize")
    problem = reference(4, fixed=True)
    cell, count = problem.cell, 4
    best = optimal.solve(problem).objective
    draw = np.random.default_rng(0)

    def transmit(v: np.ndarray) -> np.ndarray:
        b, p = v[:count] * cell.bandwidth, v[count:-1] * cell.max_power
        return cell.payload / (b * np.log1p(p / (cell.noise * b)))

    def cost(v: np.ndarray) -> float:
        return cell.latency_weight * v[-1] + float(cell.weight @ (v[count:-1] * cell.max_power * transmit(v)))

    limits = (
        {"type": "ineq", "fun": lambda v: v[-1] - cell.busy - transmit(v)},
        {"type": "ineq", "fun": lambda v: 1 - v[:count].sum()},
    )
    for _ in range(3):
        start = np.r_[draw.dirichlet(np.full(count, 5.0)), draw.uniform(0.2, 1, count), 10.0]
        found = optimize.minimize(
            cost,
            start,
            method="SLSQP",
            bounds=[(1e-3, 1)] * (2 * count) + [(0, None)],
            constraints=limits,
            options={"maxiter": 500, "ftol": 1e-12},
        )
        assert found.fun == pytest.approx(best, rel=1e-6)
