"""Simulated rounds whose devices come, go and fail: what is learnt, what is recorded, what is charged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sflam.config import load
from sflam.errors import AllocationError, ConfigError
from sflam.run import start as jobs
from sflam.run.replay import Recording
from tests.simulate.builders import assert_resumes, ran, started, timeless

PLAIN = ("fleet.devices=4", "learn.rounds=3", "learn.evaluate_every=0", "network.fading=none")
FAILING = (*PLAIN, "network.failure=0.4", "network.static_power_w=0.5", "network.downlink_mbps=40")


def same(one, other):
    return all(torch.equal(one.state[name], other.state[name]) for name in one.state)


def test_a_quorum_of_all_is_the_round_as_it_was(small, tmp_path):
    """Nobody fails and all are waited for: adapters, seconds and joules are those of before."""
    more = ("network.static_power_w=0.5", "network.downlink_mbps=40", "network.receive_power_w=0.2")
    plain = ran(small, tmp_path / "plain", *PLAIN, *more)
    quorum = ran(small, tmp_path / "quorum", *PLAIN, *more, "fleet.quorum=4", "fleet.grace_s=9")
    assert same(plain, quorum)
    for one, other in zip(plain.records, quorum.records, strict=True):
        assert one.participants == other.participants and one.total_bytes == other.total_bytes
        for name in (
            "seconds",
            "clock",
            "energy",
            "charged_j",
            "device_j",
            "finish",
            "adapter_s",
            "compute_j",
        ):
            assert getattr(other.charge, name) == pytest.approx(getattr(one.charge, name), rel=1e-9), name
        assert other.charge.close.left_out == ()


@pytest.mark.parametrize("method", ["sflam", "sfl-v2", "sflam-mixed", "fedlora"])
def test_failed_devices_are_in_no_average_and_are_charged(small, tmp_path, method):
    more = ("plan.timing=chain",) if method.startswith(("sfl-v2", "sflam-m")) else ()
    run = ran(small, tmp_path / "run", *FAILING, f"learn.method={method}", *more)
    failed = 0
    for record in run.records:
        close, charge = record.charge.close, record.charge
        assert sorted(record.participants + close.failed) == [0, 1, 2, 3] and close.late == ()
        assert len(close.spent_j) == len(close.stopped) == len(close.failed) and all(close.spent_j)
        assert sum(charge.device_j) + sum(close.spent_j) + charge.server_j == pytest.approx(charge.energy)
        assert all(charge.clock - charge.seconds <= at <= charge.clock for at in close.stopped)
        failed += len(close.failed)
        assert len(record.device_samples) == len(record.participants)
        assert min(record.device_loss) <= record.loss <= max(record.device_loss)
    assert failed and timeless(run.records) == timeless(
        ran(small, tmp_path / "again", *FAILING, f"learn.method={method}", *more).records
    )


def test_a_device_that_fails_sends_fewer_bytes_and_spends_less(small, tmp_path):
    """The same round with and without a failure of device 0: it has spent what it spent; the others are not later."""
    tables = (
        "network.device=[{distance_m=50.0, FAIL}, {distance_m=60.0}, {distance_m=70.0}, {distance_m=80.0}]"
    )
    job = (*PLAIN, "fleet.quorum=1", "fleet.grace_s=1000000", "learn.rounds=1", "seed=5")
    whole = ran(small, tmp_path / "whole", *job, tables.replace(", FAIL", "")).records[0]
    broken = ran(small, tmp_path / "broken", *job, tables.replace("FAIL", "failure=1.0")).records[0]
    close = broken.charge.close
    assert broken.participants == (1, 2, 3) and close.failed == (0,)
    assert 0 < close.spent_j[0] < whole.charge.device_j[0]
    assert broken.charge.device_j == pytest.approx(whole.charge.device_j[1:], rel=1e-12)
    made, steps = close.steps[0], -(-whole.device_samples[0] // 4)
    assert 0 <= made < steps and whole.device_steps - broken.device_steps == steps - made
    assert broken.bytes_up < whole.bytes_up
    assert whole.adapter_bytes_up // 4 * 3 == broken.adapter_bytes_up


def test_who_is_left_out_counts_for_nothing(small, tmp_path):
    """With a copy each, a round without device 0 learns what a fleet learns that it never was in."""
    there = tmp_path / "there.csv"
    there.write_text("device,since_s,until_s\ndevice-0,0,0.000001\n")
    run = ran(small, tmp_path / "run", *PLAIN, f"network.presence={there}")
    first, *later = run.records
    assert first.charge.close.failed == (0,) and first.participants == (1, 2, 3)
    assert all(record.charge.close.absent == (0,) for record in later)
    assert all(record.participants == (1, 2, 3) for record in later)
    never = ran(small, tmp_path / "never", *PLAIN, "network.device=[{joins_s=1e9}, {count=3}]")
    assert same(run, never)


def test_the_first_that_deliver_close_an_over_selected_round(small, tmp_path):
    more = ("fleet.devices=6", "fleet.selected=2", "fleet.over_select=0.5", "plan.optimize=[]")
    run = ran(small, tmp_path / "run", *PLAIN, *more, "network.clock_ghz=[0.1, 1.5]", "plan.method=equal")
    for record in run.records:
        close = record.charge.close
        assert len(record.participants) == 2 and len(close.late) == 1 and not close.absent
        assert record.charge.seconds == pytest.approx(
            max(np.add(record.charge.finish, record.charge.adapter_s)), rel=1e-9
        )
        assert close.stopped[0] == pytest.approx(record.charge.clock, rel=1e-12)


def test_the_clock_waits_for_a_quorum(small, tmp_path):
    tables = "network.device=[{count=2}, {joins_s=500.0}, {joins_s=900.0}]"
    run = ran(small, tmp_path / "run", *PLAIN, "fleet.quorum=3", tables)
    first, *later = run.records
    assert first.charge.close.waited_s == 500 and first.participants == (0, 1, 2)
    assert first.charge.clock == first.charge.seconds > 500 and first.charge.close.absent == (3,)
    assert all(record.charge.close.waited_s == 0 for record in later)


def test_a_quorum_that_is_missed_twice_ends_the_run(small, tmp_path):
    with pytest.raises(
        AllocationError, match=r"round 1: 0 of at least 4 devices delivered, twice in a row; lower"
    ):
        ran(small, tmp_path / "run", *PLAIN, "fleet.quorum=4", "network.failure=1.0")
    apart = "network.device=[{count=2}, {leaves_s=4.0}, {joins_s=5.0}]"
    with pytest.raises(
        AllocationError, match=r"round 1: 4 devices are never there at once; lower fleet.quorum"
    ):
        ran(small, tmp_path / "never", *PLAIN, "fleet.quorum=4", apart)


def test_an_opening_that_is_lost_is_charged(small, tmp_path):
    more = (*PLAIN, "learn.rounds=1", "seed=0")
    record = ran(small, tmp_path / "run", *more, "fleet.quorum=4", "network.failure=0.2").records[0]
    close, charge = record.charge.close, record.charge
    assert close.openings == 2 and close.lost_s > 0 and len(record.participants) == 4
    assert charge.seconds == pytest.approx(max(np.add(charge.finish, charge.adapter_s)))
    assert charge.begin == (close.lost_s,) * 4
    whole = ran(small, tmp_path / "whole", *more).records[0]
    assert whole.charge.compute_j < charge.compute_j <= 2 * whole.charge.compute_j * (1 + 1e-9)


@pytest.mark.parametrize("every", [0, 1, 2])
def test_it_resumes(small, tmp_path, every):
    more = (f"plan.every={every}", "network.battery_j=500", "network.device=[{count=3}, {joins_s=0.001}]")
    assert_resumes(small, tmp_path, (*FAILING, *more), stops=(1, 2))


def test_it_is_not_replayed(small, tmp_path):
    run = ran(small, tmp_path / "run", *PLAIN, "fleet.quorum=2")
    run.finish()
    with pytest.raises(ConfigError, match=r"fleet.quorum: who delivers in a round depends on how long"):
        Recording(tmp_path / "run").charged(run.job)


def test_devices_of_a_table_may_be_named(small, tmp_path):
    job = load(None, [*small, "network.simulate=true", "learn.local_steps=0", "network.presence=nowhere.csv"])
    with pytest.raises(ConfigError, match=r"network.presence nowhere.csv cannot be read"):
        jobs.start(job, tmp_path / "run")
    assert (
        started(small, tmp_path / "other", *PLAIN, "network.failure=0.1").fleet.presence.failure.tolist()
        == [0.1] * 4
    )
