"""A simulated run with energy budgets: loose ones change nothing, binding ones hold, impossible ones are refused."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.errors import AllocationError
from tests.simulate.builders import ran, started

SHORT = ("learn.rounds=6", "learn.evaluate_every=0", "learn.local_steps=1", "quant.scheme=uniform")


def totals(run):
    charges = [record.charge for record in run.records]
    return sum(charge.charged_s for charge in charges), sum(charge.charged_j for charge in charges)


def counted(run):
    """Return J [K] of each round on average, of a run in which all devices take part."""
    charges = [record.charge for record in run.records]
    return np.mean([np.array(charge.device_j) for charge in charges], axis=0)


@pytest.mark.parametrize("weight", [0.05, 0.95])
def test_a_budget_that_never_binds_changes_nothing(small, tmp_path, weight):
    wish = (*SHORT, f"plan.latency_weight={weight}")
    free = ran(small, tmp_path / "free", *wish)
    loose = 10 * max(max(record.charge.device_j) for record in free.records)
    run = ran(small, tmp_path / "run", *wish, f"plan.budget={loose}")
    assert totals(run) == pytest.approx(totals(free), rel=1e-9)
    assert (run.fleet.planner.queues == 0).all()


@pytest.mark.parametrize("weight", [0.3, 0.99])
def test_a_budget_that_binds_holds(small, tmp_path, weight):
    wish = (*SHORT, "learn.rounds=20", f"plan.latency_weight={weight}", 'plan.optimize=["clock"]')
    free = ran(small, tmp_path / "free", *wish)
    budget = 0.6 * float(counted(free).max())
    run = ran(small, tmp_path / "run", *wish, f"plan.budget={budget}")
    adapters = np.mean([record.charge.adapter_j for record in run.records]) / 3
    assert counted(run).max() <= 1.1 * budget + adapters
    assert totals(run)[0] > totals(free)[0]


def test_a_budget_that_no_plan_keeps_is_refused_with_what_it_takes(small, tmp_path):
    run = started(small, tmp_path / "run", *SHORT, "plan.budget=1e-9")
    with pytest.raises(
        AllocationError, match=r"plan.budget is 1 nJ, but device \d needs .* a round on average"
    ):
        next(run.rounds())
