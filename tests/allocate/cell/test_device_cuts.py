"""A cut for every device: the best of all combinations, within a bound that no combination is below."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import bits, cuts, device_cuts, optimal
from sflam.allocate.cell.cut_bounds import CutBounds
from sflam.allocate.cell.cut_options import CutOptions
from sflam.allocate.cell.problem import Problem
from sflam.cost.traffic import expected_traffic
from sflam.network.reference import ref_a
from sflam.plan import Status
from tests.allocate.cell.builders import SEEDS, WORK, reference
from tests.allocate.cell.radios import drawn_radio

CUTS = (0, 3, 6, 11)


def unlike(seed: int, most: int) -> Problem:
    """Devices of unlike speed and place, a slow server, and now and then a deadline, caps, static power, clocks."""
    draw = np.random.default_rng(seed)
    count = int(draw.integers(1, most + 1))
    network = ref_a(
        count,
        int(draw.integers(1e6)),
        bandwidth=float(np.exp(draw.uniform(np.log(1e6), np.log(1e8)))),
        radius=float(draw.uniform(60, 1000)),
    )
    network = replace(
        network,
        max_clock=network.max_clock * np.exp(draw.uniform(-2, 2, count)),
        energy_weight=draw.uniform(0.2, 3, count),
        static_power=draw.uniform(0, 1, count) * (draw.random() < 0.4),
        server_flops_per_cycle=network.server_flops_per_cycle * np.exp(draw.uniform(-6, 1)),
        server_kappa=network.server_kappa + 1e-26 * (draw.random() < 0.5),
    )
    problem = Problem(
        network=network,
        workload=WORK,
        latency_weight=float(draw.uniform(0.05, 0.99)),
        choose_clocks=bool(draw.random() < 0.7),
        delay=draw.uniform(0, 0.1, count),
        local_steps=draw.integers(1, 4, count),
    )
    plan = cuts.solve(problem, CUTS)
    if draw.random() < 0.4:
        problem = problem.change(deadline=plan.latency * draw.uniform(0.8, 1.3))
    if draw.random() < 0.3:
        cap = np.where(
            draw.random(count) < 0.5, np.inf, plan.devices.device_j * draw.uniform(0.6, 1.5, count)
        )
        problem = problem.change(energy_cap=cap)
    return problem


def exhaustive(problem: Problem, choices: Sequence[int]) -> float:
    """Return the least objective over all combinations of cuts, each solved exactly; inf where none is possible."""
    found = np.inf
    for each in itertools.product(choices, repeat=len(problem)):
        plan = cuts.look(problem, np.array(each))
        if plan.status is not Status.INFEASIBLE:
            found = min(found, plan.objective)
    return found


def expect_best(problem: Problem, choices: Sequence[int]) -> tuple[float, float]:
    """Compare with all combinations; return the objective and the best of one cut for all."""
    plan, best = device_cuts.solve(problem, choices), exhaustive(problem, choices)
    common = cuts.solve(problem, choices).objective
    if np.isinf(best):
        assert plan.status is Status.INFEASIBLE and plan.advice
        return np.inf, common
    assert plan.objective == pytest.approx(best, rel=1e-9)
    assert plan.lower_bound <= best * (1 + 1e-9)
    assert plan.status is Status.OPTIMAL or len(problem) > 3
    return plan.objective, common


def test_it_is_the_best_of_all_combinations() -> None:
    found = [expect_best(unlike(seed, 3), CUTS) for seed in range(13)]
    assert sum(own < common * (1 - 1e-6) for own, common in found) >= 4, "one cut for all is not the optimum"
    assert any(np.isfinite(own) and np.isinf(common) for own, common in found), "nor always possible"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_it_is_the_best_of_thousands_of_combinations(seed: int) -> None:
    draw = np.random.default_rng(seed)
    problem = unlike(1000 + seed, 6)
    most = int(min(6, np.floor(4096 ** (1 / len(problem)))))
    expect_best(problem, sorted(draw.choice(12, most, replace=False).tolist()))


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_no_cuts_are_below_the_bound(seed: int) -> None:
    problem, draw = unlike(seed, 12), np.random.default_rng(seed)
    plan = device_cuts.solve(problem, range(12))
    for _ in range(10):
        other = cuts.look(problem, draw.integers(0, 12, len(problem)))
        if other.status is not Status.INFEASIBLE:
            assert plan.lower_bound <= other.objective * (1 + 1e-9)
            assert plan.objective <= other.objective * (1 + 1e-9) or len(problem) > 3
    if plan.status is not Status.INFEASIBLE:
        assert plan.lower_bound <= plan.objective <= cuts.solve(problem, range(12)).objective * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_no_better_cuts_are_ruled_out_whichever_are_known(seed: int) -> None:
    """A device with static power and a cap can be done neither too soon nor too late."""
    draw = np.random.default_rng(seed)
    network = ref_a(2, seed, bandwidth=float(np.exp(draw.uniform(np.log(3e5), np.log(1e7)))))
    network = replace(network, energy_weight=np.array([1e-3, 1e3]), static_power=np.array([1.0, 0.0]))
    problem = Problem(network=network, workload=WORK, latency_weight=0.05)
    cap = cuts.look(problem, 1).devices.device_j[0] * draw.uniform(1.2, 4)
    options = CutOptions(
        problem.change(energy_cap=np.array([cap, np.inf])), np.array([0, 1, 3]), lambda here: here
    )
    search = device_cuts.CutSearch(options)
    every = [np.array(rows) for rows in itertools.product(range(3), repeat=2)]
    totals = np.array([search(rows)[0] for rows in every])
    best = every[int(totals.argmin())]
    for rows, total in zip(every, totals.tolist(), strict=True):
        solution = search(rows)[1]
        if solution is not None and total > totals.min() * (1 + 1e-9):
            found = CutBounds(options, total, rows, solution, close=False)
            assert found.lower <= totals.min() * (1 + 1e-9)
            assert found.may[best, np.arange(2)].all()


@pytest.mark.parametrize("count", [20, 500])
def test_a_fleet_under_a_deadline(count: int) -> None:
    draw = np.random.default_rng(0)
    network = ref_a(count, 0, bandwidth=1e6 * count)
    network = replace(
        network,
        max_clock=network.max_clock * np.exp(draw.uniform(-1.5, 1.5, count)),
        server_flops_per_cycle=network.server_flops_per_cycle * 0.0025 * count,
    )
    problem = Problem(network=network, workload=WORK)
    problem = problem.change(deadline=cuts.solve(problem, range(12)).latency * 0.9)
    common, own = cuts.solve(problem, range(12)), device_cuts.solve(problem, range(12))
    assert own.objective < 0.95 * common.objective
    assert own.gap < 0.01 and own.latency <= problem.deadline * (1 + 1e-9)
    assert len(set(own.devices.cut.tolist())) > 3


def test_a_device_that_can_hold_no_cut_is_named() -> None:
    problem = reference(4)
    memory = np.array([np.inf, 300e6, 50e6, 1.0])
    small = problem.change(network=replace(problem.network, memory=memory))
    refused = device_cuts.solve(small, (0, 1, 2))
    assert refused.status is Status.INFEASIBLE and refused.advice[0].startswith("device 3 ")
    memory[3] = 40e6
    found = device_cuts.solve(problem.change(network=replace(problem.network, memory=memory)), (1, 2, 0))
    assert (found.devices.cut <= [2, 1, 0, 0]).all()


def test_delays_that_hang_on_the_cut() -> None:
    """With a slow way down before the second block alone, nobody is cut there."""
    problem = unlike(0, 3).change(deadline=np.inf, energy_cap=np.inf)

    def place(here: Problem) -> Problem:
        return here.change(delay=np.where(here.each("cut") == 3, 1e3, 0.0))

    plain = device_cuts.solve(problem.change(delay=0.0), (0, 6, 11))
    assert 3 not in device_cuts.solve(problem, CUTS, place).devices.cut
    assert device_cuts.solve(problem, CUTS, place).objective == pytest.approx(plain.objective, rel=1e-9)


def test_cuts_and_bits_in_turns() -> None:
    problem = unlike(10, 4).change(sensitivity=0.3, deadline=np.inf, energy_cap=np.inf)
    both = device_cuts.solve_with_bits(problem, range(12), lambda here: here)
    common = cuts.solve(problem, range(12), lambda here: bits.solve(here, certify=False))
    assert both.objective < common.objective and both.lower_bound == -np.inf
    assert both.status is Status.FEASIBLE and "not certified together" in both.advice[-1]
    at = cuts.look(problem.change(bits=both.devices.bits), both.devices.cut)
    assert at.objective == pytest.approx(both.objective, rel=1e-9)


def test_one_cut_for_all_has_no_bound_over_cuts() -> None:
    plan = cuts.solve(unlike(0, 4), CUTS)
    assert plan.lower_bound == -np.inf and plan.status is Status.FEASIBLE
    assert "may do better" in plan.advice[-1]


def test_part_of_a_problem_is_that_of_its_devices() -> None:
    problem = unlike(2, 6).change(deadline=np.inf, energy_cap=np.inf)
    problem = problem.change(traffic=expected_traffic(WORK, problem.local_steps, len(problem)))
    index = np.arange(len(problem))[::-2]
    part = problem.only(index)
    assert np.array_equal(part.payload, problem.payload[index])
    assert np.array_equal(part.cycles, problem.cycles[index])
    options = CutOptions(problem, np.array(CUTS), lambda here: here)
    assert options.allowed.all() and (np.diff(options.seconds, axis=0) < 0).all()


@pytest.mark.parametrize("seed", [3, 4, 8])
def test_what_radios_draw_hangs_on_the_cut_too(seed: int) -> None:
    """Circuits while sending, and receiving that takes longer at some cuts: still the best of all combinations."""
    problem = drawn_radio(unlike(seed, 3), seed).change(deadline=np.inf, energy_cap=np.inf)
    power = np.full(len(problem), 2.0)
    problem = problem.change(network=replace(problem.network, receive_power=power), delay=0.0)

    def place(here: Problem) -> Problem:
        seconds = 0.02 * (1 + here.each("cut") % 4)
        return here.change(delay=seconds, receiving=seconds)

    def objective(chosen: np.ndarray) -> float:
        return cuts.look(problem, chosen, lambda here: optimal.solve(place(here))).objective

    every = itertools.product(CUTS, repeat=len(problem))
    best = min(objective(np.array(each)) for each in every)
    for start in (problem, place(problem.change(cut=11))):  # what a job's own cut receives is not counted
        plan = device_cuts.solve(start, CUTS, place)
        assert plan.objective == pytest.approx(best, rel=1e-9)
        assert plan.lower_bound <= best * (1 + 1e-9) and plan.gap < 1e-6
