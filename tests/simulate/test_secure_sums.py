"""Adapters summed under masks on the virtual clock: bytes, seconds and joules are those of the bodies that travel."""

from __future__ import annotations

import pytest

from sflam import config
from sflam.network.channel import rate
from sflam.network.scenario import build
from sflam.planner.cell import decide
from sflam.secure.bodies import bytes_down, bytes_up
from sflam.sizes import adapter_body_bytes, grid_bytes, summed_numbers
from tests.simulate.builders import assert_resumes, ran

CELL = ("network.downlink_mbps=5", "learn.rounds=2", "learn.local_steps=2", "learn.evaluate_every=0")
SECURE = ("quant.bits_adapters=8", "privacy.secure_aggregation=true", "quant.adapters_scale=common")


@pytest.mark.parametrize(
    "asked",
    [(), ("model.labels=device", "model.trainable=lora+head"), ("fleet.devices=5", "fleet.selected=3")],
    ids=lambda asked: " ".join(asked) or "plain",
)
def test_what_is_charged_is_what_travels(small, tmp_path, asked):
    run = ran(small, tmp_path / "run", *CELL, *SECURE, *asked)
    numbers = run.fleet.planner.workload.adapter_values[1]
    for record in run.records:
        count, charge, width = len(record.participants), record.charge, record.secured.bits // 8
        assert record.secured.devices == record.participants and record.secured.neighbours == count - 1
        assert record.adapter_bytes_up == count * bytes_up(summed_numbers(numbers), width, count - 1)
        down = adapter_body_bytes(numbers) + grid_bytes(numbers) + bytes_down(count - 1)
        assert record.adapter_bytes_down == count * down
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)


def test_a_sum_takes_the_time_of_its_bits(small, tmp_path):
    """By hand, of one device: what it sends at the rate of its band, what it gets at the rate of the way down."""
    run = ran(small, tmp_path / "run", *CELL, *SECURE, "learn.rounds=1")
    (record,) = run.records
    numbers = run.fleet.planner.workload.adapter_values[1]
    width, others = record.secured.bits // 8, record.secured.neighbours
    up = 8 * bytes_up(summed_numbers(numbers), width, others)
    down = 8 * (adapter_body_bytes(numbers) + grid_bytes(numbers) + bytes_down(others))
    charge, network = record.charge, build(run.fleet.job.network, run.job.seed, 0)
    for place, device in enumerate(record.participants):
        ahead = rate(charge.bandwidth[place], charge.power[place], network.gain[0, device], network.noise)
        assert charge.adapter_s[place] == pytest.approx(up / ahead + down / 5e6, rel=1e-9)


def test_it_resumes(small, tmp_path):
    assert_resumes(small, tmp_path, (*CELL, *SECURE, "learn.rounds=3"), stops=(1, 2))


def test_devices_that_fail_are_in_no_sum(small, tmp_path):
    asked = ("fleet.devices=6", "network.failure=0.2", "fleet.quorum=3", "learn.rounds=3")
    run = ran(small, tmp_path / "run", *CELL, *SECURE, *asked)
    assert any(len(record.participants) < 6 for record in run.records)
    assert all(record.secured.devices == record.participants for record in run.records)


def test_a_plan_of_one_round_counts_it():
    asked = ("network.devices=5", "fleet.devices=5", "plan.local_steps=1", "model.cut=2")
    mine = decide(config.load(None, [*asked, *SECURE]))
    other = decide(config.load(None, [*asked, SECURE[0], SECURE[2]]))
    assert mine.plan.latency > other.plan.latency and mine.plan.energy > other.plan.energy
