"""Devices that share the time of one channel: against a general solver in shares, powers, clocks and times."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import bits, bits_both, cuts, device_cuts, online, optimal, pareto
from sflam.allocate.cell.frugal import least_energy
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.allocate.settings import BY_BAND
from sflam.errors import AllocationError
from sflam.plan import Plan, Status
from tests.allocate.cell.airtime import general, random_airtime, sharing_time
from tests.allocate.cell.builders import SEEDS, capped, reference
from tests.allocate.cell.radios import with_radio
from tests.allocate.cell.test_optimal import assert_certified
from tests.allocate.cell.test_shadow_prices import assert_all_slopes


def shares_of(plan: Plan) -> Shares:
    """Return what a plan gives."""
    given = plan.devices
    return Shares(bandwidth=given.bandwidth, power=given.power, clock=given.clock, airtime=given.airtime)


RADIOS: tuple[Any, ...] = (0.0, 0.01, 1.0, [0.5, 0.0, 0.02, 2.0, 0.1, 0.0])


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("circuit", RADIOS)
def test_the_optimum_is_a_general_solvers(circuit: Any, fixed: bool) -> None:
    problem = with_radio(sharing_time(reference(6, fixed=fixed)), circuit, 0.35, 0.2)
    problem = problem.change(delay=0.05, receiving=[0.05, 0.0, 0.01, 0.02, 0.05, 0.03])
    plan = optimal.solve(problem)
    assert_certified(plan)
    assert general(problem, plan, 2) == pytest.approx(plan.objective, rel=1e-8)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_random_cells_are_certified_and_a_general_solvers(seed: int) -> None:
    problem = random_airtime(seed, most=5)
    plan = optimal.solve(problem)
    assert_certified(plan, gap=1e-8)
    found = general(problem, plan)
    assert found >= plan.objective * (1 - 1e-7)
    assert plan.lower_bound <= found * (1 + 1e-7)


@pytest.mark.parametrize("seed", range(30))
def test_random_limits_are_held_certified_and_a_general_solvers(seed: int) -> None:
    """Deadlines and all three caps at once, around what a plan without them spends."""
    free_problem = random_airtime(seed, most=4)
    free = optimal.solve(free_problem)
    problem = capped(free_problem, free, seed)
    draw = np.random.default_rng(seed)
    joules = draw.uniform(0.9, 1.4, len(problem)) * free.devices.device_j
    problem = problem.change(energy_cap=np.where(draw.random(len(problem)) < 0.5, np.inf, joules))
    plan = optimal.solve(problem)
    if plan.status is Status.INFEASIBLE:
        assert any(word in plan.advice[0] for word in ("cap", "round")), plan.advice
        return
    assert plan.lower_bound <= plan.objective * (1 + 1e-12) and plan.gap < 1e-6
    assert not score(problem, shares_of(plan)).violations
    assert plan.objective >= free.objective * (1 - 1e-9)
    found = general(problem, plan)
    assert found >= plan.objective * (1 - 1e-6)


def test_energy_is_that_of_a_shared_band_where_nothing_comes_down() -> None:
    """Without circuits and limits that bind, a share s of the time at p is worth s B at all times at s p."""
    problem = reference(5, fixed=True)
    network = replace(problem.network, max_power=np.full(5, 1e5))
    band = optimal.solve(problem.change(network=network))
    time = optimal.solve(sharing_time(problem.change(network=network)))
    assert time.objective == pytest.approx(band.objective, rel=1e-9)
    np.testing.assert_allclose(
        time.devices.airtime * time.devices.bandwidth, band.devices.bandwidth, rtol=1e-4
    )
    np.testing.assert_allclose(time.devices.airtime * time.devices.power, band.devices.power, rtol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_prices_are_slopes_of_the_optimum(seed: int) -> None:
    """Of the band, too: more Hz hold more in the same slots, and spread the power more thinly."""
    problem = random_airtime(seed, most=4)
    band = float(problem.network.bandwidth[0])
    # what comes down takes s of the channel at a rate that does not hang on its bandwidth
    assert_all_slopes(problem, plan := optimal.solve(problem))
    held = capped(problem, plan, seed)
    bound = optimal.solve(held)
    if bound.status is not Status.INFEASIBLE:
        assert_all_slopes(held, bound)
    assert plan.shadow_prices is not None
    less, more = (
        optimal.solve(problem.change(network=replace(problem.network, airtime=1 + by))).objective
        for by in (-1e-4, 1e-4)
    )
    assert plan.shadow_prices.airtime == pytest.approx(
        (less - more) / 2e-4, rel=1e-3, abs=1e-5 * plan.objective
    )
    assert band * plan.shadow_prices.bandwidth < plan.shadow_prices.airtime * 1.01 + 1e-6 * plan.objective


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_no_baseline_is_below_the_bound(seed: int) -> None:
    problem = random_airtime(seed, most=10)
    plan = optimal.solve(problem)
    for name in ("equal", "equal-bandwidth", "random"):
        other = allocate(problem, name)
        assert other.objective >= plan.lower_bound * (1 - 1e-12), name
        assert other.status is not Status.INFEASIBLE, (name, other.advice)
        assert other.devices.airtime.sum() <= 1 + 1e-9
    best = allocate(problem, "equal-bandwidth")
    assert best.objective <= allocate(problem, "equal").objective * (1 + 1e-9)


@pytest.mark.parametrize("name", BY_BAND)
def test_methods_of_parts_of_a_band_are_refused_by_name(name: str) -> None:
    with pytest.raises(AllocationError, match=f"method {name} shares out parts of a band"):
        allocate(sharing_time(reference(3)), name)


def test_parts_of_the_band_or_of_full_power_are_violations() -> None:
    problem = sharing_time(reference(3), [1.0, 0.0, 0.0])
    good = shares_of(optimal.solve(problem))
    assert not score(problem, good).violations
    assert set(score(problem, replace(good, bandwidth=good.bandwidth / 2)).violations) == {"whole channel"}
    assert set(score(problem, replace(good, power=good.power * 0.5)).violations) == {"full power"}
    assert set(score(problem, replace(good, airtime=np.asarray(good.airtime) * 1.1)).violations) == {
        "bandwidth"
    }


@pytest.mark.parametrize("fixed", [False, True])
def test_bits_are_those_of_all_combinations(fixed: bool) -> None:
    chi = np.array([0.3, 1.5, 0.02])
    problem = with_radio(sharing_time(reference(3, fixed=fixed, sensitivity=chi)), 0.05)
    problem = problem.change(bit_choices=(2, 3, 4, 5), delay=0.02, receiving=0.02)
    every = [
        optimal.solve(problem.change(bits=np.array(each))).objective
        for each in itertools.product((2, 3, 4, 5), repeat=3)
    ]
    plan = bits.solve(problem)
    assert plan.objective == pytest.approx(min(every), rel=1e-9)
    assert plan.lower_bound <= min(every) * (1 + 1e-12) and plan.gap < 2e-2


def test_bits_both_ways_are_those_of_all_combinations() -> None:
    """What comes down takes its part of the time: fewer bits down leave more of it to all."""
    widths = (2, 3, 4)
    problem = with_radio(sharing_time(reference(2, fixed=True)), 0.05, 1.0, 0.2)
    problem = problem.change(bit_choices=widths, sensitivity=[0.3, 1.5], sensitivity_down=[0.8, 0.1])

    def place(here: Problem) -> Problem:
        down = here.down_bits / 5e8
        return here.change(delay=down, receiving=down)

    every = []
    for pair in itertools.product(itertools.product(widths, repeat=2), repeat=2):
        up, down = np.array(pair).T
        every.append(optimal.solve(place(problem.change(bits=up, bits_down=down))).objective)
    plan = bits_both.solve(problem, place)
    assert plan.objective == pytest.approx(min(every), rel=1e-9)
    assert plan.lower_bound <= min(every) * (1 + 1e-12) and plan.gap < 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_cuts_are_those_of_all_combinations(seed: int) -> None:
    problem = with_radio(sharing_time(reference(3, seed)), 0.05)
    options = (0, 1, 2)

    def place(here: Problem) -> Problem:
        down = here.down_bits / 5e8
        return here.change(delay=down, receiving=down)

    every = [
        cuts.look(problem, np.array(each), lambda here: optimal.solve(place(here))).objective
        for each in itertools.product(options, repeat=3)
    ]
    plan = device_cuts.solve(problem, options, place)
    assert plan.objective == pytest.approx(min(every), rel=1e-9)
    assert plan.lower_bound <= min(every) * (1 + 1e-12) and plan.gap < 1e-6


@pytest.mark.parametrize("circuit", [0.0, 0.3])
def test_the_front_is_convex_and_ends_where_nothing_is_left_to_save(circuit: float) -> None:
    problem = with_radio(sharing_time(reference(5, fixed=True)), circuit)
    points = pareto.front(problem, 8)
    seconds, joules = (np.array([getattr(point, key) for point in points]) for key in ("latency", "energy"))
    slope = np.diff(joules) / np.diff(seconds)
    assert (slope < 0).all() and (np.diff(slope) > -1e-9 * np.abs(slope).max()).all()
    end = pareto.frugal_round(problem)
    assert np.isfinite(end) == (circuit > 0)
    if circuit:
        last = pareto.front(problem, 2, longest=end)[-1].energy
        assert last == pytest.approx(float(least_energy(problem) @ problem.network.energy_weight), rel=1e-6)


def test_budgets_are_kept_on_average() -> None:
    problem = sharing_time(reference(5, fixed=True))
    free = optimal.solve(problem)
    budgets = 0.7 * free.devices.device_j - 0.7 * free.devices.compute_j
    controller = online.Controller(problem, budgets, 0.05 * budgets.mean())
    draw = np.random.default_rng(0)
    for _ in range(300):
        plan = controller.step(problem.network.gain[0] * np.clip(draw.exponential(1, 5), 0.2, 3))
        assert plan.status is Status.OPTIMAL and plan.gap < 1e-6
    assert controller.excess.max() < 1.1
