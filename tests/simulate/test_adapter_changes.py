"""``quant.bits_adapters``: bytes, seconds and joules of the change are those of the bodies that travel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sflam import config
from sflam.network.channel import rate
from sflam.network.scenario import build
from sflam.planner.cell import decide
from sflam.sizes import HEADER_BYTES, adapter_body_bytes, adapter_payload_bits, grid_bytes
from tests.simulate.builders import SQUARE, assert_resumes, ran

CELL = ("network.downlink_mbps=5", "learn.rounds=2", "learn.local_steps=2", "learn.evaluate_every=0")
EIGHT = "quant.bits_adapters=8"


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("plan.counts=activations",),
        ("model.labels=device", "model.trainable=lora+head"),
        ("quant.scheme=rotated", "fleet.selected=2"),
        ("quant.scheme=topk",),
        ("learn.aggregation=freeze-a",),
        ("learn.method=sflam-mixed",),
        ("learn.personal=head",),
    ],
    ids=lambda asked: " ".join(asked) or "plain",
)
def test_what_is_charged_is_what_travels(small, tmp_path, asked):
    mine = ran(small, tmp_path / "mine", *CELL, EIGHT, *asked)
    plain = ran(small, tmp_path / "plain", *CELL, *asked)
    devices = mine.fleet.halves.devices
    names = mine.fleet.halves.personal.shared(devices.names(0))
    numbers = devices.segment.stack.size(names)
    for record, other in zip(mine.records, plain.records, strict=True):
        count, charge = len(record.participants), record.charge
        assert record.adapter_bytes_up == count * adapter_body_bytes(numbers, 8)
        assert record.adapter_bytes_down == other.adapter_bytes_down == count * adapter_body_bytes(numbers)
        if "topk" not in " ".join(asked):  # its bodies may be smaller than was planned
            assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
            assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        work = mine.fleet.planner.workload
        assert work.adapter_values[1] == numbers
        saved = adapter_payload_bits(numbers) - adapter_payload_bits(numbers, 8)
        assert work.adapter_bits(1) - work.trained_bits(1) == saved
    first, other = mine.records[0].charge, plain.records[0].charge
    assert first.adapter_j < other.adapter_j and first.seconds < other.seconds
    assert not all(torch.equal(mine.state[name], plain.state[name]) for name in plain.state)


def test_one_grid_for_all_is_charged_with_what_comes_down(small, tmp_path):
    common = (*CELL, EIGHT, "quant.adapters_scale=common", "learn.rounds=3")
    mine, own = ran(small, tmp_path / "mine", *common), ran(small, tmp_path / "own", *common[:-2], common[-1])
    numbers = mine.fleet.planner.workload.adapter_values[1]
    for record, other in zip(mine.records, own.records, strict=True):
        count, charge = len(record.participants), record.charge
        assert record.adapter_bytes_up == other.adapter_bytes_up
        assert record.adapter_bytes_down - other.adapter_bytes_down == count * grid_bytes(numbers)
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
    assert not all(torch.equal(mine.state[name], own.state[name]) for name in own.state)


def test_one_grid_for_all_resumes(small, tmp_path):
    assert_resumes(
        small, tmp_path, (*CELL, EIGHT, "quant.adapters_scale=common", "learn.rounds=4"), stops=(1, 3)
    )


def test_what_goes_up_takes_the_time_of_its_bits(small, tmp_path):
    """By hand, of one device: body up at the rate of its band, body down at the rate of the way down."""
    run = ran(small, tmp_path / "run", *CELL, EIGHT, "learn.rounds=1")
    (record,) = run.records
    problem = run.fleet.planner
    work = problem.workload
    numbers, header = work.adapter_values[1], 8 * HEADER_BYTES
    up, down = adapter_payload_bits(numbers, 8) + header, 32 * numbers + header
    charge, network = record.charge, build(run.fleet.job.network, run.job.seed, 0)
    for place, device in enumerate(record.participants):
        ahead = rate(charge.bandwidth[place], charge.power[place], network.gain[0, device], network.noise)
        assert charge.adapter_s[place] == pytest.approx(up / ahead + down / 5e6, rel=1e-9)


@pytest.mark.parametrize("devices", ["moves", "stays"])
def test_several_servers(small, tmp_path, devices):
    more = () if devices == "moves" else ("fleet.servers=[0, 1, -1, 1, 0]",)
    asked = (*SQUARE, *more, "learn.rounds=2")
    mine = ran(small, tmp_path / "mine", *asked, EIGHT)
    plain = ran(small, tmp_path / "plain", *asked)
    for record, other in zip(mine.records, plain.records, strict=True):
        assert record.adapter_bytes_up < 0.8 * record.adapter_bytes_down
        assert other.adapter_bytes_up == other.adapter_bytes_down
        if record.charge.servers == other.charge.servers and record.charge.cuts == other.charge.cuts:
            assert record.adapter_bytes_down == other.adapter_bytes_down
            ratio = np.array(record.charge.adapter_s) / np.array(other.charge.adapter_s)
            assert ((ratio > 0.2) & (ratio < 0.9)).all()


def test_resumes(small, tmp_path):
    assert_resumes(small, tmp_path, (*CELL, EIGHT, "learn.rounds=4", "learn.state=keep"), stops=(1, 3))


@pytest.mark.parametrize("method", ["sfl-v1", "sl", "fedlora"])
def test_methods_without_quantization_send_floats(small, tmp_path, method):
    mine = ran(small, tmp_path / "mine", *CELL, EIGHT, f"learn.method={method}")
    plain = ran(small, tmp_path / "plain", *CELL, f"learn.method={method}")
    assert all(torch.equal(mine.state[name], plain.state[name]) for name in plain.state)
    assert [one.charge.charged_s for one in mine.records] == [one.charge.charged_s for one in plain.records]


def test_raw_floats_stay_floats(small, tmp_path):
    mine = ran(small, tmp_path / "mine", *CELL, EIGHT, "quant.scheme=identity")
    assert mine.records[0].adapter_bytes_up == mine.records[0].adapter_bytes_down
    assert mine.fleet.planner.workload.trained_bits(1) == mine.fleet.planner.workload.adapter_bits(1)


def test_a_plan_of_one_round_counts_it():
    asked = ("network.devices=3", "plan.local_steps=1")
    mine = decide(config.load(None, [*asked, EIGHT]))
    other = decide(config.load(None, [*asked, "quant.bits_adapters=32"]))
    assert mine.plan.latency < other.plan.latency and mine.plan.energy < other.plan.energy
