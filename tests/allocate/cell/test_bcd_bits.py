"""The published descent with its quantization step: monotone, within its limits, never below the certified bound."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.allocate.cell import bcd, bcd_bits, bits
from sflam.allocate.referee import score
from sflam.allocate.registry import allocate
from sflam.plan import Status
from tests.allocate.cell.builders import random_problem, reference, with_sensitivity


@pytest.mark.parametrize("seed", range(3))
def test_it_never_rises_and_stays_above_the_certified_bound(seed: int) -> None:
    problem = with_sensitivity(10, seed)
    plan = allocate(problem, "bcd-bits")
    best = bits.solve(problem)
    assert np.all(np.diff(plan.history) <= 1e-9 * plan.objective)
    assert plan.status is not Status.INFEASIBLE and plan.objective == pytest.approx(plan.history[-1])
    assert best.lower_bound <= best.objective <= plan.objective * (1 + 1e-9)
    assert len(set(plan.devices.bits.tolist())) > 1  # devices differ in what a bit is worth to them


def test_the_step_pays() -> None:
    """Better than the published descent at 8 bits, and than the widest codes it starts from."""
    problem = with_sensitivity(20, 0)
    plan = bcd_bits.solve(problem)
    assert (
        plan.objective
        < bcd.solve(problem.change(bits=8)).objective
        < bcd.solve(problem.change(bits=16)).objective
    )


def test_a_step_by_hand() -> None:
    """One device, no energy: rounds (1 + chi v(q)) times the time of its payload are least at the bits found."""
    problem = reference(1, fixed=True, latency_weight=1.0, sensitivity=3.0)
    start = bcd.solve(problem.change(bits=16))
    from sflam.allocate.cell.shares import Shares

    held = Shares(bandwidth=start.devices.bandwidth, power=start.devices.power, clock=start.devices.clock)
    found = bcd_bits.bits_step(problem.change(bits=16), held)
    totals = {q: score(problem.change(bits=q), held).objective for q in problem.widths}
    assert found.tolist() == [min(totals, key=totals.__getitem__)]


def test_without_sensitivity_the_fewest_bits_are_taken() -> None:
    assert set(allocate(reference(5), "bcd-bits").devices.bits.tolist()) == {2}


@pytest.mark.parametrize("seed", range(6))
def test_random_cells(seed: int) -> None:
    draw = np.random.default_rng(seed)
    problem = random_problem(seed, most=8, fixed=True)
    problem = problem.change(sensitivity=draw.exponential(2.0, len(problem)))
    plan = bcd_bits.solve(problem)
    assert not score(problem.change(bits=plan.devices.bits), _shares(plan)).violations
    assert np.all(np.diff(plan.history) <= 1e-9 * plan.objective)
    assert bits.solve(problem).objective <= plan.objective * (1 + 1e-6)


def _shares(plan):  # type: ignore[no-untyped-def]
    from sflam.allocate.cell.shares import Shares

    return Shares(bandwidth=plan.devices.bandwidth, power=plan.devices.power, clock=plan.devices.clock)
