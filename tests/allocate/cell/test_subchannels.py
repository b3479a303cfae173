"""Equal subchannels: exhaustive search, the continuous bound, and matching under selective fading."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from sflam.allocate.cell import bcd, optimal, subchannels
from sflam.allocate.cell.fixed_bandwidth import best_round, objective
from sflam.errors import AllocationError
from sflam.plan import Status
from tests.allocate.cell.builders import reference


@pytest.mark.parametrize(("fixed", "value"), [(True, 1.402686), (False, 1.414261)])
def test_three_devices_equal_exhaustive_search(fixed: bool, value: float) -> None:
    problem = reference(3, fixed=fixed)
    unit, best = 20e6 / 8, np.inf
    for counts in itertools.product(range(1, 7), repeat=3):
        if sum(counts) == 8:
            time, times = best_round(problem.cell, np.array(counts) * unit)
            best = min(best, objective(problem.cell, time, times.energy))
    plan = subchannels.solve(problem, 8)
    assert plan.objective == pytest.approx(best, rel=1e-9) and plan.objective == pytest.approx(
        value, abs=1e-6
    )
    assert plan.devices.subchannels.sum() == 8 and plan.lower_bound <= best


@pytest.mark.parametrize(
    ("devices", "published"),
    [(10, {20: 5.41, 40: 1.44, 100: 0.256}), (20, {40: 5.28, 80: 1.58, 200: 0.288})],
)
def test_integers_cost_little(devices: int, published: dict[int, float]) -> None:
    problem = reference(devices, fixed=True)
    continuous = optimal.solve(problem).objective
    for count, percent in published.items():
        plan = subchannels.solve(problem, count)
        assert plan.status is Status.FEASIBLE and plan.gap <= 1.01e-4
        assert 100 * (plan.objective / continuous - 1) == pytest.approx(percent, abs=0.01)
        assert plan.lower_bound >= continuous * (1 - 1e-9)
        assert plan.objective <= bcd.solve_matching(problem, count).objective


@pytest.mark.parametrize("devices", [10, 20])
def test_matching_is_certified_and_beats_simple_ways(devices: int) -> None:
    problem = reference(devices, fixed=True)
    draw = np.random.default_rng(0)
    gains = problem.network.gain.T * np.maximum(draw.exponential(1, (devices, devices)), 1e-3)
    plan, chosen = subchannels.match(problem, gains)
    assert sorted(chosen.tolist()) == list(range(devices))
    assert plan.gap <= 1.01e-4 and plan.advice == ()

    def value(order: np.ndarray) -> float:
        gain = gains[np.arange(devices), order][None, :]
        cell = problem.change(network=replace(problem.network, gain=gain)).cell
        time, times = best_round(cell, np.full(devices, 20e6 / devices))
        return objective(cell, time, times.energy)

    assert plan.objective == pytest.approx(value(chosen), rel=1e-9)
    assert all(plan.objective <= value(draw.permutation(devices)) for _ in range(10))


def test_four_devices_are_matched_as_by_exhaustive_search() -> None:
    problem = reference(4)
    gains = problem.network.gain.T * np.maximum(np.random.default_rng(3).exponential(1, (4, 5)), 1e-3)
    best = np.inf
    for order in itertools.permutations(range(5), 4):
        cell = problem.change(
            network=replace(problem.network, gain=gains[np.arange(4), list(order)][None, :])
        ).cell
        time, times = best_round(cell, np.full(4, 20e6 / 5))
        best = min(best, objective(cell, time, times.energy))
    plan, _ = subchannels.match(problem, gains)
    assert best * (1 - 1e-12) <= plan.objective <= best * (1 + 1e-4) and plan.lower_bound <= best


def test_too_few_subchannels_are_refused() -> None:
    problem = reference(4)
    with pytest.raises(AllocationError, match="3 subchannels for 4 devices"):
        subchannels.solve(problem, 3)
    with pytest.raises(AllocationError, match="3 subchannels for 4 devices"):
        bcd.solve_matching(problem, 3)
    with pytest.raises(AllocationError, match=r"give \[4, S\]"):
        subchannels.match(problem, np.ones((4, 3)))
    with pytest.raises(AllocationError, match="positive"):
        subchannels.match(problem, np.zeros((4, 4)))


def test_a_deadline_no_device_meets_is_infeasible() -> None:
    problem = reference(4, fixed=True)
    shortest = optimal.Market(problem.cell).shortest()
    plan = subchannels.solve(problem.change(deadline=shortest * 1.0001), 4)
    assert plan.status is Status.INFEASIBLE
    needed = float(plan.advice[0].partition("takes ")[2].partition(" s")[0])
    assert "the shortest possible round over 4 subchannels" in plan.advice[0] and needed > shortest
    for factor, status in ((0.999, True), (1.001, False)):
        again = subchannels.solve(problem.change(deadline=needed * factor), 4)
        assert (again.status is Status.INFEASIBLE) == status
    assert subchannels.solve(problem.change(deadline=shortest / 2), 4).status is Status.INFEASIBLE
