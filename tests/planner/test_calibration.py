"""A served run as a network, and back: the rates that were measured, at the cut and batch of that run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sflam.config import Job
from sflam.errors import DataError
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.model.settings import ModelSettings
from sflam.network.settings import NetworkSettings
from sflam.planner.calibration import calibrated, rates_in
from sflam.planner.cell import decide, workload_of
from sflam.planner.served import MOST_RATE
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServedRound

JOB = Job(
    model=ModelSettings(cut=1), fleet=FleetSettings(devices=2), learn=LearnSettings(batch=16, local_steps=2),
    network=NetworkSettings(access="fdma"),
)  # fmt: skip
WORK = workload_of(JOB)
CUTS = (1, 1)


def record(number, scale=1.0, devices=(0, 1)):
    """Return a round of two exchanges and 32 samples a device, device 1 twice as slow as device 0."""
    slow = [scale * (1 + device) for device in devices]
    measured = ServedRound(
        seconds=9.0, openings=1, server_s=0.5, finish=tuple(8.0 * x for x in slow), upload_s=tuple(slow),
        link_s=tuple(0.5 * x for x in slow), away_s=tuple(4.0 * x for x in slow), bytes_up=(125_000,) * len(slow),
        bytes_down=(70_000,) * len(slow), payload_up=(1,) * len(slow), payload_down=(1,) * len(slow),
        cuts=(1,) * len(slow), bits_up=(8,) * len(slow), bits_down=(8,) * len(slow),
        compute_s=tuple(3.2 * x for x in slow), up_s=tuple(0.9 * x for x in slow), wait_s=(0.5,) * len(slow),
        down_s=tuple(0.6 * x for x in slow), adapter_s=tuple(0.2 * x for x in slow),
        receive_s=tuple(0.4 * x for x in slow), bytes_handed=(5000,) * len(slow), bytes_fetched=(20_000,) * len(slow),
        exchanges=(2,) * len(slow),
    )  # fmt: skip
    return RoundRecord(
        round=number, loss=1.0, participants=devices, device_samples=(32,) * len(devices), measured=measured
    )


def test_there_and_back():
    records = [record(0, 50.0), record(1), record(2, 1.1), record(3, 0.9)]  # the first round warms up
    job, notes = calibrated(JOB, records, WORK, (), CUTS)
    found = rates_in(job, WORK, (), CUTS)
    assert notes == () and set(found) == {0, 1}
    for device, slow in ((0, 1.0), (1, 2.0)):
        rates = found[device]
        assert rates.up == pytest.approx(1e6 / slow, rel=1e-4)
        assert rates.down == pytest.approx(1e6 / slow, rel=1e-4)
        assert rates.compute_s == pytest.approx(0.1 * slow, rel=1e-4)
        assert rates.exchange_s == pytest.approx(0.1 * slow, rel=1e-4)
        assert rates.wait_s == pytest.approx(0.25, rel=1e-4) and rates.whole


def test_of_a_way_that_is_shared_each_has_the_whole():
    shared = replace(JOB, network=NetworkSettings(access="airtime"))
    job, _ = calibrated(shared, [record(0)], WORK, (), CUTS)
    assert job.network.device[0].rate_mbps == pytest.approx(2.0) and job.network.access == "airtime"


def test_plans_count_what_an_exchange_takes_and_the_way_down():
    job, _ = calibrated(JOB, [record(0)], WORK, (), CUTS)
    plain = replace(
        job,
        network=replace(
            job.network,
            device=tuple(replace(d, latency_ms=None, downlink_mbps=None) for d in job.network.device),
        ),
    )
    assert decide(job).plan.latency > decide(plain).plan.latency + 0.1


def test_a_network_that_was_not_measured_predicts_nothing():
    assert rates_in(JOB, WORK, (), CUTS) == {}
    job, _ = calibrated(JOB, [record(0)], WORK, (), CUTS)
    bare = replace(
        job.network, device=(job.network.device[0], replace(job.network.device[1], latency_ms=None))
    )
    assert rates_in(replace(job, network=bare), WORK, (), CUTS) == {}


def test_bytes_in_no_time_are_no_reason_to_stop():
    quick = record(0)
    quick = replace(quick, measured=replace(quick.measured, receive_s=(0.0, 0.0), upload_s=(0.0, 1.0)))
    job, _ = calibrated(JOB, [quick], WORK, (), CUTS)
    found = rates_in(job, WORK, (), CUTS)
    assert found[0].up == pytest.approx(MOST_RATE, rel=1e-3) and found[0].down == pytest.approx(
        MOST_RATE, rel=1e-3
    )


def test_a_device_of_which_nothing_was_measured():
    with pytest.raises(DataError, match=r"nothing of devices 1: .*older sflam"):
        calibrated(JOB, [record(0, devices=(0,))], WORK, (), CUTS)
    with pytest.raises(DataError, match="nothing of devices 0, 1"):
        calibrated(JOB, [RoundRecord(round=0, loss=1.0)], WORK, (), CUTS)
