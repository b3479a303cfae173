"""Deadlines, budgets and batteries: who takes part, who is left out, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from sflam import config
from sflam.allocate.registry import allocate
from sflam.data.batches import batches, rows_of_round
from sflam.errors import AllocationError
from sflam.learn.selection import select_devices
from sflam.learn.settings import FleetSettings
from sflam.network.scenario import build
from sflam.network.settings import NetworkSettings
from sflam.simulate.policies import POLICIES, Known
from sflam.simulate.setup import notes
from tests.conftest import assert_refused, sets
from tests.simulate.builders import SIMULATED, ran, started

SQUARE = ("network.scenario=square", "network.servers=2")
FIVE = ("fleet.devices=5", "learn.rounds=4", "learn.evaluate_every=0")


def test_devices_that_cannot_finish_in_time_are_left_out(small, tmp_path):
    free = ran(small, tmp_path / "free", *FIVE, "plan.latency_weight=1")
    shortest = [record.charge.charged_s for record in free.records]  # no plan is faster in every round
    deadline = 0.8 * max(shortest)
    run = ran(small, tmp_path / "run", *FIVE, f"plan.deadline={deadline}", "plan.late=drop")
    for record, needed in zip(run.records, shortest, strict=True):
        charge = record.charge
        assert charge.charged_s <= deadline * (1 + 1e-9)
        assert sorted([*record.participants, *charge.dropped]) == list(range(5))
        assert bool(charge.dropped) == (needed > deadline)
        rows = sum(len(run.assembly.parts[device]) for device in record.participants)
        assert record.samples == rows
    assert any(record.charge.dropped for record in run.records)


def test_dropping_leaves_out_as_few_as_can_be(small, tmp_path):
    """Against trying every set of devices, largest first."""
    free = ran(small, tmp_path / "free", *FIVE, "plan.latency_weight=1", "learn.rounds=1")
    deadline = 0.4 * free.records[0].charge.charged_s
    run = started(small, tmp_path / "run", *FIVE, f"plan.deadline={deadline}", "plan.late=drop")
    for number in range(6):
        network = build(run.fleet.job.network, 0, number)
        turn, dropped = run.fleet.planner.ask(number, network, range(5))

        def possible(devices, network=network):
            return len(allocate(run.fleet.planner.problem(network, devices)).devices) > 0

        most = next(n for n in range(5, 0, -1) if any(map(possible, itertools.combinations(range(5), n))))
        assert len(turn.devices) == most == 5 - len(dropped)


def test_a_relay_goes_on_without_a_device_that_cannot_finish(small, tmp_path):
    free = ran(small, tmp_path / "free", *FIVE, "plan.latency_weight=1", "learn.method=sl")
    order = free.fleet.inner.order(0, range(5))
    ends = [free.records[0].charge.finish[device] for device in order]
    turns = np.diff([0.0, *ends])  # adapters travel between turns, so these are upper bounds
    deadline = 0.7 * float(turns.max())
    run = ran(
        small, tmp_path / "run", *FIVE, f"plan.deadline={deadline}", "plan.late=drop", "learn.method=sl"
    )
    for record in run.records:
        assert sorted([*record.participants, *record.charge.dropped]) == list(range(5))
    assert run.records[0].charge.dropped and run.records[0].participants


def test_a_deadline_that_every_device_must_hold_stops_the_run(small, tmp_path):
    run = started(small, tmp_path / "run", *FIVE, "plan.deadline=1e-9")
    with pytest.raises(AllocationError, match=r'round 1: no plan holds the limits: .*plan.late = "drop"'):
        next(run.rounds())
    run = started(small, tmp_path / "drop", *FIVE, "plan.deadline=1e-9", "plan.late=drop")
    with pytest.raises(AllocationError, match="round 1: no device can take part"):
        next(run.rounds())


def test_budgets_hold_on_average(small, tmp_path):
    more = ("learn.rounds=30", "learn.evaluate_every=0", "learn.local_steps=1", "quant.scheme=uniform")
    free = ran(small, tmp_path / "free", *more, "plan.latency_weight=0.99")
    mean = np.mean([record.charge.device_j for record in free.records], axis=0)
    budget = 0.6 * float(mean.max())  # adapters and headers count: every device needs that much
    run = ran(small, tmp_path / "run", *more, f"plan.budget={budget}", "plan.patience=1e-4")
    counted = np.array([record.charge.device_j for record in run.records])
    assert (counted.mean(axis=0) <= 1.2 * budget).all()
    slower = np.mean([record.charge.charged_s for record in run.records])
    assert slower > np.mean([record.charge.charged_s for record in free.records])
    assert (run.fleet.planner.queues >= 0).all() and run.records[-1].charge.method == "online"


def test_batteries_run_down_and_empty_devices_stay_out(small, tmp_path):
    free = ran(small, tmp_path / "free", *FIVE)
    spent = np.sum([record.charge.device_j for record in free.records], axis=0)
    battery = 0.6 * float(spent.max())
    run = started(small, tmp_path / "run", *FIVE, f"network.battery_j={battery}", "learn.rounds=30")
    left = np.full(5, battery)
    with pytest.raises(
        AllocationError, match=r"no device can take part: of 5 batteries .* raise network.battery_j"
    ):
        for record in run.rounds():
            used = np.zeros(5)
            used[list(record.participants)] = record.charge.device_j
            left = np.maximum(left - used, 0)
            assert record.charge.battery_j == pytest.approx(left)
    sizes = [len(record.participants) for record in run.records]
    assert sizes[0] == 5 and sizes[-1] < 5
    assert len(run.records) == run.records[-1].round + 1


def test_a_kept_plan_gives_way_when_a_battery_is_empty(small, tmp_path):
    once = (*FIVE, "plan.every=0", "learn.rounds=30")
    spent = ran(small, tmp_path / "free", *FIVE, "learn.rounds=1").records[0].charge.device_j
    run = started(small, tmp_path / "run", *once, f"network.battery_j={3.5 * max(spent)}")
    with pytest.raises(AllocationError, match="no device can take part"):
        for record in run.rounds():
            before = run.records[-2].charge.battery_j if record.round else (np.inf,) * 5
            assert all(before[device] > 0 for device in record.participants)
    assert run.records[0].charge.planned == run.records[1].charge.planned == 0
    assert len({record.charge.planned for record in run.records}) > 1


def test_policies_take_whom_they_name():
    known = Known(
        settings=FleetSettings(devices=4, selected=2),
        seed=0,
        round=0,
        gain=np.array([1.0, 4.0, 3.0, 2.0]),
        energy=lambda: np.array([1.0, 4.0, 3.0, 2.0]),
        loss=np.array([0.5, np.inf, 0.1, 0.7]),
        able=np.array([True, True, True, False]),
        samples=np.array([1, 900, 900, 900]),
    )
    assert POLICIES["channel"](known) == (1, 2)
    assert POLICIES["energy"](known) == (0, 2)
    assert POLICIES["loss"](known) == (0, 1)
    assert POLICIES["samples"](known) == (1, 2), "device 0 has next to none, device 3 cannot be taken"
    assert len(POLICIES["uniform"](known)) == 2 and set(POLICIES["uniform"](known)) <= {0, 1, 2}


def test_other_devices_stand_in_for_those_that_are_out():
    """Every round has as many devices as it can, and those of ``sflam train`` where all of them are able."""
    for number in range(30):
        able = np.array([True, False, False, True, False])
        known = Known(
            settings=FleetSettings(devices=5, selected=2),
            seed=3,
            round=number,
            gain=np.ones(5),
            energy=lambda: np.ones(5),
            loss=np.ones(5),
            able=able,
            samples=np.ones(5, np.int64),
        )
        assert POLICIES["uniform"](known) == (0, 3)
        everyone = replace(known, able=np.ones(5, bool))
        assert POLICIES["uniform"](everyone) == select_devices(known.settings, 3, number)


def test_channel_policy_follows_the_channel(small, tmp_path):
    run = ran(small, tmp_path / "run", *FIVE, "fleet.selected=2", "fleet.policy=channel")
    for record in run.records:
        gain = build(run.fleet.job.network, 0, record.round).gain[0]
        assert record.participants == tuple(sorted(np.argsort(-gain)[:2]))


@pytest.mark.parametrize(
    ("samples", "batch", "steps", "epochs"), [(10, 4, 0, 3), (10, 4, 5, 1), (3, 4, 2, 1), (8, 4, 3, 1)]
)
def test_rows_of_a_round_are_those_of_its_batches(samples, batch, steps, epochs):
    drawn = batches(np.arange(samples), batch, np.random.default_rng(0), steps, epochs)
    assert rows_of_round(samples, batch, steps, epochs) == sum(map(len, drawn))


def trace(path, rounds):
    rows = [
        f"{name},{time},{-90 - time - 3 * index}"
        for time in range(rounds)
        for index, name in enumerate("abc")
    ]
    path.write_text("device,time,gain_db\n" + "\n".join(rows) + "\n")
    return path


def test_a_trace_gives_every_round_its_gains(small, tmp_path):
    run = ran(small, tmp_path / "run", f"network.trace={trace(tmp_path / 'gains.csv', 2)}")
    first, second = (record.charge for record in run.records)
    assert second.charged_s > first.charged_s and run.fleet.network.gain[0, 0] == pytest.approx(10**-9.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("plan.deadline=1e-9",), "round 1: no plan holds the limits"),
        (("network.battery_j=1e-12",), "round 1: no device can take part"),
        (("plan.energy_cap=1e-12",), "round 1: no plan holds the limits"),
        (("network.memory_gb=1e-6",), "round 1: no plan holds the limits: .* memory"),
        (("network.devices=7",), "the network has 7 devices, but fleet.devices is 3"),
        (("network.trace=TRACE",), "has 1 rounds, but learn.rounds is 2"),
        (
            ("learn.method=central",),
            'learn.method = "central" does not go with sflam simulate: it uses no network',
        ),
        (
            ("model.labels=device", "network.calibrate=true"),
            'model.labels = "device" and network.calibrate = true do not go together',
        ),
        (
            ("model.labels=device", "plan.measure_every=2"),
            "plan.measure_every = 2 do not go together: with labels",
        ),
        (
            ('plan.optimize=["cut"]', "learn.state=keep"),
            'learn.state = "keep" do not go together: cuts change',
        ),
        (
            ('plan.optimize=["cut"]', "fleet.cuts=[1,1,1]"),
            r"fleet.cuts = \[1, 1, 1\] do not go together",
        ),
        (
            ('plan.optimize=["cut"]', "learn.method=sl"),
            'learn.method = "sl" do not go together',
        ),
        (
            ('plan.optimize=["cut"]', "network.calibrate=true"),
            "network.calibrate = true do not go together: it is about a cut",
        ),
        (
            (*SQUARE, "learn.method=fedlora"),
            'learn.method = "fedlora" do not go together',
        ),
        (
            (*SQUARE, "learn.cache=device", "model.cut=0"),
            'learn.cache = "device" do not go together: cuts change',
        ),
        (
            (*SQUARE, "network.battery_j=1"),
            "network.battery_j = 1.0 do not go together: plans for several servers",
        ),
        ((*SQUARE, "plan.deadline=1"), "plan.deadline = 1.0 do not go together: plans for several servers"),
        (
            (*SQUARE, "plan.method=bcd"),
            "this method plans for one server; use one of dual",
        ),
        ((*SQUARE, "fleet.servers=[0,1,2]"), "device-2 is at server 2, but the network has 2, from 0 on"),
        ((*SQUARE, "fleet.cuts=[1,0,1]"), "device-1 keeps 0 layers, but splits are 1 to 3"),
        ((*SQUARE, "fleet.cuts=[1,1,3]"), "device-2 keeps 3 of 3 layers and is at server 0"),
        (
            (*SQUARE, "fleet.cuts=[1,1,2]", "network.memory_gb=2.2e-4"),
            "device-2 keeps 2 layers, which need .* of its",
        ),
        (
            ("fleet.servers=[0,0,1]",),
            r"fleet.servers = \[0, 0, 1\] and network.servers = 1 do not go together",
        ),
        (("network.simulate=false", "fleet.policy=loss"), "sflam simulate"),
        (("plan.late=perhaps",), "choose one of stop, drop"),
        (("fleet.policy=best",), "choose one of uniform, samples, channel, energy, loss"),
        (
            ("plan.budget=1", "plan.method=equal"),
            'plan.budget = 1.0 and plan.method = "equal" do not go together',
        ),
        (("network.battery_j=-1",), "network.battery_j is -1"),
        (("plan.every=-1",), "plan.every is -1"),
    ],
)
def test_bad_input_is_one_line(cli, small, tmp_path, settings, message):
    path = trace(tmp_path / "short.csv", 1)
    more = [one.replace("TRACE", str(path)) for one in settings]
    assert_refused(cli("train", *sets(*small, *SIMULATED, *more), "--out", tmp_path / "run"), message)


def test_simulate_is_train_over_a_network(cli, small, tmp_path):
    more = ("learn.local_steps=0", "learn.rounds=1")
    output = cli("simulate", *sets(*small, *more), "--out", tmp_path / "run", "--json")
    found = json.loads(output.out[-1])
    assert output.code == 0 and found["virtual_s"] > 0 and found["energy_j"] > 0
    config = (tmp_path / "run" / "config.toml").read_text()
    assert "simulate = true" in config and (tmp_path / "run" / "curves.png").is_file()
    again = cli("simulate", "--resume", tmp_path / "run", "--json")
    assert again.code == 0 and json.loads(again.out[-1])["virtual_s"] == found["virtual_s"]
    plain = cli("train", *sets(*small, *more), "--out", tmp_path / "plain", "--json")
    assert json.loads(plain.out[-1])["virtual_s"] is None


def test_simulation_is_off_by_default():
    assert NetworkSettings().simulate is False


@pytest.mark.parametrize("patience", [1e-2, pytest.param(1e-4, marks=pytest.mark.slow)])
def test_budgets_hold_from_the_first_rounds_on(small, tmp_path, monkeypatch, patience):
    """Queues begin near where they end; from empty ones, as many rounds use more."""
    more = ("learn.evaluate_every=0", "learn.local_steps=1", "quant.scheme=uniform")
    free = ran(small, tmp_path / "free", *more, "learn.rounds=6", "plan.latency_weight=0.99")
    budget = 0.5 * float(np.mean([record.charge.device_j for record in free.records], axis=0).min())

    def mean_use(name):
        budgets = (f"plan.budget={budget}", f"plan.patience={patience}", "learn.rounds=12")
        run = ran(small, tmp_path / name, *more, *budgets)
        charges = [record.charge for record in run.records]
        return np.mean([charge.compute_j + charge.transmit_j for charge in charges]) / (3 * budget)

    warm = mean_use("warm")
    monkeypatch.setattr("sflam.simulate.fleet.begin", lambda planner, rounds: None)
    cold = mean_use("cold")
    assert warm < min(1.15, cold), (warm, cold)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("network.battery_j=1",), "fleet.selected is 0, so every device trains until its battery is empty"),
        (("fleet.policy=energy",), 'fleet.policy = "energy" leaves no device out: all 10 devices'),
        (("network.battery_j=1", "fleet.selected=3", "fleet.policy=energy"), ""),
    ],
)
def test_a_choice_that_chooses_no_device_is_remarked(settings, message):
    found = notes(config.load(None, list(settings)))
    assert len(found) == bool(message) and message in "".join(found)
