"""The paper's descent and the simple methods: the table of ratios, monotone histories, one referee for all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import baselines, bcd, optimal
from sflam.allocate.cell.fixed_bandwidth import best_round, objective
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.plan import Status
from tests.allocate.cell.builders import SEEDS, random_problem, reference


def ratios(problem: Problem) -> np.ndarray:
    """Return equal, equal bandwidth with the best powers, descent, descent with matching, over the optimum."""
    best = optimal.solve(problem).objective
    plans = (
        baselines.equal(problem),
        baselines.equal_bandwidth(problem),
        bcd.solve(problem),
        bcd.solve_matching(problem, 4 * len(problem)),
    )
    return np.array([plan.objective / best for plan in plans])


@pytest.mark.parametrize(
    ("weight", "table"),
    [
        (0.5, [2.76, 1.161, 1.135, 1.161]),
        (0.1, [11.1, 1.188, 1.135, 1.188]),
        (0.9, [1.43, 1.196, 1.196, 1.196]),
    ],
)
def test_the_table_of_baselines(weight: float, table: list[float]) -> None:
    mean = np.mean(
        [ratios(reference(20, seed, fixed=True, latency_weight=weight)) for seed in range(3)], axis=0
    )
    np.testing.assert_allclose(mean, table, rtol=3e-3)
    if weight == 0.5:
        assert mean[0] >= 2.5 and mean[2] >= 1.10


@settings(max_examples=5, deadline=None)
@given(SEEDS)
def test_the_descent_never_rises_and_holds_its_limits(seed: int) -> None:
    problem = random_problem(seed, most=8, fixed=True)
    for plan in (bcd.solve(problem), bcd.solve_matching(problem, 3 * len(problem))):
        assert plan.advice == () and len(plan.history) >= 2
        assert (np.diff(plan.history) <= 1e-12 * plan.history[0]).all()
        assert plan.objective == pytest.approx(plan.history[-1], rel=1e-9)


def test_the_descent_chooses_clocks_too() -> None:
    plan, best = bcd.solve(reference(5, 2)), optimal.solve(reference(5, 2))
    assert (np.diff(plan.history) <= 1e-12).all() and plan.advice == ()
    assert (plan.devices.clock < reference(5, 2).network.max_clock * 0.99).any()
    assert best.objective <= plan.objective < 1.2 * best.objective


def test_the_descent_depends_on_where_it_starts() -> None:
    problem = reference(10, fixed=True, latency_weight=0.9)
    draw = np.random.default_rng(1)
    found = []
    for _ in range(3):
        start = Shares(
            bandwidth=draw.dirichlet(np.ones(10)) * 20e6,
            power=draw.uniform(0.1, 1, 10) * problem.network.max_power,
            clock=problem.network.max_clock,
        )
        found.append(bcd.solve(problem, start=start).objective)
    assert min(found) > optimal.solve(problem).objective and np.ptp(found) > 1e-3


def test_approximation_settles_at_the_best_powers() -> None:
    """Successive approximation of p t (2.10) ends where the convex problem at equal bandwidth does."""
    for fixed in (True, False):
        cell = reference(8, 4, fixed=fixed).cell
        block = bcd.Blocks(cell, None, 0)
        for _ in range(5):
            block.power_step()
        time, times = best_round(cell, block.bandwidth)
        assert block.objective == pytest.approx(objective(cell, time, times.energy), rel=1e-6)


def test_random_shares_are_within_limits_and_repeatable() -> None:
    problem = reference()
    first, same, other = (baselines.random(problem, seed) for seed in (3, 3, 4))
    assert first.advice == () and first.objective == same.objective != other.objective


def test_infeasible_baselines_are_called_so() -> None:
    problem = reference(deadline=2.0)
    assert baselines.equal(problem).status == "infeasible"
    assert "deadline is exceeded" in baselines.equal(problem).advice[0]
    assert f"take {baselines.equal(problem).latency:.6g} s a round" in baselines.equal(problem).advice[0]
    loose = baselines.equal(reference(3)).devices
    used = float((loose.transmit_j + loose.compute_j).max())
    spent = baselines.equal(reference(3, energy_cap=0.9 * used))
    most = (spent.devices.transmit_j + spent.devices.compute_j).max()
    assert f"spends {most:.4g} J a round" in spent.advice[0]
    assert bcd.solve(reference(radio_cap=1e-9)).status == "infeasible"
    assert baselines.fixed_bits(reference(3, deadline=1e-3)).status == "infeasible"


@pytest.mark.parametrize("seed", [4, 5, 13, 45, 62, 106, 122])
def test_block_coordinate_descent_keeps_what_radios_may_take(seed: int) -> None:
    """At a given power less bandwidth takes more time, and so more energy: up to the cap alone."""
    problem = random_problem(seed, most=8)
    spent = bcd.solve(problem).devices.transmit_j
    capped = problem.change(radio_cap=spent * np.random.default_rng(seed).uniform(0.6, 1.1, len(problem)))
    plan = bcd.solve(capped)
    assert plan.status is not Status.INFEASIBLE
    assert (plan.devices.transmit_j <= capped.radio_cap * (1 + 1e-9)).all()
    assert plan.objective >= optimal.solve(capped).lower_bound * (1 - 1e-9)
