"""Cuts, the Pareto front and the online controller: published tables and their properties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sflam.allocate.cell import bits, cuts, online, optimal, pareto
from sflam.allocate.limits import Impossible
from sflam.errors import AllocationError
from sflam.network.reference import ref_a
from tests.allocate.cell.builders import reference, with_sensitivity


def test_the_table_of_cuts() -> None:
    plan = cuts.solve(reference())
    found = [cuts.look(reference(), cut).objective for cut in range(13)]
    assert [round(value, 3) for value in (*found[:3], found[11])] == [1.731, 1.914, 2.125, 4.030]
    assert plan.objective == found[0] == min(found) and (np.diff(found) > 0).all()
    slow = reference().change(network=ref_a(server_flops=5e12))
    assert [round(cuts.look(slow, cut).objective, 3) for cut in (0, 1)] == [3.884, 3.909]


def test_memory_decides_per_device() -> None:
    problem = reference(4)
    memory = np.array([np.inf, 300e6, 50e6, 1.0])
    network = replace(problem.network, memory=memory)
    refused = cuts.solve(problem.change(network=network), (2,))
    assert refused.status == "infeasible" and refused.advice[0].startswith("cut 2: device 3 ")
    memory[3] = 40e6
    best = cuts.solve(problem.change(network=replace(network, memory=memory)), (2,))
    assert best.devices.cut.tolist() == [2, 1, 0, 0] and "device 1, device 2" in best.advice[0]
    assert optimal.solve(problem.change(network=network, cut=1)).status == "infeasible"


def test_the_servers_clock_is_best() -> None:
    problem = reference(latency_weight=0.3)
    network = replace(problem.network, server_kappa=np.array([1e-26]))
    problem = problem.change(network=network)
    best = cuts.server_clock(problem)
    clock = np.linspace(0.5, 1.5, 2001) * best
    cost = 0.3 / clock + 0.7 * 1e-26 * clock**2
    assert clock[np.argmin(cost)] == pytest.approx(best, rel=1e-3)
    assert cuts.server_clock(reference()) == 1e9
    here = cuts.look(problem, 1)
    free = cuts.look(problem.change(network=replace(network, server_kappa=np.zeros(1))), 1)
    assert here.energy > free.energy and here.latency > free.latency


def test_cut_and_bits_together() -> None:
    plan = cuts.solve(with_sensitivity(4), (0, 1), lambda at: bits.solve(at, certify=False))
    assert set(plan.devices.cut.tolist()) == {0} and len(set(plan.devices.bits.tolist())) > 1


TABLE = {
    0.01: (8.534, 0.0999),
    0.03: (6.124, 0.1429),
    0.1: (4.409, 0.2450),
    0.3: (3.286, 0.4960),
    0.5: (2.804, 0.8142),
    0.7: (2.445, 1.367),
    0.9: (2.053, 3.209),
    0.97: (1.888, 5.784),
    0.99: (1.868, 6.792),
    0.999: (1.866, 6.966),
}


def test_the_table_of_trades() -> None:
    plans = [optimal.solve(reference(latency_weight=weight)) for weight in TABLE]
    for plan, (latency, energy) in zip(plans, TABLE.values(), strict=True):
        assert plan.latency == pytest.approx(latency, abs=6e-4) and plan.energy == pytest.approx(
            energy, rel=5e-4
        )
    assert (np.diff([plan.latency for plan in plans]) < 0).all()
    assert (np.diff([plan.energy for plan in plans]) > 0).all()


def test_the_front_is_convex_and_falls_with_its_slope() -> None:
    points = pareto.front(reference(), 9, longest=4.3)
    latency, energy, slope = (
        np.array([getattr(p, name) for p in points]) for name in ("latency", "energy", "slope")
    )
    fall = np.diff(energy) / np.diff(latency)
    assert (fall < 0).all() and (np.diff(fall) > 0).all()
    assert (-slope[:-1] < fall).all() and (fall < -slope[1:]).all()
    for point in points[1:]:
        plan = optimal.solve(reference(latency_weight=point.latency_weight))
        assert (plan.latency, plan.energy) == pytest.approx((point.latency, point.energy), rel=1e-6)
    assert pareto.front(reference(deadline=3.0), 3)[-1].latency == pytest.approx(3.0)


def fades(problem: object, rounds: int) -> np.ndarray:
    """Return gains [rounds, 10] of the acceptance run."""
    draw = np.random.default_rng(0)
    faded = [np.clip(draw.exponential(1, 10), 0.02, 8) for _ in range(rounds)]
    return np.array(faded) * problem.network.gain[0]


def online_problem() -> tuple[object, np.ndarray]:
    problem = reference(10, fixed=True).change(network=ref_a(10, fading=False))
    budgets = np.full(10, 0.5 * optimal.solve(problem).devices.transmit_j.mean())
    return problem.change(latency_weight=1.0), budgets


def run_of(controller: online.Controller, gains: np.ndarray) -> online.Controller:
    for each in gains:
        controller.step(each)
    return controller


@pytest.mark.slow
def test_the_table_of_patience() -> None:
    problem, budgets = online_problem()
    short = run_of(online.Controller(problem, budgets, 0.02), fades(problem, 800))
    warm = short.queues / 0.02
    table = {0.003: (2.710, 0.10, 1.055), 0.03: (2.545, 0.46, 1.022), 1.0: (2.531, 15, 1.130)}
    for patience, (latency, queue, worst) in table.items():
        controller = online.Controller(problem, budgets, patience, patience * warm)
        times, queues = [], []
        for gains in fades(problem, 500):
            times.append(controller.step(gains).latency)
            queues.append(controller.queues.mean())
        assert np.mean(times[250:]) == pytest.approx(latency, abs=1e-3)
        assert np.mean(queues[250:]) == pytest.approx(queue, rel=0.03)
        assert controller.excess.max() == pytest.approx(worst, abs=1e-3) and controller.excess.max() <= 1.15


def test_queues_grow_with_patience_and_hold_the_budget() -> None:
    problem, budgets = online_problem()
    gains, found = fades(problem, 60), []
    for patience in (0.01, 0.1):
        controller = online.Controller(problem, budgets, patience)
        for each in gains:
            before = controller.queues.copy()
            plan = controller.step(each)
            assert plan.advice == () and plan.gap < 1e-9
            spent = plan.devices.transmit_j
            np.testing.assert_allclose(
                controller.queues, np.maximum(before + spent - budgets, 0), rtol=1e-9, atol=1e-15
            )
        found.append(controller.queues.mean())
        # (4.1) summed: what is spent beyond budget is in the queue
        assert (controller.spent - 60 * budgets <= controller.queues * (1 + 1e-9)).all()
    assert found[0] < found[1]


def test_an_infeasible_round_changes_nothing() -> None:
    problem, budgets = online_problem()
    controller = online.Controller(problem.change(deadline=1.5), budgets, 0.1, np.ones(10))
    plan = controller.step(problem.network.gain[0] * 1e-6)
    assert plan.status == "infeasible" and controller.rounds == 0 and controller.queues.tolist() == [1.0] * 10


def test_impossible_requests_are_refused() -> None:
    problem, budgets = online_problem()
    with pytest.raises(AllocationError, match="budgets"):
        online.Controller(problem, budgets[:3], 1.0)
    with pytest.raises(AllocationError, match="patience"):
        online.Controller(problem, budgets, 0.0)
    with pytest.raises(AllocationError, match="queues"):
        online.Controller(problem, budgets, 1.0, -budgets)
    with pytest.raises(Impossible, match="energy caps"):
        pareto.front(reference(3, radio_cap=1e-9))
