"""What a round takes is planned, charged and limited alike: nothing moves outside of the plan."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from sflam.errors import AllocationError
from sflam.report.terminal.loop_lines import loop_lines
from tests.simulate.builders import ran, started

PLAIN = ("learn.evaluate_every=0", "network.downlink_mbps=5", "network.server_kappa=1e-27")


def assert_as_planned(record):
    charge = record.charge
    assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
    assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
    assert charge.seconds == charge.charged_s
    assert charge.energy == pytest.approx(charge.charged_j, rel=1e-12)


@pytest.mark.parametrize("method", ["sflam", "sfl-v1", "sl", "fedlora"])
def test_a_deadline_holds_for_the_round_that_is_charged(small, tmp_path, method):
    more = (*PLAIN, "fleet.devices=5", "learn.rounds=4", f"learn.method={method}", "network.bandwidth_mhz=1")
    free = ran(small, tmp_path / "free", *more, "plan.latency_weight=1")
    turns = 5 if method == "sl" else 1
    deadline = 0.9 * max(record.charge.seconds for record in free.records) / turns
    run = ran(small, tmp_path / "run", *more, f"plan.deadline={deadline}", "plan.late=drop")
    for record in run.records:
        assert_as_planned(record)
        assert record.charge.seconds <= deadline * len(record.participants if turns > 1 else [0]) * (1 + 1e-9)
        assert record.charge.late_s == 0


@pytest.mark.parametrize("cap", ["energy_cap", "radio_cap", "compute_cap"])
def test_a_cap_holds_for_what_each_device_is_charged(small, tmp_path, cap):
    more = (*PLAIN, "learn.rounds=3", "network.bandwidth_mhz=1")
    free = ran(small, tmp_path / "free", *more, "plan.latency_weight=0.9")
    spent = max(max(record.charge.device_j) for record in free.records)
    kind = {"energy_cap": 0.6, "radio_cap": 0.5, "compute_cap": 0.3}[cap]
    limit = kind * spent
    run = ran(
        small,
        tmp_path / "run",
        *more,
        "plan.latency_weight=0.9",
        f"plan.{cap}={limit}",
        "plan.late=drop",
    )
    for record in run.records:
        assert_as_planned(record)
        charge = record.charge
        assert charge.beyond_j == ()
        if cap == "energy_cap":
            assert max(charge.device_j) <= limit * (1 + 1e-9)
        if cap == "radio_cap":
            assert charge.transmit_j + charge.adapter_j <= len(record.participants) * limit * (1 + 1e-9)


def test_no_battery_is_overdrawn_by_a_plan_of_its_round(small, tmp_path):
    more = (*PLAIN, "learn.rounds=12", "fleet.devices=4", "network.bandwidth_mhz=1")
    free = ran(small, tmp_path / "free", *more, "learn.rounds=1")
    battery = 3.5 * max(free.records[0].charge.device_j)
    run = started(small, tmp_path / "run", *more, f"network.battery_j={battery}")
    left = np.full(4, battery)
    with pytest.raises(Exception, match="no device can take part"):
        for record in run.rounds():
            left[list(record.participants)] -= record.charge.device_j
            np.testing.assert_allclose(record.charge.battery_j, left, rtol=1e-9, atol=1e-12)
            assert min(record.charge.battery_j) >= -1e-9 * battery
            assert_as_planned(record)
    assert len(run.records) >= 3


def test_an_older_plan_is_charged_in_full_and_shown(small, tmp_path):
    """One plan for all rounds: channels change, and nothing is clamped."""
    more = (*PLAIN, "learn.rounds=6", "plan.every=0", "network.bandwidth_mhz=1")
    free = ran(small, tmp_path / "free", *more)
    first = free.records[0].charge
    limits = (f"plan.deadline={1.001 * first.seconds}", f"plan.energy_cap={1.001 * max(first.device_j)}")
    run = ran(small, tmp_path / "run", *more, *limits)
    late = [record.charge for record in run.records if record.charge.late_s > 0]
    assert late and run.records[0].charge.late_s == 0 and run.records[0].charge.beyond_j == ()
    for charge in late:
        assert charge.seconds == pytest.approx(1.001 * first.seconds + charge.late_s, rel=1e-9)
    over = [record.charge for record in run.records if record.charge.beyond_j]
    shown = "; ".join(loop_lines(run.records))
    assert over and f"{len(late)} rounds were longer than plan.deadline" in shown and "broke caps" in shown
    for charge in over:
        cap = 1.001 * max(first.device_j)
        assert max(charge.device_j) == pytest.approx(cap + max(charge.beyond_j), rel=1e-9)
    battery = 2.2 * max(first.device_j)
    drawn = started(small, tmp_path / "battery", *more, f"network.battery_j={battery}")
    spent = np.zeros(3)
    with contextlib.suppress(AllocationError):
        for record in drawn.rounds():
            spent[list(record.participants)] += record.charge.device_j
            np.testing.assert_allclose(record.charge.battery_j, battery - spent, rtol=1e-9, atol=1e-12)
    assert drawn.records


def test_devices_idle_over_the_whole_round(small, tmp_path):
    """Waiting included: a device that is done early draws as long as the slowest one takes."""
    more = (*PLAIN, "learn.rounds=2", 'network.profiles={"raspberry-pi-4"=2, "jetson-orin-nano"=1}')
    run = ran(small, tmp_path / "run", *more)
    for record in run.records:
        assert_as_planned(record)
        charge = record.charge
        idle = np.array([2.7, 2.7, 5.0]) * charge.seconds
        assert charge.idle_j == pytest.approx(idle.sum(), rel=1e-12)
        assert (np.array(charge.device_j) > idle).all() and charge.idle_j > 0.2 * charge.charged_j


def random_settings(seed):
    """A run drawn over methods, limits and networks; its plans are of their own rounds."""
    draw = np.random.default_rng(seed)
    pick = lambda *values: values[int(draw.integers(len(values)))]  # noqa: E731
    method = pick("sflam", "sflam", "sfl-v1", "sfl-v2", "sl", "fedlora")
    found = {
        "learn.rounds": 2,
        "learn.evaluate_every": 0,
        "learn.method": method,
        "learn.local_steps": pick(0, 1, 2, 3),
        "fleet.devices": pick(2, 3, 5),
        "network.bandwidth_mhz": pick(0.3, 1, 10),
        "network.downlink_mbps": pick(0, 2, 40),
        "network.server_kappa": pick(0, 1e-27),
        "network.radius_m": pick(150, 500),
        "network.static_power_w": pick(0, 0, 0.01, 0.3),
        "plan.latency_weight": pick(0.1, 0.5, 0.9, 1),
        "plan.optimize": pick("[]", '["clock"]'),
        "plan.late": "drop",
        "seed": int(draw.integers(1000)),
    }
    if method in ("sflam", "sfl-v1"):
        found |= pick({}, {"model.labels": "device"}, {"learn.device_half": "frozen"})
        found |= pick({}, {"learn.aggregation": "freeze-a"}, {"model.cut": 2})
    if method == "sflam" and "learn.device_half" not in found and "model.labels" not in found:
        found |= pick({}, {"quant.bits_up": 3}, {"quant.scheme": "topk"}, {"fleet.cuts": "CUTS"})
    radio = np.random.default_rng(seed + 7)
    if radio.random() < 0.6:
        found |= {
            "network.amplifier_efficiency": float(radio.choice([1.0, 0.35])),
            "network.circuit_power_w": float(radio.choice([0.0, 0.05, 1.0])),
            "network.receive_power_w": 0.5
            if found["network.downlink_mbps"] and radio.random() < 0.5
            else 0.0,
        }
    if found.get("fleet.cuts"):
        found["fleet.cuts"] = [int(draw.integers(3)) for _ in range(found["fleet.devices"])]
        found.pop("model.cut", None)
    return found


def shared_settings(seed):
    """The same with one trunk for all, which waits for them at every step."""
    found, draw = random_settings(seed), np.random.default_rng(seed + 3)
    found["learn.method"] = str(draw.choice(["sfl-v2", "sflam-mixed", "sflam"]))
    if found["learn.method"] == "sflam":
        found |= {"learn.trunk": "shared", "learn.server_update": str(draw.choice(["sequential", "batched"]))}
    if found["learn.method"] == "sflam-mixed":
        found.pop("model.labels", None)
        found["learn.batch"] = 4
    if found["learn.method"] == "sfl-v2":
        found.pop("quant.scheme", None)
    return found


def asked(found):
    return [f"{key}={value}" for key, value in found.items()]


def assert_balanced(small, folder, seed, kind=random_settings):
    """No limit is exceeded, and what is charged is what was predicted, by a plan of the round itself."""
    draw, found = np.random.default_rng(seed + 1), kind(seed)
    free = ran(small, folder / "free", *asked(found))
    charges = [record.charge for record in free.records]
    turns = max(len(record.participants) for record in free.records) if found["learn.method"] == "sl" else 1
    spent = max(max(charge.device_j) for charge in charges)
    longest = max(charge.seconds for charge in charges) / turns
    limits = {
        "plan.deadline": longest * draw.uniform(0.7, 1.5) if draw.random() < 0.7 else 0,
        "plan.energy_cap": spent * draw.uniform(0.3, 1.5) if draw.random() < 0.5 else 0,
        "plan.radio_cap": spent * draw.uniform(0.3, 1.5) if draw.random() < 0.3 else 0,
        "plan.compute_cap": spent * draw.uniform(0.3, 1.5) if draw.random() < 0.3 else 0,
        "network.battery_j": spent * draw.uniform(0.8, 4) if draw.random() < 0.5 else 0,
    }
    run = started(small, folder / "run", *asked(found | limits))
    with contextlib.suppress(AllocationError):  # no device can take part
        for record in run.rounds():
            charge = record.charge
            fixed = found.get("quant.scheme") != "topk"
            for kind in ("s", "j"):
                paid, promised = getattr(charge, f"charged_{kind}"), getattr(charge, f"predicted_{kind}")
                assert paid == pytest.approx(promised, rel=1e-9) if fixed else paid <= promised * (1 + 1e-9)
            most = limits["plan.deadline"] * (len(record.participants) if turns > 1 else 1)
            assert not most or charge.seconds <= most * (1 + 1e-9)
            assert charge.late_s == 0 and charge.beyond_j == ()
            cap = limits["plan.energy_cap"]
            assert not cap or max(charge.device_j) <= cap * (1 + 1e-9)
            assert min(charge.battery_j, default=0) >= -1e-9 * limits["network.battery_j"]
    return len(run.records)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), 2, 3, 4, 5, 6, 7])
def test_the_books_of_a_random_run_balance(small, tmp_path, seed):
    assert_balanced(small, tmp_path, seed)


@pytest.mark.slow
def test_the_books_of_two_hundred_random_runs_balance(small, tmp_path):
    rounds = sum(assert_balanced(small, tmp_path / str(seed), 1000 + seed) for seed in range(200))
    assert rounds > 200


@pytest.mark.parametrize("seed", range(4))
def test_the_books_balance_where_devices_wait_for_each_other(small, tmp_path, seed):
    assert_balanced(small, tmp_path, 300 + seed, shared_settings)


@pytest.mark.slow
def test_the_books_of_a_hundred_runs_with_one_trunk_balance(small, tmp_path):
    rounds = sum(
        assert_balanced(small, tmp_path / str(seed), 4000 + seed, shared_settings) for seed in range(100)
    )
    assert rounds > 100
