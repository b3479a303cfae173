"""Devices that wait for each other at every step (1.14): against a general solver, and event by event."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.allocate.cell import barrier, cuts, device_cuts, optimal, pareto
from sflam.allocate.cell.airtime import AirtimeCell
from sflam.allocate.cell.problem import Problem
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.cost.timing import expected_steps
from sflam.plan import Status
from tests.allocate.cell.airtime import random_airtime, sharing_time
from tests.allocate.cell.builders import SEEDS, WORK, capped, random_problem, reference
from tests.allocate.cell.waits import general, given_by, played, waiting

LIMIT = 1e-6
NEARLY = 1e-4
"""Gap where rounds may be nearly all waiting: doubles then tell apart what is left of their times no better."""


def drawn(seed: int, airtime: bool, most: int = 8) -> Problem:
    """Return a random cell that waits; with ``airtime``, one that shares the time of a channel."""
    return waiting((random_airtime if airtime else random_problem)(seed, most=most), seed)


@pytest.mark.parametrize("airtime", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_that_of_a_general_solver(seed, airtime):
    problem = drawn(seed, airtime, 5)
    if len(problem) == 1:
        problem = drawn(seed + 100, airtime, 5)
    plan = optimal.solve(problem)
    assert plan.status is Status.OPTIMAL and plan.gap < LIMIT
    best = general(problem, given_by(plan))
    assert plan.lower_bound <= best * (1 + 1e-8)
    assert plan.objective == pytest.approx(best, rel=LIMIT)


@pytest.mark.parametrize("airtime", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_limits_hold_and_the_optimum_within_them_is_found(seed, airtime):
    """Deadlines, caps on radio, computing and both, with power drawn while waiting."""
    problem = drawn(seed + 40, airtime, 5)
    free = optimal.solve(problem)
    limited = capped(problem, free, seed)
    plan = optimal.solve(limited)
    if plan.status is Status.INFEASIBLE:
        assert not len(plan.devices) and plan.advice
        return
    assert plan.gap < LIMIT and plan.objective >= free.objective * (1 - 1e-9)
    best = general(limited, given_by(plan))
    assert plan.lower_bound <= best * (1 + 1e-8)
    assert plan.objective <= best * (1 + LIMIT)


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.booleans())
def test_every_plan_is_certified_and_takes_what_is_played(seed, airtime):
    problem = drawn(seed, airtime)
    plan = optimal.solve(problem)
    assert plan.gap < NEARLY, plan.gap
    assert plan.latency - problem.base_s == pytest.approx(played(problem, given_by(plan)), rel=1e-9)
    for method in ("equal", "random", "equal-bandwidth"):
        rival = allocate(problem, method)
        assert rival.objective >= plan.lower_bound * (1 - 1e-12)
        assert rival.latency == pytest.approx(problem.base_s + played(problem, given_by(rival)), rel=1e-9)


@settings(max_examples=80, deadline=None)
@given(SEEDS, st.booleans())
def test_a_chain_is_one_stage(seed, airtime):
    """The interior point and the two prices of the chain are different solvers: they agree."""
    problem = random_airtime(seed) if airtime else random_problem(seed)
    cell, ones = problem.cell, np.ones((1, len(problem)))
    heard = cell.down if isinstance(cell, AirtimeCell) else np.zeros(len(cell))
    found = barrier.best(cell, np.ones(1), cell.delay[None].astype(float), ones, ones, heard[None])
    chain = optimal.Market(cell).solve()
    assert found.objective == pytest.approx(chain.objective, rel=1e-7)
    assert found.lower_bound <= chain.objective * (1 + 1e-9)
    assert found.lower_bound >= found.objective * (1 - NEARLY)


def test_waiting_costs_and_a_plan_of_chains_is_no_better():
    problem = waiting(reference(8, 1), 3)
    plan, chain = optimal.solve(problem), optimal.solve(problem.change(lockstep=None))
    assert chain.lower_bound < plan.lower_bound
    charged = score(problem, given_by(chain))
    assert charged.objective > plan.objective * (1 + 1e-3) and charged.latency > chain.latency


def test_one_device_waits_for_nobody():
    problem = waiting(reference(1, 1), 3)
    chain = optimal.solve(problem.change(lockstep=None))
    assert optimal.solve(problem).objective == chain.objective


def test_a_deadline_too_short_is_refused_with_the_shortest_round():
    problem = waiting(reference(6, 2), 1)
    fastest = optimal.solve(problem.change(latency_weight=1.0))
    plan = optimal.solve(problem.change(deadline=0.9 * fastest.latency))
    assert plan.status is Status.INFEASIBLE and "the shortest possible round takes" in plan.advice[0]
    said = float(plan.advice[0].split("takes ")[1].split(" s:")[0])
    assert said == pytest.approx(fastest.latency, rel=1e-5)
    held = optimal.solve(problem.change(deadline=1.01 * fastest.latency))
    assert held.latency <= 1.01 * fastest.latency * (1 + 1e-12) and held.gap < LIMIT


@pytest.mark.parametrize("full", [None, 0.0, 1.0])
def test_shadow_prices_are_what_a_little_more_is_worth(full):
    """Over a band, and in slots of a channel, of which two devices know full power alone."""
    problem = waiting(reference(5, 4), 7)
    if full is not None:
        strong = problem.network.max_power * np.array([1.0, 0.02, 1.0, 1.0, 1.0])
        problem = problem.change(
            network=replace(problem.network, max_power=strong, circuit_power=np.full(5, 0.05))
        )
        problem = sharing_time(problem.change(latency_weight=0.1), full * np.array([1.0, 0.0, 0.0, 1.0, 0.0]))
    free = optimal.solve(problem)
    caps = free.devices.transmit_j * (0.8 if full is None else 0.98)
    problem = problem.change(
        deadline=0.97 * free.latency, radio_cap=np.where(np.arange(5) == 2, caps, np.inf)
    )
    plan = optimal.solve(problem)

    def worth(more: Problem, by: float) -> float:
        return (plan.objective - optimal.solve(more).objective) / by

    band, much = problem.network.bandwidth[0], 1e-4
    wider = problem.change(network=replace(problem.network, bandwidth=problem.network.bandwidth * (1 + much)))
    assert plan.shadow_prices.bandwidth == pytest.approx(worth(wider, much * band), rel=2e-3)
    later = problem.change(deadline=problem.deadline * (1 + much))
    assert plan.shadow_prices.deadline == pytest.approx(worth(later, much * problem.deadline), rel=2e-3)
    cap = problem.radio_cap[2] * much
    looser = problem.change(radio_cap=problem.radio_cap + np.where(np.arange(5) == 2, cap, 0.0))
    assert plan.shadow_prices.radio_cap[2] == pytest.approx(worth(looser, cap), rel=2e-3)
    for k in range(5):
        power = problem.network.max_power
        stronger = problem.change(
            network=replace(problem.network, max_power=power * (1 + much * (np.arange(5) == k)))
        )
        found, by = plan.shadow_prices.power[k], much * power[k]
        assert found == pytest.approx(worth(stronger, by), rel=2e-3, abs=1e-9 * plan.objective / by)
    if full is not None:
        assert plan.shadow_prices.airtime > 0


@pytest.mark.parametrize("seed", [2, 5])
def test_bits_and_cuts_are_chosen_and_bounded_by_chains(seed):
    problem = waiting(reference(4, seed, sensitivity=0.3), seed)
    chains = allocate(problem.change(lockstep=None), "bits")
    plan = allocate(problem, "bits")
    assert plan.lower_bound == chains.lower_bound <= plan.objective
    for width in (2, 8, 16):
        assert plan.objective <= optimal.solve(problem.change(bits=width)).objective * (1 + 1e-9)
    cut = device_cuts.solve(problem, range(4), lambda here: here)
    for one in range(4):
        common = problem.change(cut=one)
        turn = cuts.look(common, one)
        assert cut.objective <= turn.objective * (1 + 1e-9)
    assert cut.lower_bound <= cut.objective


def test_a_front_is_the_least_energy_within_each_time():
    problem = waiting(reference(4, 3), 3)
    points = pareto.front(problem, 5)
    assert all(one.energy > two.energy for one, two in itertools.pairwise(points))
    middle = points[2]
    plan = optimal.solve(problem.change(latency_weight=middle.latency_weight))
    assert plan.latency == pytest.approx(middle.latency, rel=1e-4)


def test_labels_on_the_device_and_a_trunk_that_answers_in_turn():
    """The second exchange is a stage of its own: of all devices at once, or of one after another."""
    work = replace(WORK, exchanges=2, head_forward=1e9, head_backward=2e9)
    count = 4
    lockstep = expected_steps(work, [2, 2, 3, 2.5], count)
    problem = reference(count, 3).change(
        workload=work, local_steps=[2, 2, 3, 2.5], lockstep=lockstep, delay=np.linspace(0.1, 0.4, count)
    )
    plan = optimal.solve(problem)
    assert plan.gap < LIMIT
    given, network = given_by(plan), problem.network
    speed = given.clock * network.flops_per_cycle
    rate = given.bandwidth * np.log2(1 + given.power * network.gain[0] / (network.noise * given.bandwidth))
    up = work.activation_bits(8) / rate
    head = (work.head_forward + work.head_backward) / speed
    ahead = (work.device_forward[1] - work.head_forward) / speed
    behind = (work.device_backward[1] - work.head_backward) / speed
    down = problem.each("delay") / 2
    first, middle, last = ahead + up, down + head + up, down + behind
    rows = np.clip(problem.each("local_steps") - np.arange(3)[:, None], 0, 1)
    whole = sum((row * first).max() + (row * middle).max() + (row * last).max() for row in rows)
    assert plan.latency == pytest.approx(whole, rel=1e-9)
    turns = problem.change(lockstep=replace(lockstep, one_by_one=True))
    slow = score(turns, given)
    one_by_one = sum((row * first).max() + (row * middle).sum() + (row * last).max() for row in rows)
    assert slow.latency == pytest.approx(one_by_one, rel=1e-9)
    best = optimal.solve(turns)
    assert best.gap < LIMIT and plan.objective < best.objective <= slow.objective * (1 + 1e-9)


@pytest.mark.parametrize("airtime", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_no_plan_is_outside_its_limits_by_a_rounding_error(seed: int, airtime: bool) -> None:
    """A search that ends a little outside is drawn inside: no plan is refused for that."""
    problem = drawn(seed, airtime)
    plan = optimal.solve(problem)
    assert (plan.devices.bandwidth * plan.devices.airtime).sum() <= problem.network.bandwidth[0] * (1 + 1e-9)
    assert plan.status is not Status.INFEASIBLE and plan.gap < NEARLY
    tight = capped(problem, plan, seed)
    held = optimal.solve(tight)
    if len(held.devices):
        assert held.status is not Status.INFEASIBLE, held.advice
