"""Buffered rounds with one trunk that serves all, on the virtual clock."""

from __future__ import annotations

import copy

import pytest
import torch

from sflam.data.batches import round_batches
from sflam.errors import RunError
from sflam.learn.versions import RecordedVersions
from sflam.model.adapters import state_of
from tests.simulate.builders import assert_resumes, ran, started
from tests.simulate.plain_trunk import PlainTrunk
from tests.simulate.test_buffered import BUFFERED, EQUAL, UNLIKE, assert_same_rounds

SHARED = ("learn.trunk=shared", "model.dtype=float64")
UPDATES = ("sequential", "batched", "mixed")


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        scale = float(other[name].abs().max()) or 1.0
        assert float((value - other[name]).abs().max()) / scale < 1e-9, name


@pytest.mark.parametrize("state", ["reset", "keep"])
@pytest.mark.parametrize("weights", ["equal", "samples"])
@pytest.mark.parametrize("update", UPDATES)
def test_all_equal_devices_together_are_the_synchronous_round(small, tmp_path, update, weights, state):
    more = (*SHARED, f"learn.server_update={update}", f"learn.weights={weights}", f"learn.state={state}")
    rounds = ran(small, tmp_path / "round", *EQUAL, *more)
    buffered = ran(small, tmp_path / "buffered", *EQUAL, *BUFFERED, *more)
    assert_equal(buffered.state, rounds.state)
    assert_same_rounds(rounds, buffered)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_it_resumes_at_any_version(small, tmp_path, state, update):
    more = (
        "learn.trunk=shared",
        f"learn.server_update={update}",
        f"learn.state={state}",
        "learn.buffer=2",
        "learn.rounds=7",
        "learn.staleness=2",
        "quant.bits_adapters=8",
    )
    assert_resumes(small, tmp_path, (*UNLIKE, *BUFFERED, *more), stops=(1, 3, 6))


SLOW = (
    *EQUAL,
    *BUFFERED,
    "learn.trunk=shared",
    "data.partition=dirichlet",
    "model.dtype=float64",
    "network.device=[{distance_m=100.0, clock_ghz=1.0}, {distance_m=100.0, clock_ghz=1.0}, "
    "{distance_m=100.0, clock_ghz=0.002}]",
    "quant.scheme=identity",
)
"""Two devices that are equal, and one that is slower; what it hands in is behind."""


@pytest.mark.parametrize(
    ("state", "update", "weights"),
    [("reset", "batched", "equal"), ("keep", "batched", "samples"), ("keep", "sequential", "samples")],
)
def test_the_versions_of_unlike_devices_step_by_step(small, tmp_path, state, update, weights):
    how = (f"learn.state={state}", f"learn.server_update={update}", f"learn.weights={weights}")
    job = (*SLOW, *how, "learn.buffer=1", "learn.rounds=14")
    begun = started(small, tmp_path / "begun", *job)
    halves = begun.fleet.halves
    plain = PlainTrunk(
        halves.backbone,
        halves.model,
        halves.examples,
        halves.parts,
        cuts=halves.devices.cuts,
        settings=halves.settings,
        learn=halves.learn,
        quant=begun.job.quant,
        seed=halves.seed,
    )
    states = []
    for _ in begun.rounds():
        states.append(begun.state)
    buffers = [record.charge.buffer for record in begun.records]
    assert {tau for buffer in buffers for tau in buffer.staleness} >= {0, 1, 2}
    assert {len(members) for buffer in buffers for members in buffer.groups} == {1, 2}
    late = [*begun.fleet.waiting, *begun.fleet.queue.under_way.values()]  # in no version, but in the trunk
    plain.begun = {(cycle.device, cycle.number): cycle.version for cycle in late}
    for one, other in zip(states, plain.replay(buffers), strict=True):
        assert_equal(one, other)


def test_mixed_groups_of_some_devices_have_about_as_many_rows_as_those_of_all(small, tmp_path):
    """Four rows of one device of three are one step, eight of two are three; of all, each device has one in each."""
    run = ran(small, tmp_path, *SLOW, "learn.server_update=mixed", "learn.state=keep", "learn.rounds=6")
    sizes = [len(members) for record in run.records for members in record.charge.buffer.groups]
    assert set(sizes) == {1, 2}
    (trunk,) = run.fleet.halves.servers.trunks.values()
    (memory,) = trunk.optimizer.state.values()
    assert int(memory["step"]) == sum({1: 1, 2: 3}[size] for size in sizes)


