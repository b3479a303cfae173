"""Several subchannels a device under selective fading: water-filling, and the cases that others solve exactly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sflam.allocate.cell import selective, subchannels
from sflam.errors import AllocationError
from tests.allocate.cell.builders import reference


def faded(devices: int, count: int, seed: int = 0) -> np.ndarray:
    """Return gains [K, S] around the reference cell's."""
    draw = np.random.default_rng(seed)
    return reference(devices).network.gain.T * np.maximum(draw.exponential(1, (devices, count)), 1e-3)


def test_water_filling_carries_the_load_at_least_power() -> None:
    draw = np.random.default_rng(0)
    floors = draw.exponential(1, 6)
    power, level = selective.pour(floors, 2.5)
    wet = np.maximum(level - floors, 0)
    assert wet.sum() == pytest.approx(power)
    assert np.log1p(wet / floors).sum() == pytest.approx(2.5)
    for share in draw.dirichlet(np.ones(6), 200):  # the same power poured otherwise carries less
        assert np.log1p(power * share / floors).sum() <= 2.5 + 1e-12


def test_one_each_is_what_matching_finds() -> None:
    problem, gains = reference(8, fixed=True), faded(8, 8)
    plan, owner = selective.solve(problem, gains)
    exact, _ = subchannels.match(problem, gains)
    assert sorted(owner.tolist()) == list(range(8)) and plan.advice == ()
    assert plan.objective == pytest.approx(exact.objective, rel=1e-3)
    assert plan.lower_bound <= exact.objective <= plan.objective * (1 + 1e-4)


def test_flat_fading_is_what_greedy_finds() -> None:
    problem = reference(3, fixed=True)
    plan, _ = selective.solve(problem, np.tile(problem.network.gain.T, (1, 8)))
    assert plan.objective == pytest.approx(subchannels.solve(problem, 8).objective, rel=1e-3)


def test_a_small_case_equals_exhaustive_search() -> None:
    problem, gains = reference(3, 1, fixed=True), faded(3, 5, 4)
    plan, owner = selective.solve(problem, gains)
    time = plan.latency
    unit = 20e6 / 5
    turn = selective.Round(problem.cell, problem.network.noise * unit / gains, unit, time)
    best = min(
        sum(turn.cost(k, np.flatnonzero(np.array(owners) == k)) for k in range(3))
        for owners in itertools.product(range(3), repeat=5)
    )
    assert plan.objective == pytest.approx(0.5 * time + best, rel=1e-9)
    assert np.bincount(owner, minlength=3).tolist() == plan.devices.subchannels.tolist()
    assert plan.lower_bound <= plan.objective and plan.gap < 0.5


def test_impossible_input_is_refused() -> None:
    problem = reference(3)
    with pytest.raises(AllocationError, match="S >= 3"):
        selective.solve(problem, np.ones((3, 2)))
    with pytest.raises(AllocationError, match="positive"):
        selective.solve(problem, np.zeros((3, 3)))
    assert selective.solve(problem.change(deadline=1e-3), faded(3, 4))[0].status == "infeasible"
