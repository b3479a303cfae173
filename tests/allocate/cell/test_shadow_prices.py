"""What limits are worth: the multipliers are the slopes of the optimum, by finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import optimal
from sflam.allocate.cell.problem import Problem
from sflam.plan import Plan, Status
from tests.allocate.cell.builders import SEEDS, capped, random_problem, reference, with_sensitivity

STEP = 1e-5
CAPS = ("radio_cap", "compute_cap", "energy_cap")


def moved(problem: Problem, name: str, device: int, by: float) -> Problem:
    """Return the problem with one limit changed by a share of itself."""
    network = problem.network
    if name == "bandwidth":
        return problem.change(network=replace(network, bandwidth=network.bandwidth * (1 + by)))
    if name == "deadline":
        return problem.change(deadline=problem.deadline * (1 + by))
    values = np.array(network.max_power if name == "power" else problem.each(name), float)
    values[device] *= 1 + by
    if name == "power":
        return problem.change(network=replace(network, max_power=values))
    return problem.change(**{name: values})


def slopes(problem: Problem, name: str, device: int, limit: float) -> tuple[float, float]:
    """Return what one more unit takes off the optimum, and one less adds: their slopes beside the limit."""
    at = [optimal.solve(moved(problem, name, device, by)) for by in (-STEP, 0.0, STEP)]
    less, here, more = (plan.objective if len(plan.devices) else np.inf for plan in at)
    return (less - here) / (STEP * limit), (here - more) / (STEP * limit)


def assert_slope(
    problem: Problem, plan: Plan, name: str, price: float, limit: float, device: int = 0
) -> None:
    """The price lies between both slopes; at a corner they differ."""
    one_less, one_more = slopes(problem, name, device, limit)
    rounding = 1e-9 * plan.objective / (STEP * limit)
    low, high = sorted((one_less, one_more))
    near = 2e-3 * abs(price) + rounding
    assert low - near <= price <= high + near, (name, device, price, one_less, one_more)


def assert_all_slopes(problem: Problem, plan: Plan) -> int:
    """Check every finite limit of a plan; return how many prices are not 0."""
    prices = plan.shadow_prices
    assert prices is not None
    assert_slope(problem, plan, "bandwidth", prices.bandwidth, float(problem.network.bandwidth[0]))
    found = 1
    if np.isfinite(problem.deadline):
        assert_slope(problem, plan, "deadline", prices.deadline, problem.deadline)
        found += prices.deadline > 0
    for name in ("power", *CAPS):
        limits = problem.network.max_power if name == "power" else problem.each(name)
        for device, price in enumerate(getattr(prices, name)):
            if np.isfinite(limits[device]):
                assert_slope(problem, plan, name, float(price), float(limits[device]), device)
                found += price > 0
    return found


def check_slopes(seed: int) -> None:
    """Check all prices of a random problem, and of the same with caps around what its plan takes."""
    free = random_problem(seed, most=5)
    plan = optimal.solve(free)
    assert_all_slopes(free, plan)
    bound = capped(free, plan, seed)
    tight = optimal.solve(bound)
    if len(tight.devices):
        assert tight.status is Status.OPTIMAL
        assert_all_slopes(bound, tight)


@settings(max_examples=3, deadline=None)
@given(SEEDS)
def test_prices_are_slopes_of_the_optimum(seed: int) -> None:
    check_slopes(seed)


@pytest.mark.slow
def test_prices_of_forty_problems_are_slopes_of_the_optimum() -> None:
    for seed in range(40):
        check_slopes(seed)


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_a_deadline_that_binds_has_its_price(seed: int) -> None:
    free = random_problem(seed, most=5)
    hasty = free.change(deadline=optimal.solve(free).latency * 0.97)
    plan = optimal.solve(hasty)
    assert plan.shadow_prices is not None and plan.shadow_prices.deadline > 0
    assert_all_slopes(hasty, plan)


def test_every_kind_of_limit_binds_somewhere_and_has_its_price() -> None:
    """One seed per kind at least, so that no price above is 0 throughout."""
    bound = dict.fromkeys(("power", *CAPS), 0)
    for seed in range(25):
        free = random_problem(seed, most=5)
        plan = optimal.solve(capped(free, optimal.solve(free), seed))
        if plan.shadow_prices is not None:
            for name in bound:
                bound[name] += int((np.asarray(getattr(plan.shadow_prices, name)) > 0).any())
    assert all(bound.values()), bound


@pytest.mark.parametrize("weight", [1.0, 0.9999])
def test_bandwidth_of_the_shortest_round_is_worth_the_time_it_saves(weight: float) -> None:
    problem = reference(4, latency_weight=weight)
    assert_all_slopes(problem, optimal.solve(problem))


def test_prices_count_the_rounds_that_quantization_costs() -> None:
    problem = with_sensitivity(4, bits=3)
    assert problem.rounds > 1.1
    assert_all_slopes(problem, optimal.solve(problem))


def test_a_plan_without_multipliers_has_no_prices() -> None:
    from sflam.allocate.registry import allocate

    problem = reference(3)
    assert allocate(problem, "equal").to_dict()["shadow_prices"] is None
    found = allocate(problem, "optimal").to_dict()["shadow_prices"]
    assert found["bandwidth_per_hz"] > 0 and len(found["power_per_w"]) == 3
