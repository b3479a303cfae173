"""Radios that draw more than they radiate: E = (p / eta + P_c) t need not fall with t: devices may be done early."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings

from sflam.allocate.cell import bits, online, optimal, oracle, pareto, subchannels
from sflam.allocate.cell.frugal import least_energy
from sflam.allocate.cell.problem import Problem
from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.network.channel import rate_in_nats
from sflam.plan import Plan, Status
from tests.allocate.cell.builders import RIVALS, SEEDS, capped, random_problem, reference, with_sensitivity
from tests.allocate.cell.radios import drawn_radio, general, with_radio
from tests.allocate.cell.test_optimal import assert_certified

RADIOS: tuple[Any, ...] = (0.01, 1.0, [0.5, 0.0, 0.02, 2.0, 0.1, 0.0])


def shares_of(plan: Plan) -> Shares:
    """Return what a plan gives."""
    given = plan.devices
    return Shares(bandwidth=given.bandwidth, power=given.power, clock=given.clock)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("circuit", RADIOS)
def test_the_optimum_is_a_general_solvers(circuit: Any, fixed: bool) -> None:
    problem = with_radio(reference(6, fixed=fixed), circuit, 0.35)
    plan = optimal.solve(problem)
    assert_certified(plan)
    assert general(problem, plan, 2) == pytest.approx(plan.objective, rel=1e-8)
    expected = (plan.devices.power / 0.35 + problem.network.circuit_power) * plan.devices.transmit_s
    np.testing.assert_allclose(plan.devices.transmit_j, expected, rtol=1e-12)
    done = problem.each("delay") + plan.devices.compute_s + plan.devices.transmit_s
    early = done < plan.latency * (1 - 1e-3)
    assert early.any() if fixed else not early.any()  # slower clocks take up what is left
    without = optimal.solve(reference(6, fixed=fixed))
    assert plan.objective < score(problem, shares_of(without)).objective  # the plan of before is not the best


@pytest.mark.parametrize("seed", [0, 1])
def test_none_is_todays_plan_to_the_bit(seed: int) -> None:
    """An amplifier of efficiency eta alone is the same cell with noise and powers over eta, in drawn watts."""
    problem = random_problem(seed, most=8)
    plan, same = optimal.solve(problem), optimal.solve(with_radio(problem, 0.0))
    np.testing.assert_array_equal(plan.devices.power, same.devices.power)
    assert plan.objective == same.objective and not same.devices.receive_j.any()
    network = problem.network
    drawn = replace(network, noise=network.noise / 0.25, max_power=network.max_power / 0.25)
    mine = optimal.solve(with_radio(problem, 0.0, 0.25))
    other = optimal.solve(problem.change(network=drawn))
    assert mine.objective == pytest.approx(other.objective, rel=1e-12)
    np.testing.assert_allclose(mine.devices.power, 0.25 * other.devices.power, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_two_devices_against_a_grid(seed: int) -> None:
    """Every split of the band and every two sending times: no grid point is better, the best one is close."""
    problem = with_radio(reference(2, seed, fixed=True), [0.3, 0.05], [0.5, 0.9])
    plan, network = optimal.solve(problem), problem.network
    share = np.linspace(0.002, 0.998, 400)
    b = np.stack([share, 1 - share])[:, :, None] * network.bandwidth[0]  # [2, S, 1]
    p = network.max_power[:, None, None] * np.geomspace(1e-6, 1, 600)  # [2, 1, P]
    a, g = problem.payload[:, None, None], network.gain[0][:, None, None]
    t = a / rate_in_nats(b, p, g, network.noise)
    drawn = p / network.amplifier_efficiency[:, None, None] + network.circuit_power[:, None, None]
    joules, done = drawn * t, (problem.cycles / network.max_clock)[:, None, None] + t
    best = np.inf
    for s in range(len(share)):  # every pair of powers at this split
        time = np.maximum(done[0, s][:, None], done[1, s][None, :])
        spent = joules[0, s][:, None] + joules[1, s][None, :]
        best = min(best, float((0.5 * time + 0.5 * spent).min()))
    assert plan.objective <= best * (1 + 1e-12) and best == pytest.approx(plan.objective, rel=5e-3)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("cap", ["radio_cap", "energy_cap"])
@pytest.mark.parametrize("share", [0.97, 0.9, 0.8])
def test_caps_are_held_on_energy_not_on_efficiency(share: float, cap: str, fixed: bool) -> None:
    free_problem = with_radio(reference(5, fixed=fixed), [0.3, 0.05, 0.0, 1.0, 0.02], 0.5)
    free = optimal.solve(free_problem)
    spent = free.devices.transmit_j if cap == "radio_cap" else free.devices.device_j
    caps = np.full(5, np.inf)
    caps[[0, 2, 3]] = share * spent[[0, 2, 3]]
    problem = free_problem.change(**{cap: caps})
    plan = optimal.solve(problem)
    if plan.status is Status.INFEASIBLE:
        assert "cap" in plan.advice[0]
        assert (least_energy(problem) > 0.9 * caps).any() or share < 0.95
        return
    assert_certified(plan, gap=1e-7)
    now = plan.devices.transmit_j if cap == "radio_cap" else plan.devices.device_j
    assert (now <= caps * (1 + 1e-9)).all() and plan.objective >= free.objective * (1 - 1e-12)
    assert general(problem, plan) == pytest.approx(plan.objective, rel=2e-6)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_random_cells_are_certified_and_their_own_score(seed: int) -> None:
    problem = drawn_radio(random_problem(seed, most=8), seed)
    problem = problem.change(receiving=0.3 * problem.each("delay"))
    plan = optimal.solve(problem)
    assert plan.gap < 1e-8 and plan.lower_bound <= plan.objective * (1 + 1e-12)
    assert not score(problem, shares_of(plan)).violations
    heard = problem.network.receive_power * problem.each("receiving")
    np.testing.assert_allclose(plan.devices.receive_j, heard, rtol=1e-12)
    counted = plan.devices.device_j - (0 if problem.choose_clocks else plan.devices.compute_j)
    assert plan.energy == pytest.approx(counted.sum(), rel=1e-12)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
@example(1432582)
def test_random_limits_are_held_and_certified(seed: int) -> None:
    """Deadlines and all three caps at once, around what a plan without them spends."""
    free_problem = drawn_radio(random_problem(seed, most=6), seed)
    free = optimal.solve(free_problem)
    problem = capped(free_problem, free, seed)
    problem = problem.change(energy_cap=np.random.default_rng(seed).uniform(0.9, 1.4) * free.devices.device_j)
    plan = optimal.solve(problem)
    if plan.status is Status.INFEASIBLE:
        return
    assert plan.lower_bound <= plan.objective * (1 + 1e-12) and plan.gap < 1e-5
    assert plan.latency <= problem.deadline * (1 + 1e-9)
    for name, spent in (
        ("radio_cap", plan.devices.transmit_j),
        ("compute_cap", plan.devices.compute_j),
        ("energy_cap", plan.devices.device_j),
    ):
        assert (spent <= problem.each(name) * (1 + 1e-9)).all(), name
    assert plan.objective >= free.objective * (1 - 1e-9)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_no_method_does_better(seed: int) -> None:
    problem = drawn_radio(random_problem(seed, most=6), seed)
    best = optimal.solve(problem)
    for name, options in RIVALS.items():
        plan = allocate(problem, name, **options)
        if plan.status is not Status.INFEASIBLE:
            assert best.objective <= plan.objective * (1 + 1e-9), name
            assert not score(problem, shares_of(plan)).violations, name


def test_subchannels_close_on_the_optimum() -> None:
    problem = with_radio(reference(4, fixed=True), [0.3, 0.0, 1.0, 0.05], 0.5)
    best, whole = optimal.solve(problem), subchannels.solve(problem, 400)
    assert best.objective <= whole.objective <= best.objective * 1.02
    assert whole.lower_bound <= whole.objective and whole.gap < 1e-3


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_general_convex_solver_finds_the_same(seed: int, fixed: bool) -> None:
    pytest.importorskip("cvxpy")
    problem = with_radio(reference(8, seed, fixed=fixed), np.linspace(0, 1, 8), 0.5)
    best, other = optimal.solve(problem), oracle.solve(problem)
    assert other.objective >= best.lower_bound * (1 - 1e-5)
    if not other.advice:
        assert other.objective == pytest.approx(best.objective, rel=1e-6)
    caps = np.where(np.arange(8) % 2 == 0, 0.95 * best.devices.transmit_j, np.inf)
    held, within = optimal.solve(problem.change(radio_cap=caps)), oracle.solve(problem.change(radio_cap=caps))
    assert within.objective >= held.lower_bound * (1 - 1e-5)
    if not within.advice:
        assert within.objective == pytest.approx(held.objective, rel=1e-6)


def test_the_papers_choice_of_bits_counts_circuits_and_receiving() -> None:
    problem = with_radio(with_sensitivity(5), [0.2, 0.02, 1.0, 0.0, 0.1], 0.5, 0.3)
    problem = problem.change(delay=0.1, receiving=0.1)
    descended, best = allocate(problem, "bcd-bits"), bits.solve(problem)
    assert best.objective <= descended.objective * (1 + 1e-9)
    assert descended.history[-1] == pytest.approx(descended.history[-2], rel=1e-6)
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(descended.history))


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2))])
def test_bits_equal_exhaustive_search(seed: int) -> None:
    """A device that is done early has costs that are concave in its payload: the best width need not be next."""
    widths = (2, 3, 4, 5, 6, 8)
    problem = with_radio(with_sensitivity(3, seed, bit_choices=widths), [0.2, 0.02, 1.0], 0.5)
    exact = bits.Search(problem)
    best = min(exact.solve(np.array(chosen))[0] for chosen in itertools.product(widths, repeat=3))
    plan = bits.solve(problem)
    assert plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.lower_bound <= best * (1 + 1e-12)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.5])
@pytest.mark.parametrize("late", [1.001, 3.0, np.inf])
def test_the_least_energy_is_a_grids(late: float, power: float, fixed: bool) -> None:
    problem = with_radio(reference(1, 3, fixed=fixed), 0.2, 0.5)
    problem = problem.change(network=replace(problem.network, static_power=np.full(1, power)))
    network, shortest = problem.network, optimal.solve(problem.change(latency_weight=1.0)).latency
    problem = problem.change(deadline=late * shortest)
    least = float(least_energy(problem)[0])
    p = network.max_power * np.geomspace(1e-7, 1, 4000)
    f = network.max_clock * (np.geomspace(1e-5, 1, 3000) if not fixed else np.ones(1))
    t = problem.payload / rate_in_nats(network.bandwidth, p, network.gain[0], network.noise)
    tau = problem.cycles / f
    time = t[:, None] + tau[None, :]
    joules = ((p / 0.5 + 0.2) * t)[:, None] + power * time
    if not fixed:
        joules = joules + (network.kappa * f**2 * problem.cycles)[None, :]
    grid = float(joules[time <= problem.deadline].min())
    assert least <= grid * (1 + 1e-9) and grid == pytest.approx(least, rel=0.02)


@settings(max_examples=12, deadline=None)
@given(SEEDS)
def test_no_plan_uses_less_than_the_least_energy(seed: int) -> None:
    problem = drawn_radio(random_problem(seed, most=5), seed)
    plan = optimal.solve(problem.change(latency_weight=1e-6))
    spent = plan.devices.device_j - (0 if problem.choose_clocks else plan.devices.compute_j)
    assert (spent >= least_energy(problem) * (1 - 1e-9)).all()


def test_the_front_ends_where_all_are_done() -> None:
    problem = with_radio(reference(4, fixed=True), [0.3, 0.05, 0.02, 1.0], 0.5)
    end = pareto.frugal_round(problem)
    assert np.isfinite(end)
    points = pareto.front(problem, 8, longest=10 * end)
    assert points[-1].latency <= end * (1 + 1e-9)
    energies = [point.energy for point in points]
    assert energies == sorted(energies, reverse=True)
    assert pareto.frugal_round(with_radio(reference(4), 0.3)) == np.inf  # slower clocks always save


def test_a_cap_that_circuits_use_up_is_refused() -> None:
    """Over the whole band a device could keep it; two of them together cannot, however long the round."""
    problem = with_radio(reference(2, fixed=True, latency_weight=0.1), 1.0, 0.5)
    alone = least_energy(problem)
    plan = optimal.solve(problem.change(radio_cap=1.0001 * alone))
    assert plan.status is Status.INFEASIBLE and "circuits" in plan.advice[0]
    assert optimal.solve(problem.change(radio_cap=3 * alone)).status is Status.OPTIMAL
    under = optimal.solve(problem.change(radio_cap=0.5 * alone))
    assert under.status is Status.INFEASIBLE and "too small" in under.advice[0]


def test_equal_shares_that_cannot_keep_a_cap_are_refused() -> None:
    problem = with_radio(reference(4, fixed=True), [0.3, 0.0, 1.0, 0.05], 0.5)
    free = optimal.solve(problem)
    problem = problem.change(radio_cap=np.where(np.arange(4) == 0, 0.8 * free.devices.transmit_j, np.inf))
    assert optimal.solve(problem).status is Status.OPTIMAL
    for name in ("equal-bandwidth", "bcd"):
        plan = allocate(problem, name)
        assert plan.status is Status.INFEASIBLE and "share of the band" in plan.advice[0]


@pytest.mark.parametrize("limit", ["bandwidth", "max_power", "radio_cap", "energy_cap", "deadline"])
def test_shadow_prices_are_derivatives(limit: str) -> None:
    problem = with_radio(reference(4, fixed=True, latency_weight=0.6), [0.1, 0.02, 0.3, 0.0], 0.4)
    if limit.endswith("cap"):
        free = optimal.solve(problem).devices.transmit_j
        spent = free if limit == "radio_cap" else free + optimal.solve(problem).devices.compute_j
        caps = np.where(np.arange(4) == 2, 0.985 * spent, np.inf)
        problem = problem.change(**{limit: caps})
    if limit == "deadline":
        problem = problem.change(deadline=0.95 * optimal.solve(problem).latency)
    if limit == "max_power":
        problem = problem.change(latency_weight=0.97)
    plan, step = optimal.solve(problem), 1e-5
    prices = plan.shadow_prices
    assert prices is not None

    def moved(factor: float, k: int) -> Problem:
        if limit == "deadline":
            return problem.change(deadline=problem.deadline * factor)
        if limit == "bandwidth":
            return problem.change(
                network=replace(problem.network, bandwidth=problem.network.bandwidth * factor)
            )
        values = np.array(problem.network.max_power if limit == "max_power" else problem.each(limit), float)
        values[k] *= factor
        if limit == "max_power":
            return problem.change(network=replace(problem.network, max_power=values))
        return problem.change(**{limit: values})

    if limit == "deadline":
        size = np.array([problem.deadline])
    else:
        size = problem.each(limit) if limit.endswith("cap") else getattr(problem.network, limit)
    named = np.atleast_1d(getattr(prices, "power" if limit == "max_power" else limit))
    assert named.max() > 0
    for k in range(len(named)):
        if not np.isfinite(size[k]):
            continue
        more, less = (optimal.solve(moved(1 + sign * step, k)).objective for sign in (1, -1))
        slope = (less - more) / (2 * step * size[k])
        assert named[k] == pytest.approx(slope, rel=2e-3, abs=1e-6 * plan.objective / size[k])


def test_budgets_count_circuits_and_receiving() -> None:
    problem = with_radio(reference(3), [0.1, 0.4, 0.0], 0.5, [0.2, 0.0, 1.0]).change(delay=0.1, receiving=0.1)
    prices = np.array([0.5, 0.0, 2.0])
    controller = online.Controller(problem, np.ones(3), 1.0, prices)
    plan = controller.step(problem.network.gain[0])
    assert plan.lower_bound <= plan.objective and plan.gap < 1e-9
    spent = plan.devices.device_j
    np.testing.assert_allclose(controller.queues, np.maximum(prices + spent - 1.0, 0.0), rtol=1e-12)
