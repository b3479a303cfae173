"""Algorithm Q against exhaustive search, its certificate, and its acceptance values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from sflam.allocate import baselines, bits, optimal
from sflam.allocate.bits_bound import least_total
from sflam.allocate.bits_moves import CHANGES, hopeful
from sflam.allocate.problem import quantization_noise
from sflam.plan import Status
from tests.allocate.builders import WORK, random_problem, reference, with_sensitivity


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
    near = bits.cost_table(problem, solution.time, solution.price, widths, solution.answer)
    slow = bits.cost_table(problem, solution.time, solution.price, widths)
    for one, other in zip(near, slow, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7)


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
        common, _ = bits.best_common(problem)
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
