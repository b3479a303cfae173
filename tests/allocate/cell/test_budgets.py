"""Energy budgets over many rounds: empty queues change nothing, settled prices are the best, budgets hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from sflam.allocate.cell import online, optimal
from sflam.allocate.cell.frugal import least_energy
from sflam.allocate.cell.market import Market
from sflam.allocate.cell.problem import Problem
from sflam.errors import AllocationError
from tests.allocate.cell.builders import SEEDS, random_problem, reference


def faded(problem: Problem, rounds: int, seed: int) -> np.ndarray:
    """Return gains [rounds, K]."""
    draw = np.random.default_rng(seed).exponential(1, (rounds, len(problem)))
    return np.clip(draw, 0.1, 8) * problem.network.gain[0]


def at(problem: Problem, gains: np.ndarray) -> Problem:
    return problem.change(network=replace(problem.network, gain=gains[None]))


def used(problem: Problem, rounds: np.ndarray, prices: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return mean energies [K], mean objective without prices, and mean lam T, each round solved by itself."""
    energy, value, time_cost = np.zeros(len(problem)), 0.0, 0.0
    for gains in rounds:
        cell = at(problem, gains).cell
        priced = replace(cell, weight=cell.weight + prices)
        found = Market(priced).solve()
        spent = found.answer.energy(priced) + priced.compute_energy(found.answer.compute)
        energy += spent / len(rounds)
        value += (cell.latency_weight * found.time + cell.weight @ spent) / len(rounds)
        time_cost += cell.latency_weight * found.time / len(rounds)
    return energy, value, time_cost


def settled(problem: Problem, rounds: np.ndarray, budgets: np.ndarray) -> np.ndarray:
    def use(prices: np.ndarray) -> online.Use:
        energy, _, time_cost = used(problem, rounds, prices)
        return online.Use(energy=energy, time_cost=time_cost)

    weight = (1 - problem.latency_weight) * problem.network.energy_weight
    return online.settled_prices(use, budgets, weight)[0]


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_empty_queues_give_the_plan_without_budgets(seed: int) -> None:
    problem = random_problem(seed, most=5)
    free = optimal.solve(problem)
    controller = online.Controller(problem, np.full(len(problem), 1e-9), 1.0)
    plan = controller.step(problem.network.gain[0])
    assert plan.objective == free.objective and plan.lower_bound == free.lower_bound
    for name in ("bandwidth", "power", "clock"):
        assert getattr(plan.devices, name).tolist() == getattr(free.devices, name).tolist()


@pytest.mark.parametrize("lam", [0.2, 0.9, 1.0])
def test_settled_prices_are_the_multipliers_of_the_budgets(lam: float) -> None:
    problem = reference(4, latency_weight=lam)
    rounds = faded(problem, 8, 1)
    free, _, _ = used(problem, rounds, np.zeros(4))
    budgets = free * np.array([0.4, 0.8, 3.0, 0.6])
    prices = settled(problem, rounds, budgets)
    energy, value, _ = used(problem, rounds, prices)
    assert prices[2] == 0 and (prices[[0, 1, 3]] > 0).all()
    assert energy[[0, 1, 3]] == pytest.approx(budgets[[0, 1, 3]], rel=0.02) and energy[2] < budgets[2]
    # Weak duality: no plans of these rounds that keep the budgets have a smaller mean objective.
    bound = value + prices @ (energy - budgets)
    assert value == pytest.approx(bound, rel=0.02)


def test_loose_budgets_have_no_price() -> None:
    problem = reference(3)
    rounds = faded(problem, 4, 0)
    free, _, _ = used(problem, rounds, np.zeros(3))
    assert settled(problem, rounds, 1.5 * free).tolist() == [0.0] * 3


def test_a_run_keeps_its_budgets_near_the_best_objective() -> None:
    """Two hundred rounds from prices of other rounds: budgets within 2 %, the objective within 5 % of the optimum's."""
    problem = reference(3, fixed=True, latency_weight=0.7)
    earlier, rounds = faded(problem, 24, 2), faded(problem, 200, 3)
    free, _, _ = used(problem, earlier, np.zeros(3))
    least = np.mean([least_energy(at(problem, gains)) for gains in earlier], axis=0)
    budgets = 0.5 * (free + least)
    prices = settled(problem, earlier, budgets)
    patience = 5 * budgets / prices
    controller = online.Controller(problem, budgets, patience, patience * prices)
    weight, value = 0.3 * problem.network.energy_weight, 0.0
    for gains in rounds:
        plan = controller.step(gains)
        value += (0.7 * plan.latency + weight @ plan.devices.transmit_j) / len(rounds)
    assert controller.excess.max() <= 1.02
    best = settled(problem, rounds, budgets)
    energy, objective, _ = used(problem, rounds, best)
    assert value <= 1.05 * (objective + best @ (energy - budgets))


def test_patience_of_devices_must_be_positive() -> None:
    problem = reference(2)
    with pytest.raises(AllocationError, match="patience"):
        online.Controller(problem, np.ones(2), np.array([1.0, 0.0]))
