"""Problem B: its reference square, its statement, its referee, and input with which no plan can be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.edge.baselines import equal, equal_shares
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.statement import edge_problem, layer_flops
from sflam.allocate.referee import Found, loads, make_plan, score
from sflam.cost.reference import ref_b_workload, workloads_of
from sflam.errors import AllocationError
from sflam.network.reference import ref_b
from sflam.plan import ALL_LOCAL, Status
from sflam.stability.theory import soft_bound
from tests.allocate.cell.builders import SEEDS
from tests.allocate.edge.edges import random_edge, square


def test_the_reference_square_is_drawn_in_its_order() -> None:
    edge, draw = ref_b(7, 3, 5), np.random.default_rng(5)
    places, stations = draw.uniform(0, 500, (7, 2)), draw.uniform(0, 500, (3, 2))
    fading = np.maximum(draw.exponential(1.0, (7, 3)), 1e-3)
    assert np.array_equal(edge.tokens, draw.choice([64, 128, 256], 7))
    assert np.array_equal(edge.samples, draw.integers(200, 2000, 7))
    assert np.array_equal(edge.network.max_clock, draw.uniform(0.5e9, 1.5e9, 7))
    km = np.maximum(np.linalg.norm(places[:, None] - stations, axis=-1), 10) / 1e3
    gain = 10 ** (-(128.1 + 37.6 * np.log10(km)) / 10) * fading
    np.testing.assert_allclose(edge.network.gain, gain.T, rtol=1e-12)
    assert [one.tokens for one in workloads_of(edge)] == edge.tokens.tolist()


def test_a_layer_s_training_step_is_counted_as_stated() -> None:
    s, d = 128, 768
    forward = s * (24 * d**2 + 4 * s * d) + 4 * s * 2 * 8 * d
    backward = s * (24 * d**2 + 8 * s * d) + 2 * 4 * s * 2 * 8 * d
    assert layer_flops(ref_b_workload(s)) == pytest.approx(8 * (forward + backward), rel=1e-12)
    printed = layer_flops(ref_b_workload(s, full_training=True), full_training=True)
    assert printed == pytest.approx(8 * (72 * s * d**2 + 12 * s**2 * d), rel=1e-12)
    assert layer_flops(ref_b_workload(s, layers=1)) > 0


def test_the_printed_work_and_stability_are_switches() -> None:
    edge = ref_b(5, 2)
    full = edge_problem(
        edge.network, workloads_of(edge, full_training=True), edge.samples, full_training=True
    )
    assert (full.layer_flops > 1.4 * square(5, 2).layer_flops).all()
    printed = square(5, 2, eigenvalue=0.0)
    assert np.isinf(printed.local[:, 12]).all() and np.isfinite(printed.local[:, 1:12]).all()
    np.testing.assert_allclose(
        printed.instability[:, 3], 2 / (np.asarray(printed.samples) * (1 - 3 / 12)), rtol=1e-12
    )


def test_instability_is_the_bound_of_theory() -> None:
    problem = square(5, 2, lipschitz=1.7, penalty=0.8)
    bound = soft_bound(
        np.arange(13) / 12,
        np.asarray(problem.samples)[:, None],
        lipschitz=1.7,
        eigenvalue=0.1,
        penalty=0.8,
    )
    np.testing.assert_allclose(problem.instability, bound, rtol=1e-13)


def test_the_referee_counts_by_hand() -> None:
    """One user at one server, equal shares: every term of (3.1) from its own formula."""
    problem = square(1, 1, energy_weight=0.3)
    shares = equal_shares(problem, np.array([0]), np.array([4]))
    network, f = problem.network, problem.clock[0]
    assert f == min(network.max_clock[0], (1 / (2 * 0.3 * 1e-28)) ** (1 / 3))
    work, bits = problem.layer_flops[0], 8 * ref_b(1, 1).tokens[0] * (768 * 8 + 32)
    rate = 20e6 * np.log2(1 + network.max_power[0] * network.gain[0, 0] / (network.noise * 20e6))
    here, there = 4 * work / 512, 8 * work / 1024
    delay = here / f + bits / rate + there / 1.5e9
    joules = 1e-28 * f**2 * here + network.max_power[0] * bits / rate + 1.5e-26 * 1.5e9**2 * there
    unstable = 2 / (np.asarray(problem.samples)[0] * (0.1 + 1 - 4 / 12))
    found = score(problem, shares)
    assert found.objective == pytest.approx(delay + 0.3 * joules + 200 * unstable, rel=1e-12)
    assert found.costs.delay == pytest.approx(delay) and found.costs.energy == pytest.approx(0.3 * joules)
    plan = make_plan("mine", Found(problem=problem, shares=shares))
    assert (plan.latency, plan.energy) == pytest.approx((delay, joules))
    assert (plan.devices.cut[0], plan.devices.server[0]) == (4, 0) and plan.devices[0].server_clock == 1.5e9
    assert found.violations == {}


def test_every_broken_limit_is_named() -> None:
    problem = square(4, 2)
    shares = equal(problem).devices
    halves = equal_shares(problem, shares.server, shares.cut)
    for change, name in (
        ({"bandwidth": halves.bandwidth * 1.01}, "bandwidth"),
        ({"server_clock": halves.server_clock * 1.01}, "server clock"),
        ({"power": halves.power * 1.01}, "power"),
        ({"clock": problem.network.max_clock * 1.01}, "clock"),
        ({"split": np.full(4, 12)}, "split"),
        ({"server": np.full(4, ALL_LOCAL)}, "split"),
        ({"bandwidth": halves.bandwidth * 0}, "not a positive number"),
    ):
        broken = replace(halves, **change)
        assert name in score(problem, broken).violations
        plan = make_plan("mine", Found(problem=problem, shares=broken))
        assert plan.status is Status.INFEASIBLE and any(name in advice for advice in plan.advice)
    small = problem.change(network=replace(problem.network, memory=problem.memory[:, 3]))
    assert {"memory", "split"} <= set(score(small, halves).violations)
    deaf = problem.network.gain.copy()
    deaf[halves.server[0], 0] = 0.0
    unheard = problem.change(network=replace(problem.network, gain=deaf))
    assert "reach" in score(unheard, halves).violations


def test_all_local_users_take_nothing() -> None:
    problem = square(3, 2)
    shares = settle(problem, np.full(3, ALL_LOCAL), np.full(3, 12)).shares
    plan = make_plan("mine", Found(problem=problem, shares=shares))
    planned = plan.devices
    assert not (
        planned.bandwidth.any()
        or planned.power.any()
        or planned.server_clock.any()
        or planned.transmit_s.any()
    )
    assert plan.objective == pytest.approx(problem.local[:, 12].sum())
    asked = loads(problem, planned)
    assert not (asked.users.any() or asked.bandwidth.any() or asked.clock.any())


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_settled_shares_hold_the_limits_and_meet_the_optimality_conditions(seed: int) -> None:
    """Random associations: the referee agrees, and no exchange of bandwidth or clock between two users gains."""
    problem, draw = random_edge(seed), np.random.default_rng(seed)
    split = np.array([draw.choice(np.flatnonzero(row)) for row in problem.allowed])
    chance = np.where(problem.reachable, draw.random(problem.reachable.shape), -1)
    server = np.where(split == problem.layers, ALL_LOCAL, chance.argmax(axis=0))
    found = settle(problem, server, split)
    scored = score(problem, found.shares)
    assert not scored.violations
    assert found.objective == pytest.approx(scored.objective, rel=1e-9)
    for m in range(problem.servers):
        mine = np.flatnonzero(server == m)
        for name in ("bandwidth", "server_clock") if len(mine) > 1 else ():
            values = getattr(found.shares, name).copy()
            a, b = draw.choice(mine, 2, replace=False)
            step = 0.01 * min(values[a], values[b])
            values[a], values[b] = values[a] + step, values[b] - step
            moved = replace(found.shares, **{name: values})
            assert score(problem, moved).objective >= scored.objective * (1 - 1e-9)


def changed(**changes: Any) -> EdgeProblem:
    problem = square(4, 2)
    of_network = ("gain", "bandwidth", "server_kappa", "max_clock", "noise")
    arrays = {name: changes.pop(name) for name in of_network if name in changes}
    network = replace(problem.network, **arrays) if arrays else problem.network
    return problem.change(network=network, **changes)


def test_workloads_that_do_not_belong_together_are_refused() -> None:
    edge = ref_b(3, 2)
    own = workloads_of(edge)
    for workloads in (own[:2], (*own[:2], ref_b_workload(128, layers=3))):
        with pytest.raises(AllocationError, match=r"workloads of .* blocks for 3 users; give one each"):
            edge_problem(edge.network, workloads, edge.samples)


def test_impossible_input_is_reported_in_one_line() -> None:
    gain = square(4, 2).network.gain.copy()
    gain[:, 2] = 0.0
    room = np.array([np.inf, 1e6, np.inf, np.inf])
    each = np.ones(4)
    for changes, sentence in (
        ({"gain": gain}, r"user-2 can be reached by no server"),
        ({"gain": gain * np.nan}, r"gain of user-0, user-1, user-2 and 1 more is not a number"),
        ({"most_split": 13}, r"splits 1 to 13 of a model with 12 layers"),
        ({"least_split": 0}, r"splits 0 to 12"),
        ({"least_split": 5, "most_split": 4}, r"splits 5 to 4"),
        ({"memory": None, "layers": 0}, r"0 layers; it needs at least 1"),
        ({"transmit_delay": False}, r"no plan attains the optimum"),
        ({"time_weight": 0.0}, r"time_weight is 0.0; it must be positive"),
        ({"energy_weight": -1.0}, r"energy_weight is -1.0"),
        ({"stability_weight": np.nan}, r"stability_weight is nan"),
        ({"samples": each * 0}, r"samples of user-0.* is 0.0; it must be positive"),
        ({"payload": each[:2]}, r"payload has shape \[2\]; give one per user \(4\)"),
        ({"eigenvalue": 0.0, "least_split": 12}, r"bound is then infinite"),
        ({"bandwidth": np.array([1.0, 0.0])}, r"bandwidth of server 1 is 0.0"),
        ({"server_kappa": np.array([1.0, -1.0])}, r"server_kappa of server 1"),
        ({"max_clock": each * 0}, r"max_clock of user-0"),
        ({"noise": 0.0}, r"noise is 0.0"),
    ):
        with pytest.raises(AllocationError, match=sentence) as caught:
            changed(**changes)
        assert "\n" not in str(caught.value)
    problem = square(4, 2)
    with pytest.raises(
        AllocationError, match=r"no split fits the memory of user-1: 1 layers need .* 1.00 MB"
    ):
        problem.change(network=replace(problem.network, memory=room))
