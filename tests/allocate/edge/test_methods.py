"""The methods of problem B: acceptance values, certificates, small cases against every choice, baselines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.edge import baselines as edge_baselines
from sflam.allocate.edge import dual as edge_dual
from sflam.allocate.edge import exhaustive as edge_exhaustive
from sflam.allocate.edge import slsqp as edge_slsqp
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.papers import card as edge_card
from sflam.allocate.edge.papers import hungarian as edge_hungarian
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.referee import loads, score
from sflam.allocate.registry import EDGE_METHODS, allocate
from sflam.allocate.settings import EDGE_METHODS as NAMES
from sflam.errors import AllocationError
from sflam.plan import ALL_LOCAL, Plan, Status
from tests.allocate.cell.builders import SEEDS
from tests.allocate.edge.edges import random_edge, square


def small(seed: int, rate: float) -> EdgeProblem:
    return square(4, 2, seed, layers=6, rate=rate)


def assert_held(plan: Plan) -> None:
    assert plan.status is not Status.INFEASIBLE and plan.advice == ()
    assert plan.lower_bound <= plan.objective * (1 + 1e-12)


@pytest.mark.parametrize(
    ("seed", "rate", "objective"),
    [
        (0, 512, 6.727830172),
        (0, 1024, 5.128151065),
        (0, 4096, 3.848540020),
        (1, 512, 6.634169847),
        (1, 4096, 3.344477887),
    ],
)
def test_every_choice_of_a_small_case(seed: int, rate: float, objective: float) -> None:
    plan = edge_exhaustive.solve(small(seed, rate))
    assert plan.objective == pytest.approx(objective, rel=1e-9)
    assert plan.status is Status.OPTIMAL and plan.gap <= 1e-14


def test_the_exhaustive_search_visits_what_plain_loops_visit() -> None:
    problem = square(2, 2, 3, layers=3)
    options = [(ALL_LOCAL, 3), *((m, alpha) for m in range(2) for alpha in (1, 2))]
    least = min(
        settle(problem, np.array([a[0], b[0]]), np.array([a[1], b[1]])).objective
        for a in options
        for b in options
    )
    assert edge_exhaustive.solve(problem).objective == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("rate", [512, 4096])
def test_dual_finds_the_best_of_small_cases(rate: float) -> None:
    for seed in range(6):
        best, plan = edge_exhaustive.solve(small(seed, rate)), edge_dual.solve(small(seed, rate), few=0)
        assert_held(plan)
        assert plan.objective == pytest.approx(best.objective, rel=1e-9)
        assert plan.gap <= 5e-3


@pytest.mark.parametrize(
    ("users", "servers", "most", "gap"), [(20, 4, 51.1953035, 1.0e-3), (40, 5, 109.757, 1.1e-3)]
)
def test_acceptance_values(users: int, servers: int, most: float, gap: float) -> None:
    plan = edge_dual.solve(square(users, servers))
    assert_held(plan)
    assert plan.objective <= most and plan.gap <= gap
    if users == 20:
        assert plan.objective == pytest.approx(51.195303, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(("users", "most", "gap"), [(100, 304.817, 1e-3), (200, 672.448, 3e-3)])
def test_acceptance_values_of_large_cases(users: int, most: float, gap: float) -> None:
    plan = edge_dual.solve(square(users, 10))
    assert_held(plan)
    assert plan.objective <= most and plan.gap <= gap


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_bound_is_below_every_method_of_random_problems(seed: int) -> None:
    problem = random_edge(seed)
    bound, _, _ = edge_dual.ascend(problem, rounds=150)
    plan = edge_dual.solve(problem, rounds=150, budget=60, few=0)
    assert_held(plan)
    assert plan.lower_bound == pytest.approx(bound, rel=1e-12)
    others = [
        edge_baselines.nearest(problem),
        edge_baselines.random(problem, seed % 1000),
        edge_baselines.all_edge(problem),
        edge_baselines.equal(problem),
        edge_card.solve(problem),
        edge_hungarian.solve(problem),
    ]
    for other in others:
        assert_held(other)
        assert bound <= other.objective * (1 + 1e-9), other.method


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_no_choice_of_random_small_problems_is_below_the_bound(seed: int) -> None:
    problem = random_edge(seed, most_users=4, most_servers=2, most_layers=4)
    best, plan = edge_exhaustive.solve(problem), edge_dual.solve(problem, rounds=300, few=0)
    assert plan.lower_bound <= best.objective * (1 + 1e-9)
    assert best.objective <= plan.objective * (1 + 1e-9)
    plan = edge_dual.solve(problem, rounds=30)  # so few choices are all looked at
    assert plan.objective == pytest.approx(best.objective, rel=1e-9) and plan.gap <= 1e-9


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_any_prices_bound(seed: int) -> None:
    """(3.7) holds at prices that no market would have."""
    problem, draw = square(4, 2, seed % 50, layers=4), np.random.default_rng(seed)
    best = edge_exhaustive.solve(problem).objective
    mu, nu = np.exp(draw.uniform(-25, -8, (2, 2)))
    assert edge_dual.Prices(problem).choose(mu, nu).bound <= best


def test_the_search_only_lowers_the_objective() -> None:
    plan = edge_dual.solve(square(40, 5), rounds=30)
    assert len(plan.history) > 1 and (np.diff(plan.history) < 0).all()
    assert plan.history[-1] == pytest.approx(plan.objective, rel=1e-9)


def test_ratios_of_the_baselines() -> None:
    """Those of the table that have one meaning; the random server is drawn from another generator here."""
    problem = square()
    best = edge_dual.solve(problem).objective
    for name, ratio in (("nearest", 1.042), ("all-edge", 1.157), ("all-local", 2.930), ("equal", 1.169)):
        assert allocate(problem, name).objective / best == pytest.approx(ratio, abs=2e-3), name
    planned = edge_dual.solve(problem).devices
    shared = edge_baselines.equal_shares(problem, planned.server, planned.cut)
    assert score(problem, shared).objective / best == pytest.approx(1.006, abs=1e-3)
    assert 1.0 <= allocate(problem, "random", seed=1).objective / best < 1.3
    assert 1.0 <= allocate(problem, "hungarian").objective / best < 1.05
    assert 1.0 <= allocate(problem, "card").objective / best < 1.1


def test_a_general_solver_finds_no_better_shares() -> None:
    problem = square(8, 2)
    plan = edge_dual.solve(problem)
    other = edge_slsqp.solve(problem, (plan.devices.server, plan.devices.cut), starts=2)
    assert_held(other)
    assert other.objective == pytest.approx(plan.objective, rel=1e-6)
    assert other.objective >= plan.objective * (1 - 1e-9)


def test_card_s_clock_is_the_closed_form() -> None:
    problem = square()
    planned = edge_card.solve(problem).devices
    away = planned.server != ALL_LOCAL
    share = 1.5e9 / np.bincount(planned.server[away], minlength=4)[planned.server[away]]
    np.testing.assert_allclose(
        planned.server_clock[away], np.minimum(share, (1 / (2 * 1.5e-26)) ** (1 / 3)), rtol=1e-12
    )


def test_splits_keep_to_memory_and_range() -> None:
    problem = square(12, 3)
    assert problem.memory is not None
    room = problem.memory[np.arange(12), np.arange(12) % 4 + 2]
    tight = problem.change(network=replace(problem.network, memory=room), least_split=2)
    for name in ("dual", "hungarian", "nearest", "card", "equal", "all-edge"):
        plan = allocate(tight, name)
        assert_held(plan)
        assert (plan.devices.cut >= 2).all() and (plan.devices.cut <= np.arange(12) % 4 + 2).all()
    with pytest.raises(AllocationError, match="user 0 may not train all 12 layers"):
        allocate(tight, "all-local")


def test_one_layer_leaves_nothing_to_send() -> None:
    problem = square(3, 2, layers=1)
    for name in ("dual", "nearest", "hungarian", "card", "exhaustive", "fractional", "slsqp"):
        plan = allocate(problem, name)
        assert (plan.devices.server == ALL_LOCAL).all() and (plan.devices.cut == 1).all(), name
    assert edge_dual.solve(problem).gap == 0


def test_the_printed_stability_never_leaves_all_to_a_user() -> None:
    plan = edge_dual.solve(square(8, 2, rate=64.0, eigenvalue=0.0))
    assert_held(plan)
    assert (plan.devices.server != ALL_LOCAL).all() and (plan.devices.cut < 12).all()


def test_free_energy_at_the_servers() -> None:
    """Without kappa, servers' clocks have no best value of their own; all of every clock is used."""
    problem = square(6, 2)
    free = problem.change(network=replace(problem.network, server_kappa=np.zeros(2)))
    plan = edge_dual.solve(free)
    assert_held(plan)
    np.testing.assert_allclose(loads(free, plan.devices).clock, 1.5e9, rtol=1e-9)
    assert plan.gap < 2e-2


def test_methods_are_those_of_the_settings() -> None:
    assert tuple(EDGE_METHODS) == NAMES
    with pytest.raises(AllocationError, match="unknown method 'duel', did you mean 'dual'"):
        allocate(square(2, 1), "duel")
    with pytest.raises(AllocationError, match="use method dual"):
        allocate(square(20, 4), "exhaustive")
    with pytest.raises(AllocationError, match="more than 40"):
        allocate(square(41, 2), "slsqp")
