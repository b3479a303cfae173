"""A simulated run with energy budgets: loose ones change nothing, binding ones hold, impossible ones are refused."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.errors import AllocationError
from tests.conftest import SHORT as SHORT_RUN
from tests.reviews import write_reviews
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


@pytest.mark.parametrize("weight", [0.3, pytest.param(0.99, marks=pytest.mark.slow)])
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


def test_a_budget_that_the_run_keeps_anyway_is_not_refused_for_the_texts_of_its_first_round(tmp_path):
    """Each round is looked at with its own mini-batches: those of the first one are long, all others short."""
    folder = tmp_path / "texts"
    write_reviews(folder)
    draw = np.random.default_rng(0)
    lengths = np.where(draw.random(60) < 0.15, 30, 3)
    np.savez(
        folder / "texts.npz",
        input_ids=draw.integers(4, 15, (60, 30)),
        lengths=lengths,
        label=np.arange(60) % 2,
    )
    texts = (
        *SHORT_RUN,
        f"model.name={folder / 'bert'}",
        f"data.name={folder / 'texts.npz'}",
        *("learn.rounds=8", "learn.local_steps=1", "learn.evaluate_every=0", "model.rank=1", "seed=11"),
        *("quant.scheme=uniform", "quant.bits_up=16", "plan.latency_weight=0", "plan.deadline=4"),
        *(
            "network.fading=none",
            "network.shadowing_db=0",
            "network.radius_m=200",
            "network.min_distance_m=199.9",
        ),
    )
    free = ran((), tmp_path / "free", *texts)
    first, budget = max(free.records[0].charge.device_j), 1.1 * float(counted(free).max())
    assert first > 1.2 * budget  # what the first round takes at least, nearly
    run = ran((), tmp_path / "run", *texts, f"plan.budget={budget}")
    assert counted(run).max() <= budget
