"""All that a round takes among several servers: embedding, head, gradients, adapters; bound and prices with it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.allocate.edge import baselines, dual, exhaustive, slsqp
from sflam.allocate.edge.books import EdgeBooks, chosen, edge_books
from sflam.allocate.edge.market import settle
from sflam.allocate.edge.papers import card, cccp, fractional, hungarian
from sflam.allocate.edge.problem import EdgeProblem
from sflam.allocate.edge.shadow_prices import edge_shadow_prices
from sflam.allocate.edge.shares import EdgeShares
from sflam.allocate.referee import score
from sflam.cost.measure import measure
from sflam.cost.traffic import expected_traffic
from sflam.cost.training import Training
from sflam.network.channel import rate
from sflam.plan import ALL_LOCAL
from tests.allocate.edge.edges import random_edge, square
from tests.allocate.edge.test_edge_shadow_prices import slope

SEEDS = st.integers(0, 10**6)


def with_books(problem: EdgeProblem, seed: int) -> EdgeProblem:
    """Return a problem whose users have random work, traffic and rates down, of the size of what is published."""
    draw = np.random.default_rng(seed)
    users, layers = len(problem), problem.layers
    shape = (users, layers + 1)
    layer, bits = problem.layer_flops[:, None], problem.payload[:, None] / np.log(2)
    served = layer * (layers - np.arange(layers + 1) + draw.uniform(0, 2, shape))
    served[:, layers] = 0.0
    down = bits * draw.uniform(0, 2, shape)
    down[:, layers] = 0.0
    books = EdgeBooks(
        own_flops=layer * (np.arange(layers + 1) + draw.uniform(0, 2, shape)),
        server_flops=served,
        down_bits=down,
        adapters_up=bits * draw.uniform(0, 1, shape) * (draw.random(users) < 0.8)[:, None],
        adapters_down=bits * draw.uniform(0, 1, shape),
        down_rate=np.where(draw.random(users) < 0.7, np.exp(draw.uniform(12, 20, users)), np.inf),
        aggregation_s=float(draw.uniform(0, 1)),
    )
    network = replace(problem.network, receive_power=draw.uniform(0, 2, users))
    return problem.change(books=books, network=network)


def test_a_round_s_cost_is_the_sum_of_its_parts_by_hand() -> None:
    problem = with_books(square(3, 2, 5, layers=4), 5)
    network, books = problem.network, problem.books
    assert books is not None
    server, split = np.array([1, 0, ALL_LOCAL]), np.array([2, 1, 4])
    shares = settle(problem, server, split).shares
    found = score(problem, shares)
    total, ends, handing = 0.0, [], [0.0, 0.0]
    for n, (m, alpha) in enumerate(zip(server, split, strict=True)):
        f = shares.clock[n]
        cycles = books.own_flops[n, alpha] / network.flops_per_cycle[n]
        computing = network.kappa[n] * f**2 * cycles + network.static_power[n] * cycles / f
        down = (books.down_bits[n, alpha] + books.adapters_down[n, alpha]) / books.down_rate[n]
        home = int(network.gain[:, n].argmax()) if m == ALL_LOCAL else m
        gain, full = network.gain[home, n], network.max_power[n]
        after = books.adapters_up[n, alpha] / rate(network.bandwidth[home], full, gain, network.noise)
        handing[home] += after
        send = serve = joules = 0.0
        if m != ALL_LOCAL:
            b, p, g = shares.bandwidth[n], shares.power[n], shares.server_clock[n]
            send = problem.payload[n] / np.log(2) / rate(b, p, gain, network.noise)
            work = books.server_flops[n, alpha] / network.server_flops_per_cycle[m]
            serve = work / g
            joules = problem.energy_weight * network.server_kappa[m] * g**2 * work
            computing += p * send
        seconds = cycles / f + send + serve + down
        ends.append(seconds)
        own = computing + full * after + network.receive_power[n] * down
        shaky = problem.stability_weight * problem.instability[n, alpha]
        total += problem.time_weight * (seconds + after + books.aggregation_s)
        total += problem.energy_price[n] * own + joules + shaky
    assert found.objective == pytest.approx(total, rel=1e-12)
    assert found.latency == pytest.approx(max(ends) + max(handing) + books.aggregation_s, rel=1e-12)
    assert settle(problem, server, split).objective == pytest.approx(total, rel=1e-9)


def test_books_of_nothing_more_are_the_published_problem() -> None:
    plain = square(5, 2, 3, layers=5)
    layer, none = plain.layer_flops[:, None], np.zeros((5, 6))
    own = layer * np.arange(6)
    books = EdgeBooks(
        own_flops=own,
        server_flops=layer * 5 - own,
        down_bits=none,
        adapters_up=none,
        adapters_down=none,
        down_rate=np.full(5, np.inf),
    )
    one, other = dual.solve(plain), dual.solve(plain.change(books=books))
    assert one.objective == pytest.approx(other.objective, rel=1e-12)
    assert one.lower_bound == pytest.approx(other.lower_bound, rel=1e-9)
    assert (one.devices.cut == other.devices.cut).all() and (one.devices.server == other.devices.server).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_all_choices_is_found(seed: int) -> None:
    """Plain loops over every server and split of every user, each with its own convex optimum."""
    problem = with_books(square(2, 2, seed, layers=3), seed)
    options = [(ALL_LOCAL, 3), *((m, alpha) for m in range(2) for alpha in (1, 2))]
    least = min(
        settle(problem, np.array([m for m, _ in pair]), np.array([alpha for _, alpha in pair])).objective
        for pair in product(options, repeat=2)
    )
    assert exhaustive.solve(problem).objective == pytest.approx(least, rel=1e-9)
    assert dual.solve(problem).objective == pytest.approx(least, rel=1e-9)
    assert dual.solve(problem, few=0).lower_bound <= least * (1 + 1e-9)


def test_a_plan_of_activations_alone_costs_more_than_one_of_all() -> None:
    left = []
    for seed in range(4):
        plain = square(6, 2, seed, layers=6)
        problem = with_books(plain, seed)
        blind = EdgeShares.from_plan(dual.solve(plain).devices)
        best = dual.solve(problem).objective
        left.append(score(problem, blind).objective / best - 1)
    assert min(left) >= -1e-9 and max(left) > 0.01


@settings(max_examples=4, deadline=None)
@given(SEEDS)
def test_no_method_of_random_problems_is_below_the_bound(seed: int) -> None:
    problem = with_books(random_edge(seed, most_users=4, most_servers=2, most_layers=4), seed)
    best, plan = exhaustive.solve(problem), dual.solve(problem, rounds=200, few=0)
    assert plan.lower_bound <= best.objective * (1 + 1e-9)
    assert best.objective <= plan.objective * (1 + 1e-9)
    others = [
        baselines.nearest(problem),
        baselines.equal(problem),
        card.solve(problem),
        hungarian.solve(problem),
        fractional.solve(problem, splits="enumerated"),
    ]
    for other in others:
        assert other.objective >= best.objective * (1 - 1e-9), other.method


def test_a_general_solver_finds_no_better_shares() -> None:
    problem = with_books(square(6, 2, 1, layers=4), 1)
    plan = dual.solve(problem)
    away = plan.devices.server, plan.devices.cut
    assert slsqp.solve(problem, away).objective == pytest.approx(plan.objective, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_prices_are_slopes_of_the_optimum(seed: int) -> None:
    problem = with_books(random_edge(seed), seed)
    plan = dual.solve(problem, rounds=100)
    server, split = plan.devices.server, plan.devices.cut
    prices = edge_shadow_prices(problem, settle(problem, server, split))
    for name, column in (
        ("bandwidth", prices.bandwidth),
        ("server_clock", prices.clock),
        ("max_power", prices.power),
    ):
        for index, limit in enumerate(getattr(problem.network, name)):
            wanted = slope(problem, server, split, name, index) * limit
            assert column[index] * limit == pytest.approx(wanted, abs=2e-4 * plan.objective)


def test_the_relaxed_association_counts_what_its_options_cost() -> None:
    problem = with_books(square(3, 2, 2, layers=3), 2)
    options = cccp.options_of(problem)
    relaxed = cccp.Relaxed(problem, options)
    server, split = np.array([0, 1, ALL_LOCAL]), np.array([1, 2, 3])
    x = np.zeros(len(options.user))
    for user in range(3):
        here = (options.user == user) & (options.server == server[user]) & (options.split == split[user])
        x[here] = 1.0
    assert relaxed.value(x)[0] == pytest.approx(settle(problem, server, split).objective, rel=1e-6)


def test_books_are_those_of_the_workload_at_every_split() -> None:
    work = measure("nano-vit", Training(batch=8))
    steps = np.array([3.0, 2.5])
    traffic = expected_traffic(work, steps, 2)
    books = edge_books(
        (work, work),
        traffic,
        steps,
        bits_down=4,
        down_rate=np.array([1e6, np.inf]),
        whole_values=9000,
        backhaul=1e6,
    )
    layers = work.blocks
    for alpha in range(layers):
        own = work.device_forward[alpha] + work.device_backward[alpha]
        rest = work.server_forward[alpha] + work.server_backward[alpha]
        assert books.own_flops[:, alpha].tolist() == (own * steps).tolist()
        assert books.server_flops[:, alpha].tolist() == (rest * steps).tolist()
    last = sum(
        getattr(work, name)[layers]
        for name in ("device_forward", "device_backward", "server_forward", "server_backward")
    )
    assert books.own_flops[:, layers].tolist() == (last * steps).tolist()
    assert not books.server_flops[:, layers].any() and not books.down_bits[:, layers].any()
    assert (np.diff(books.adapters_up[:, 1:layers], axis=1) > 0).all()
    assert (books.adapters_up[:, layers] >= 32 * 9000).all()
    assert books.aggregation_s >= 2 * 32 * 9000 / 1e6
    other = replace(books, own_flops=2 * books.own_flops)
    both = chosen([books, other], np.array([1, 0]))
    assert both.own_flops.tolist() == [other.own_flops[0].tolist(), books.own_flops[1].tolist()]
