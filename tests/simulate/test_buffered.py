"""Buffered rounds on the virtual clock: the order of events, what is learnt, what is recorded and charged."""

from __future__ import annotations

import math

import pytest
import torch

from sflam.config import load
from sflam.errors import ConfigError
from sflam.run.replay import Recording
from sflam.simulate.arrivals import COLUMNS, Cycle, first, paid, spent
from tests.simulate.builders import assert_resumes, ran, started, timeless

EQUAL = (
    "fleet.devices=3",
    "data.partition=iid",
    "network.device=[{count=3, distance_m=100.0, clock_ghz=1.0}]",
    "network.fading=none",
    "network.static_power_w=0.5",
    "network.downlink_mbps=40",
    "plan.method=equal",
    "plan.optimize=[]",
    "plan.every=0",
    "learn.local_steps=2",
    "learn.rounds=3",
    "learn.evaluate_every=0",
)
"""Devices with the same channel, clock and work."""
UNLIKE = (
    *EQUAL,
    "network.device=[{distance_m=100.0, clock_ghz=1.0}, {distance_m=100.0, clock_ghz=0.5}, "
    "{distance_m=100.0, clock_ghz=0.0004}]",
)
BUFFERED = ("learn.sync=buffered",)
CHARGED = (
    "seconds",
    "clock",
    *(f"{part}_j" for part in "compute transmit adapter receive idle device".split()),
)


def cycle_of(device, begun, steps, **more):
    """Return a cycle of ``steps`` s, with a second of fetching before and one of handing on behind them."""
    cost = dict.fromkeys(COLUMNS, 0.0) | {"compute_s": steps, "adapters": 2.0, "fetch_s": 1.0}
    cost |= {
        "compute_j": 10.0,
        "adapter_j": 4.0,
        "receive_j": 3.0,
        "fetch_j": 3.0,
        "static_w": 0.5,
        "server_j": 8.0,
    }
    return Cycle(device=device, number=0, version=0, begun=begun, cost=cost, **more)


def test_the_next_to_come_by_hand():
    one, two, three = cycle_of(2, 0.0, 5.0), cycle_of(1, 3.0, 2.0), cycle_of(0, 1.0, 6.0)
    assert [cycle.ends for cycle in (one, two, three)] == [7, 7, 9]
    assert first([one, three, two]) == [two, one]


def test_what_is_spent_between_two_instants_by_hand():
    cycle = cycle_of(0, 10.0, 4.0)
    half = spent([cycle], 13.0)  # fetched, and two of its four seconds of steps
    assert (half.compute_j, half.adapter_j, half.receive_j, half.server_j) == (5, 0, 3, 4)
    assert half.idle_j == 1.5 and half.device_j == 9.5
    rest = spent([paid(cycle, 13.0)], 99.0)
    assert (rest.compute_j, rest.adapter_j, rest.receive_j, rest.server_j) == (5, 4, 0, 4)
    assert half.device_j + rest.device_j == pytest.approx(10 + 4 + 3 + 0.5 * 6)


def assert_same_rounds(rounds, buffered):
    """Check that versions, each of which every device has an update in, are rounds: what they did and cost."""
    for one, other in zip(rounds.records, buffered.records, strict=True):
        assert other.charge.buffer.staleness == (0, 0, 0) and other.charge.buffer.devices == (0, 1, 2)
        same = ("participants", "total_bytes", "samples")
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
        assert other.loss == pytest.approx(one.loss, rel=1e-9)
        for name in CHARGED:
            assert getattr(other.charge, name) == pytest.approx(getattr(one.charge, name), rel=1e-9), name


def test_all_equal_devices_together_are_the_synchronous_round(small, tmp_path):
    rounds = ran(small, tmp_path / "round", *EQUAL)
    buffered = ran(small, tmp_path / "buffered", *EQUAL, *BUFFERED)
    assert all(
        torch.allclose(rounds.state[name].double(), buffered.state[name].double(), rtol=1e-9, atol=1e-12)
        for name in rounds.state
    )
    assert_same_rounds(rounds, buffered)


