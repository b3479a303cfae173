"""The least energy of a round: no plan uses less, and a device alone reaches it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import optimal
from sflam.allocate.cell.frugal import least_energy
from sflam.allocate.cell.problem import Problem
from sflam.network.channel import rate_in_nats
from sflam.plan import Plan
from tests.allocate.cell.builders import SEEDS, random_problem, reference


def spent(problem: Problem, plan: Plan) -> np.ndarray:
    """Return J [K] that a plan counts."""
    joules = plan.devices.transmit_j + plan.devices.idle_j
    return joules + (plan.devices.compute_j if problem.choose_clocks else 0.0)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_no_plan_uses_less_than_the_least_energy(seed: int) -> None:
    problem = random_problem(seed, most=5)
    least = least_energy(problem)
    plan = optimal.solve(problem.change(latency_weight=1e-6))
    assert (spent(problem, plan) >= least * (1 - 1e-9)).all()
    late = problem.change(deadline=plan.latency * (1 + 1e-9))  # to the bit, rounding decides
    within = least_energy(late)
    assert (spent(problem, plan) >= within * (1 - 1e-9)).all()
    assert (within >= least * (1 - 1e-9)).all()


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("power", [0.0, 0.02, 2.0])
@pytest.mark.parametrize("factor", [1.001, 2.0, 50.0])
def test_it_is_the_least_over_a_grid_of_powers_and_clocks(fixed: bool, power: float, factor: float) -> None:
    problem = reference(1, 3, fixed=fixed)
    network = replace(problem.network, static_power=np.full(1, power))
    shortest = optimal.solve(problem.change(network=network, latency_weight=1.0)).latency
    problem = problem.change(network=network, deadline=factor * shortest)
    least = float(least_energy(problem)[0])
    p = network.max_power * np.geomspace(1e-7, 1, 4000)
    f = network.max_clock * (np.geomspace(1e-3, 1, 3000) if not fixed else np.ones(1))
    t = problem.payload / rate_in_nats(network.bandwidth, p, network.gain[0], network.noise)
    tau = problem.cycles / f
    time = problem.base_s + problem.each("local_steps") * problem.each("delay") + t[:, None] + tau[None, :]
    joules = (p * t)[:, None] + power * time
    if not fixed:
        joules = joules + (network.kappa * f**2 * problem.cycles)[None, :]
    grid = float(joules[time <= problem.deadline].min())
    assert least <= grid * (1 + 1e-9) and grid == pytest.approx(least, rel=0.02)


def test_a_device_too_slow_for_the_deadline_has_none() -> None:
    problem = reference(2)
    shortest = optimal.solve(problem.change(latency_weight=1.0)).latency
    assert np.isinf(least_energy(problem.change(deadline=shortest / 100))).all()


def test_nothing_drawn_and_no_deadline_is_an_endless_round() -> None:
    problem = reference(3)
    expected = problem.network.noise / problem.network.gain[0] * problem.payload
    np.testing.assert_allclose(least_energy(problem), expected, rtol=1e-12)
