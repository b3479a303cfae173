"""Algorithm Q against exhaustive search, its certificate, and its acceptance values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sflam.allocate.cell import baselines, bits, optimal
from sflam.allocate.cell.bits_bound import least_total
from sflam.allocate.cell.bits_moves import CHANGES, hopeful
from sflam.allocate.cell.problem import quantization_noise
from sflam.plan import Status
from tests.allocate.cell.builders import WORK, random_problem, reference, with_sensitivity


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_algorithm_q_equals_exhaustive_search(seed: int) -> None:
    problem = with_sensitivity(3, seed, bit_choices=tuple(range(2, 9)))
    exact = bits.Search(problem)
    best = min(exact.solve(np.array(widths))[0] for widths in itertools.product(range(2, 9), repeat=3))
    plan = bits.solve(problem)
    assert plan.objective == pytest.approx(best, rel=1e-12)
    assert plan.objective == pytest.approx([0.634793, 0.220624, 0.252232][seed], abs=1e-6)
    assert plan.lower_bound <= best and plan.gap <= 2e-3


def test_twenty_devices_are_certified() -> None:
    plan = bits.solve(with_sensitivity(20))
    assert plan.objective == pytest.approx(0.961207, abs=1e-6)
    assert 0.960946 <= plan.lower_bound <= plan.objective and plan.gap <= 1e-3


def test_ten_devices_and_the_best_common_width() -> None:
    problem = with_sensitivity(10)
    common, single = baselines.fixed_bits(problem), baselines.fixed_bits(problem, 8)
    assert set(common.devices.bits.tolist()) == {4}
    assert common.objective == pytest.approx(0.7498, abs=1e-4)
    assert single.objective == pytest.approx(1.1381, abs=1e-4)
    assert bits.solve(problem, certify=False).objective == pytest.approx(0.636813, abs=1e-6)


def test_a_thousand_devices() -> None:
    plan = bits.solve(with_sensitivity(1000), certify=False)
    assert plan.objective == pytest.approx(45.6876, abs=2e-4)
    assert plan.advice and plan.lower_bound == -np.inf


@pytest.mark.parametrize("fixed", [True, False])
def test_prices_of_the_table_are_exact(fixed: bool) -> None:
    """Costs read off linear prices (2.17) are those that solving each width gives."""
    problem = reference(12, 1, fixed=fixed, bits=6, latency_weight=0.9)
    market = optimal.Market(problem.cell)
    solution = market.solve()
    widths = np.array(problem.widths)
    times = solution.time * np.array([0.03, 1.0, 1.3])
    slow = bits.cost_table(problem, times, solution.price, widths)
    every, payload = np.arange(len(problem)), problem.payload_at(widths)
    for row in range(len(widths)):
        near = bits.costs_at(problem, solution.time, solution.price, payload[row], every, solution.answer)
        np.testing.assert_allclose(near, slow[0][1, row], rtol=1e-7)
    assert np.isinf(slow[0][0]).any() and np.isfinite(slow[0][1:]).any()
    for place in range(len(times)):  # several times at once are each time on its own
        alone = bits.cost_table(problem, times[place : place + 1], solution.price, widths)
        for item, other in zip(alone, slow, strict=True):
            np.testing.assert_array_equal(item[0], other[place])


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_best_width_is_found_from_wherever_it_is_looked_for(fixed: bool, seed: int) -> None:
    """Costs are convex in the width, so that the descent ends where a look at every width would."""
    chi = np.exp(np.random.default_rng(seed).normal(size=12))
    problem = reference(12, seed, fixed=fixed, bits=6, latency_weight=0.9, sensitivity=chi)
    solution = optimal.Market(problem.cell).solve()
    time, price, eta = bits._prices(problem, solution)
    widths = np.array(problem.widths)
    noise = eta * quantization_noise(widths)[:, None] * chi
    wanted = widths[
        np.argmin(bits.cost_table(problem, np.array([time]), price, widths)[0][0] + noise, axis=0)
    ]
    for start in (widths[0], 6, widths[-1]):
        found = bits._choose(problem, time, price, eta, np.full(12, start))
        np.testing.assert_array_equal(found, wanted)
    known = bits._choose(problem, time, price, eta, np.full(12, 6), solution.answer)
    np.testing.assert_array_equal(known, wanted)


def test_a_sample_s_prices_are_those_of_the_whole() -> None:
    """Time and noise cost what they do in the whole cell, bandwidth as many times more as there is less of it."""
    problem = with_sensitivity(4000).change(bits=4)
    sample = bits.representatives(problem)
    one, other = (bits._prices(each, optimal.Market(each.cell).solve()) for each in (problem, sample))
    assert len(sample) == 1000
    assert other[0] == pytest.approx(one[0], rel=0.05) and other[2] == pytest.approx(one[2], rel=0.05)
    assert other[1] * len(sample) / len(problem) == pytest.approx(one[1], rel=0.1)


def test_a_large_fleet_is_started_from_a_sample_of_it() -> None:
    problem = with_sensitivity(2500)
    plan = bits.solve(problem)
    common = baselines.fixed_bits(problem, 4)
    assert plan.status is Status.FEASIBLE and plan.objective < common.objective
    exact = bits._descend(problem, bits.Search(problem), np.full(2500, 4))
    assert plan.objective == pytest.approx(exact[1], rel=1e-6)


def test_without_sensitivity_the_fewest_bits_are_best() -> None:
    plan = bits.solve(reference(6))
    assert set(plan.devices.bits.tolist()) == {2}
    assert plan.gap < 1e-5


def test_bits_hold_limits() -> None:
    problem = with_sensitivity(6)
    free = bits.solve(problem)
    held = bits.solve(
        problem.change(deadline=0.99 * free.latency, radio_cap=2 * free.devices.transmit_j.max())
    )
    assert held.status is not Status.INFEASIBLE and held.advice == ()
    assert held.latency <= 0.99 * free.latency * (1 + 1e-9)
    assert held.lower_bound <= held.objective and held.gap < 1e-2
    assert bits.solve(problem.change(deadline=1e-3)).status is Status.INFEASIBLE


def test_only_widths_of_problem_and_workload_are_given() -> None:
    assert with_sensitivity(2, bit_choices=(0, 4, 8, 99)).widths == (4, 8)
    assert WORK.bit_choices[0] == 1
    plan = bits.solve(with_sensitivity(4, bit_choices=(4, 8)))
    assert set(plan.devices.bits.tolist()) <= {4, 8}


def test_the_least_total_is_at_a_crossing_or_an_end() -> None:
    values, prices = np.array([1.0, 2.0, 4.0]), np.array([0.1, 1.0, 3.0])
    nus = np.linspace(0, 3, 300001)
    dense = ((1 + nus) * (values[:, None] - prices[:, None] * nus).max(axis=0)).min()
    assert least_total(values, prices, 0.0, 3.0) == pytest.approx(dense, abs=1e-4)


def test_noise_of_a_width() -> None:
    np.testing.assert_allclose(quantization_noise([1, 2, 8]), [1, 1 / 9, 255.0**-2], rtol=1e-15)


def test_moves_that_are_not_tried_are_no_better() -> None:
    """At a common width, far from the best bits, and at the best ones: every move passed over is solved for here."""
    passed = tried = 0
    for seed in range(8):
        problem = random_problem(seed, most=8)
        chi = 10.0 ** -(seed % 3) * np.exp(np.random.default_rng(seed).standard_normal(len(problem)))
        problem = problem.change(sensitivity=chi, bits=problem.widths[0])
        common, *_ = bits.best_common(problem)
        found = bits.solve(problem, certify=False)
        for start in (np.full(len(problem), common), np.asarray(found.devices.bits)):
            search = bits.Search(problem)
            best, solution = search.solve(start)
            assert solution is not None
            left = hopeful(problem, bits.cost_table, start, best, solution)
            tried += left.sum()
            for row, k in itertools.product(range(2), range(len(problem))):
                moved = start.copy()
                moved[k] += CHANGES[row]
                if moved[k] in problem.widths and not left[row, k]:
                    passed += 1
                    assert search.solve(moved)[0] >= best * (1 - 1e-9)
    assert passed > tried
