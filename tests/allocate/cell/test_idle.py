"""What a device draws over the whole round: in the objective, in caps, against a general solver in all variables."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import minimize

from sflam.allocate.cell import bits, online, optimal, oracle, pareto
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.plan import Plan, Status
from tests.allocate.cell.builders import RIVALS, SEEDS, capped, random_problem, reference, with_sensitivity
from tests.allocate.cell.test_optimal import assert_certified


def waiting(problem: Problem, power: Any) -> Problem:
    """Return the problem with ``power`` W drawn over the whole round."""
    drawn = np.broadcast_to(np.asarray(power, float), (len(problem),)).copy()
    return problem.change(network=replace(problem.network, static_power=drawn))


def shares_of(plan: Plan) -> Shares:
    """Return what a plan gives."""
    given = plan.devices
    return Shares(bandwidth=given.bandwidth, power=given.power, clock=given.clock)


def general(problem: Problem, plan: Plan) -> float:
    """Return the objective that SLSQP finds in ln of bandwidths, powers and clocks, from near a plan; by the referee.

    Limits are the referee's own: time is a variable, so that everything is smooth.
    """
    network, count = problem.network, len(problem)
    gain, weight = network.gain[0], network.energy_weight * (1 - problem.latency_weight)
    start = np.r_[
        np.log(plan.devices.bandwidth * 0.97),
        np.log(plan.devices.power * 0.97),
        np.log(plan.devices.clock * 0.97),
        np.log(plan.latency * 1.1),
    ]

    def parts(u: np.ndarray) -> tuple[np.ndarray, ...]:
        b, p, f = np.exp(u[:count]), np.exp(u[count : 2 * count]), np.exp(u[2 * count : 3 * count])
        t = problem.payload / (b * np.log1p(p * gain / (network.noise * b)))
        tau = problem.cycles / f
        return b, p, f, t, tau, float(np.exp(u[-1]))

    def spent(u: np.ndarray) -> np.ndarray:
        _, p, f, t, _, time = parts(u)
        return p * t + network.kappa * f**2 * problem.cycles + network.static_power * time

    def objective(u: np.ndarray) -> float:
        _, p, f, t, _, time = parts(u)
        work = network.kappa * f**2 * problem.cycles if problem.choose_clocks else 0.0
        idle = network.static_power * time
        return (
            problem.latency_weight * time
            + (1 - problem.latency_weight) * problem.base_j
            + float(weight @ (p * t + work + idle))
        )

    def slack(u: np.ndarray) -> np.ndarray:
        b, _, _, t, tau, time = parts(u)
        delay = problem.each("local_steps") * problem.each("delay")
        caps = problem.each("energy_cap")
        held = np.isfinite(caps)
        return np.r_[
            1 - (problem.base_s + delay + t + tau) / time,
            1 - b.sum() / network.bandwidth[0],
            (1 - spent(u) / np.where(held, caps, np.inf))[held],
            1 - time / problem.deadline if np.isfinite(problem.deadline) else 1.0,
        ]

    size = plan.objective
    top = [(None, None)] * count + [(None, x) for x in np.log(network.max_power)]
    clocks = np.log(network.max_clock)
    top += [(None if problem.choose_clocks else x, x) for x in clocks] + [(None, None)]
    found = minimize(
        lambda u: objective(u) / size,
        start,
        method="SLSQP",
        bounds=top,
        constraints={"type": "ineq", "fun": slack},
        options={"maxiter": 500, "ftol": 1e-13},
    )
    assert slack(found.x).min() > -1e-7, found
    return objective(found.x)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("power", [0.05, 0.5])
def test_rounds_shorten_as_devices_idle(fixed: bool, power: float) -> None:
    free, idle = reference(6, fixed=fixed), waiting(reference(6, fixed=fixed), power)
    before, plan = optimal.solve(free), optimal.solve(idle)
    assert_certified(plan)
    assert plan.latency < before.latency
    np.testing.assert_allclose(plan.devices.idle_j, power * plan.latency, rtol=1e-12)
    counted = plan.devices.transmit_j + plan.devices.idle_j + (0 if fixed else plan.devices.compute_j)
    assert plan.energy == pytest.approx(counted.sum(), rel=1e-12)
    assert plan.objective < score(idle, shares_of(before)).objective  # what was best without it no longer is
    assert general(idle, plan) == pytest.approx(plan.objective, rel=2e-6)


def test_none_is_as_before() -> None:
    for seed in range(4):
        problem = waiting(random_problem(seed, most=8), 0.0)
        plan = optimal.solve(problem)
        assert not plan.devices.idle_j.any() and problem.time_weight == problem.latency_weight


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("share", [0.97, 0.9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_caps_hold_with_what_is_drawn_in_waiting(seed: int, share: float, fixed: bool) -> None:
    idle = waiting(reference(5, seed, fixed=fixed, latency_weight=0.3), [0.02, 0.1, 0.0, 0.3, 0.05])
    free = optimal.solve(idle)
    caps = np.full(5, np.inf)
    caps[[0, 1, 3]] = share * free.devices.device_j[[0, 1, 3]]
    problem = idle.change(energy_cap=caps)
    plan = optimal.solve(problem)
    if plan.status is Status.INFEASIBLE:
        assert share == 0.9 and "energy caps" in plan.advice[0]
        idles = idle.network.static_power * free.latency
        assert (idles > 0.8 * caps).any()  # nearly all that some device has goes in waiting
        return
    assert_certified(plan, gap=1e-7)
    assert (plan.devices.device_j <= caps * (1 + 1e-9)).all()
    assert plan.objective >= free.objective * (1 - 1e-12)
    assert general(problem, plan) == pytest.approx(plan.objective, rel=2e-6)


def test_a_cap_that_waiting_alone_uses_up_is_refused_with_its_number() -> None:
    problem = waiting(reference(3), 1.0).change(energy_cap=0.5)
    plan = optimal.solve(problem)
    assert plan.status is Status.INFEASIBLE and "idle power" in plan.advice[0]


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_random_caps_are_held_and_certified(seed: int) -> None:
    draw = np.random.default_rng(seed)
    idle = random_problem(seed, most=8)
    idle = waiting(idle, draw.uniform(0, 0.5, len(idle)))
    free = optimal.solve(idle)
    caps = np.where(draw.random(len(idle)) < 0.5, np.inf, free.devices.device_j * draw.uniform(0.8, 1.2))
    plan = optimal.solve(idle.change(energy_cap=caps))
    if plan.status is not Status.INFEASIBLE:
        assert (plan.devices.device_j <= caps * (1 + 1e-9)).all()
        assert plan.lower_bound <= plan.objective * (1 + 1e-12) and plan.gap < 1e-6
        assert plan.objective >= free.objective * (1 - 1e-9)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_no_method_does_better(seed: int) -> None:
    draw = np.random.default_rng(seed)
    problem = random_problem(seed, most=6)
    problem = waiting(problem, draw.uniform(0, 2, len(problem)))
    problem = problem.change(base_s=draw.uniform(0, 3), base_j=draw.uniform(0, 1))
    best = optimal.solve(problem)
    for name, options in RIVALS.items():
        plan = allocate(problem, name, **options)
        if plan.status is not Status.INFEASIBLE:
            assert best.objective <= plan.objective * (1 + 1e-9), name
            assert plan.lower_bound <= best.objective * (1 + 1e-4) or name == "subchannels"
            assert (
                plan.energy >= float(plan.devices.idle_j.sum()) > 0 or not problem.network.static_power.any()
            )


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_no_limit_is_broken(seed: int) -> None:
    """Deadlines, all three caps and static power at once; the referee agrees with what the plan says of itself."""
    draw = np.random.default_rng(seed)
    idle = random_problem(seed, most=6)
    idle = waiting(idle, draw.uniform(0, 0.5, len(idle)) * (draw.random(len(idle)) < 0.7))
    idle = idle.change(base_s=draw.uniform(0, 2))
    free = optimal.solve(idle)
    problem = capped(idle, free, seed).change(
        energy_cap=free.devices.device_j * draw.uniform(0.9, 1.3, len(idle))
    )
    plan = optimal.solve(problem)
    if plan.status is Status.INFEASIBLE:
        return
    assert plan.latency <= problem.deadline * (1 + 1e-9)
    assert (plan.devices.device_j <= problem.each("energy_cap") * (1 + 1e-9)).all()
    assert (plan.devices.transmit_j <= problem.each("radio_cap") * (1 + 1e-9)).all()
    assert (plan.devices.compute_j <= problem.each("compute_cap") * (1 + 1e-9)).all()
    assert plan.devices.bandwidth.sum() <= problem.network.bandwidth[0] * (1 + 1e-9)
    assert plan.lower_bound <= plan.objective * (1 + 1e-12)
    assert not score(problem, shares_of(plan)).violations


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_general_convex_solver_finds_the_same(seed: int, fixed: bool) -> None:
    pytest.importorskip("cvxpy")
    idle = waiting(reference(8, seed, fixed=fixed), np.linspace(0, 0.6, 8))
    best, other = optimal.solve(idle), oracle.solve(idle)
    assert other.objective >= best.lower_bound * (1 - 1e-5)
    if not other.advice:
        assert other.objective == pytest.approx(best.objective, rel=1e-6)


@pytest.mark.parametrize(
    ("share", "seed"),
    [
        pytest.param(share, seed, marks=() if seed == quick else pytest.mark.slow)
        for quick, share in ((1, np.inf), (2, 1.02), (0, 0.98))
        for seed in range(3)
    ],
)
def test_bits_with_static_power_equal_exhaustive_search(share: float, seed: int) -> None:
    widths = (
        tuple(range(2, 9)) if share == np.inf else (3, 5, 8)
    )  # with caps a solution takes a third of a second
    problem = waiting(with_sensitivity(3, seed, bit_choices=widths), [0.3, 0.0, 0.05])
    if share < np.inf:
        problem = problem.change(energy_cap=share * bits.solve(problem).devices.device_j)
    exact = bits.Search(problem)
    best = min(exact.solve(np.array(chosen))[0] for chosen in itertools.product(widths, repeat=3))
    plan = bits.solve(problem)
    if plan.status is Status.INFEASIBLE:
        assert best == np.inf
        return
    assert plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.lower_bound <= best * (1 + 1e-12)


def test_the_front_ends_where_more_time_takes_more_energy() -> None:
    problem = waiting(reference(4), 0.2)
    points = pareto.front(problem, 12)
    energies = [point.energy for point in points]
    assert energies == sorted(energies, reverse=True)
    least = optimal.solve(problem.change(latency_weight=0.0, deadline=1e9))
    assert points[-1].latency <= least.latency * (1 + 1e-9)
    assert energies[-1] >= least.energy * (1 - 1e-9)
    for point in points[2:-1]:
        there = optimal.solve(problem.change(latency_weight=point.latency_weight))
        assert there.latency == pytest.approx(point.latency, rel=1e-6)
        assert there.energy == pytest.approx(point.energy, rel=1e-6)


@pytest.mark.parametrize("lam", [0.3, 1.0])
def test_prices_of_budgets_weigh_waiting_too(lam: float) -> None:
    """The controller's plan with prices y is the optimum of the problem whose joules weigh y more."""
    problem = waiting(reference(3, latency_weight=lam), [0.1, 0.4, 0.0])
    prices = np.array([0.5, 0.0, 2.0])
    controller = online.Controller(problem, np.ones(3), 1.0, prices)
    plan = controller.step(problem.network.gain[0])
    assert plan.lower_bound <= plan.objective and plan.gap < 1e-9
    weight = (1 - lam) * problem.network.energy_weight + prices
    # lam T + sum (W + y) E is 2 lam times half of T and half of sum (W + y) / lam E
    other = replace(problem.network, energy_weight=weight / lam)
    same = optimal.solve(problem.change(network=other, latency_weight=0.5))
    assert plan.objective == pytest.approx(2 * lam * same.objective, rel=1e-9)
    np.testing.assert_allclose(plan.devices.bandwidth, same.devices.bandwidth, rtol=1e-6)
    spent = plan.devices.device_j
    np.testing.assert_allclose(controller.queues, np.maximum(prices + spent - 1.0, 0.0), rtol=1e-12)