@pytest.mark.parametrize("update", ["sequential", "batched"])
def test_one_device_is_plain_training(small, tmp_path, update):
    """A loop over mini-batches with the whole model: halves go on from version to version as one."""
    job = (
        *EQUAL,
        *BUFFERED,
        *SHARED,
        f"learn.server_update={update}",
        "learn.state=keep",
        "learn.optimizer=adam",
        "learn.clip=0",
        "learn.rounds=4",
        "fleet.devices=1",
        "network.device=[{distance_m=100.0, clock_ghz=1.0}]",
        "quant.scheme=identity",
    )
    begun = started(small, tmp_path, *job)
    halves = begun.fleet.halves
    model = copy.deepcopy(halves.model).train()
    rate = begun.job.learn.practice.lr
    optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], lr=rate)
    for number in range(4):
        for rows in round_batches(
            halves.parts[0], 4, seed=halves.seed, round=number, device=0, steps=2, epochs=1
        ):
            one = halves.examples.take(rows)
            optimizer.zero_grad()
            model(**one.inputs, labels=one.labels).loss.backward()
            optimizer.step()
    list(begun.rounds())
    assert_equal(begun.state, state_of(model))


def test_what_learns_apart_hands_in_nothing_of_a_frozen_half(small, tmp_path):
    """Devices have nothing of their own, and the trunk learns from whoever is there."""
    more = (*SHARED, "learn.device_half=frozen", "learn.buffer=2", "learn.rounds=5")
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *more)
    assert all(record.adapter_bytes_up == 0 for record in run.records)
    losses = [record.loss for record in run.records]
    assert len(set(losses)) == 5
    start = started(small, tmp_path / "again", *UNLIKE, *BUFFERED, *more).state
    moved = {name for name, value in run.state.items() if not torch.equal(value, start[name])}
    trunk = set(run.fleet.paced.taken())
    assert moved and moved <= trunk < set(run.state)


def test_joules_are_charged_as_they_are_spent(small, tmp_path):
    """Static power alone draws all the time, whatever a device does; all else is that of the cycles that ended."""
    job = (*UNLIKE, *BUFFERED, "learn.trunk=shared", "learn.buffer=2", "network.server_kappa=1e-28")
    run = ran(small, tmp_path / "run", *job, "learn.rounds=6")
    for record in run.records:
        charge = record.charge
        assert charge.idle_j == pytest.approx(0.5 * 3 * charge.seconds, rel=1e-9)
        assert charge.energy >= sum(charge.device_j) + charge.server_j - 1e-12
    buffers = [record.charge.buffer for record in run.records]
    ended = sum(len(buffer.devices) + len(buffer.refused) for buffer in buffers) + len(run.fleet.waiting)
    going = run.fleet.queue.under_way.values()
    cost = next(iter(going)).cost  # of any cycle: devices are unlike in their clocks alone
    for name in ("transmit_j", "adapter_j", "receive_j", "server_j"):
        left = sum(cycle.spent(run.fleet.clock)[name] for cycle in going)
        charged = sum(getattr(record.charge, name) for record in run.records)
        assert charged - left == pytest.approx(ended * cost[name], rel=1e-9), name


def test_a_bound_on_staleness_throws_halves_away_and_not_the_trunks_steps(small, tmp_path):
    more = ("learn.trunk=shared", "learn.buffer=1", "learn.rounds=40", "learn.staleness=2")
    run = ran(small, tmp_path / "run", *UNLIKE, *BUFFERED, *more)
    buffers = [record.charge.buffer for record in run.records]
    assert max(tau for buffer in buffers for tau in buffer.staleness) <= 2
    assert any(buffer.refused for buffer in buffers)
    groups = [members for buffer in buffers for members in buffer.groups]
    assert {device for members in groups for device in members} == {0, 1, 2}
    made = {device: sum(device in members for members in groups) for device in range(3)}
    ended = {
        device: sum([*buffer.devices, *buffer.refused].count(device) for buffer in buffers)
        for device in range(3)
    }
    assert all(0 <= made[device] - 2 * ended[device] <= 4 for device in range(3))


def test_whole_models_without_a_cut_at_the_devices_and_uneven_cycles(small, tmp_path):
    """Cut 0: devices embed and send; of unlike many mini-batches, so that cycles are unlike long."""
    more = (
        "learn.method=sflam-mixed",
        "data.sampling=local",
        "data.partition=dirichlet",
        "learn.local_steps=0",
        "learn.local_epochs=1",
        "model.cut=0",
        "learn.buffer=2",
        "learn.rounds=5",
        "network.fading=rayleigh",
    )
    assert_resumes(small, tmp_path, (*UNLIKE, *BUFFERED, *more), stops=(2, 4))


def test_its_versions_are_not_made_again_from_updates_alone(small, tmp_path):
    run = started(small, tmp_path, *EQUAL, *BUFFERED, *SHARED)
    with pytest.raises(RunError, match=r'learn.trunk = "shared": .*; simulate the run again'):
        RecordedVersions(run.fleet.halves, {})