def test_fast_devices_do_not_wait_for_a_slow_one(small, tmp_path):
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, "learn.buffer=2", "learn.rounds=30")
    rounds = ran(small, tmp_path / "rounds", *UNLIKE, "learn.rounds=1").records[0].charge.seconds
    buffers = [record.charge.buffer for record in run.records]
    assert all(len(buffer.devices) == 2 for buffer in buffers)
    assert all(list(buffer.arrived) == sorted(buffer.arrived) for buffer in buffers)
    slow = [(buffer, at) for buffer in buffers for at, device in enumerate(buffer.devices) if device == 2]
    assert slow and slow[0][0].staleness[slow[0][1]] >= 3
    assert slow[0][0].arrived[slow[0][1]] == pytest.approx(
        rounds, rel=1e-9
    )  # its own pace is that of the round
    for buffer in buffers:
        assert buffer.weights == tuple(1 / math.sqrt(1 + tau) for tau in buffer.staleness)
    clocks = [record.charge.clock for record in run.records]
    assert clocks == sorted(clocks) and clocks[0] < rounds / 3
    counted = [device for buffer in buffers for device in buffer.devices]
    assert counted.count(0) > counted.count(1) > counted.count(2)


def test_joules_are_charged_as_they_are_spent(small, tmp_path):
    """Static power alone: every device draws it all the time, whatever it is doing."""
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, "learn.buffer=2", "learn.rounds=6")
    for record in run.records:
        charge = record.charge
        assert charge.idle_j == pytest.approx(0.5 * 3 * charge.seconds, rel=1e-9)
        assert charge.energy >= sum(charge.device_j) + charge.server_j - 1e-12


def test_an_update_that_waits_for_its_version_may_become_too_old(small, tmp_path):
    """Three updates at one instant, each alone a version: the third would be two behind."""
    job = (*EQUAL, *BUFFERED, "learn.buffer=1", "learn.staleness=1", "learn.rounds=6")
    buffers = [record.charge.buffer for record in ran(small, tmp_path / "run", *job).records]
    assert [buffer.staleness for buffer in buffers[:2]] == [(0,), (1,)]
    assert max(tau for buffer in buffers for tau in buffer.staleness) == 1
    assert (buffers[2].refused, buffers[2].refused_staleness) == ((2,), (2,))
    assert buffers[2].staleness == (0,)
    assert_resumes(small, tmp_path / "resumed", job, stops=(2, 3))


def test_a_bound_on_staleness_throws_updates_away(small, tmp_path):
    more = ("learn.buffer=1", "learn.rounds=60", "learn.staleness=2")
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *more)
    buffers = [record.charge.buffer for record in run.records]
    assert max(tau for buffer in buffers for tau in buffer.staleness) <= 2
    refused = [tau for buffer in buffers for tau in buffer.refused_staleness]
    assert refused and min(refused) > 2 and any("learn.staleness = 2" in note for note in run.notes)
    with_refused = next(record for record in run.records if record.charge.buffer.refused)
    other = next(record for record in run.records if not record.charge.buffer.refused)
    assert with_refused.bytes_up > other.bytes_up and with_refused.samples == other.samples


@pytest.mark.parametrize("state", ["reset", "keep"])
def test_it_resumes_at_any_version(small, tmp_path, state):
    more = (
        f"learn.state={state}",
        "learn.buffer=2",
        "learn.rounds=7",
        "learn.staleness=2",
        "quant.bits_adapters=8",
    )
    assert_resumes(small, tmp_path, (*UNLIKE, *BUFFERED, *more), stops=(1, 3, 6))


def test_the_order_of_events_is_that_of_the_seed_alone(small, tmp_path):
    more = ("learn.buffer=2", "learn.rounds=4", "model.labels=device", "network.fading=rayleigh")
    one, two = (ran(small, tmp_path / name, *UNLIKE, *BUFFERED, *more) for name in ("one", "two"))
    assert timeless(one.records) == timeless(two.records)


def test_it_is_refused_where_it_makes_no_sense(small, tmp_path):
    run = ran(small, tmp_path / "run", *EQUAL, *BUFFERED, "learn.rounds=1")
    run.finish()
    with pytest.raises(ConfigError, match=r"learn.sync: who delivers in a round depends on how long"):
        Recording(tmp_path / "run").charged(run.job)
    with pytest.raises(ConfigError, match=r"learn.sync is 'often'; choose one of round, buffered"):
        load(None, ["learn.sync=often"])
    with pytest.raises(ConfigError, match=r"set plan.every = 0"):
        started(small, tmp_path / "other", *EQUAL, *BUFFERED, "plan.every=1")
