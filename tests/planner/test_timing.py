"""Plans of methods whose devices take turns, or wait for each other at every step."""

from __future__ import annotations

import pytest

from sflam import config
from sflam.allocate.registry import allocate
from sflam.network.scenario import build
from sflam.plan import Status
from sflam.planner.cell import decide, problem_of


def test_a_relay_is_the_sum_of_turns_in_the_whole_band():
    asked = ("learn.method=sl", "network.devices=4", "network.downlink_mbps=20", "network.server_kappa=1e-27")
    job = config.load(None, list(asked))
    plan = decide(job).plan
    network = build(job.network, job.seed, 0)
    assert (plan.devices.bandwidth == network.bandwidth[0]).all() and plan.status is Status.OPTIMAL
    turns = []
    for device in range(4):
        problem = problem_of(job, network=network.only([device]))
        turns.append(allocate(problem, "optimal"))
    assert plan.latency == pytest.approx(sum(turn.latency for turn in turns), rel=1e-12)
    assert plan.energy == pytest.approx(sum(turn.energy for turn in turns), rel=1e-12)
    assert plan.gap < 1e-9
    cut = decide(config.load(None, [*asked, 'plan.optimize=["clock","cut"]'])).plan
    assert len(set(cut.devices.cut.tolist())) == 1 and cut.objective <= plan.objective * (1 + 1e-12)


def test_a_relay_chooses_bits_down_where_they_are_asked_for():
    asked = [
        "learn.method=sl",
        "network.devices=2",
        "network.downlink_mbps=1",
        "plan.sensitivity=0.1",
        "plan.sensitivity_down=0.1",
    ]
    up, both = (
        decide(config.load(None, [*asked, f"plan.optimize={keys}"])).plan
        for keys in ('["clock","bits"]', '["clock","bits","bits_down"]')
    )
    assert (up.devices.bits_down == 8).all() and (both.devices.bits_down < 8).all()
    assert both.objective < up.objective


def test_one_trunk_for_all_is_planned_as_a_barrier():
    job = config.load(None, ["learn.method=sfl-v2", "network.devices=5", "plan.local_steps=3"])
    found = decide(job, compare=True, points=3)
    chain = decide(
        config.load(
            None, ["learn.method=sfl-v2", "network.devices=5", "plan.local_steps=3", "plan.timing=chain"]
        )
    )
    assert found.plan.gap < 1e-6 and found.plan.latency > chain.plan.latency
    assert all(other.objective >= found.plan.lower_bound for other in found.others if len(other.devices))
    assert any("waits for the slowest" in note for note in found.notes) and len(found.front) == 3
