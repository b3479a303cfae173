"""What devices draw at any clock in a simulated run: inside the plan, beyond it, and from batteries."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.network.scenario import build
from tests.simulate.builders import SQUARE, ran, started

SHORT = ("learn.rounds=3", "learn.evaluate_every=0")
DRAWN = (*SHORT, "network.static_power_w=0.4")


def devices(*settings):
    """Return ``network.device`` of one device after another."""
    return "network.device=[" + ",".join("{" + item + "}" for item in settings) + "]"


def mean_j(run):
    """Return the J [K] of a round on average, of a run in which all devices take part."""
    return np.mean([record.charge.device_j for record in run.records], axis=0)


@pytest.mark.parametrize("counts", ["all", "activations"])
def test_what_is_drawn_lasts_until_adapters_have_moved(small, tmp_path, counts):
    run = ran(small, tmp_path / "run", *DRAWN, f"plan.counts={counts}")
    for record in run.records:
        charge = record.charge
        assert charge.idle_j == pytest.approx(0.4 * 3 * charge.seconds, rel=1e-12)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        spent = charge.compute_j + charge.transmit_j + charge.adapter_j + charge.idle_j
        assert sum(charge.device_j) == pytest.approx(spent, rel=1e-12) and charge.rest_j == 0


def test_the_device_whose_waiting_breaks_its_cap_is_left_out(small, tmp_path):
    """Not the one with the weakest channel: that one can keep its cap, however long a round is."""
    kinds = devices("distance_m=60.0,static_power_w=100.0", "distance_m=200.0", "distance_m=300.0")
    free = ran(small, tmp_path / "free", *SHORT, kinds)
    cap = 0.3 * min(record.charge.device_j[0] for record in free.records)
    assert cap > 2 * max(max(record.charge.device_j[1:]) for record in free.records)
    run = ran(small, tmp_path / "run", *SHORT, kinds, f"plan.energy_cap={cap}", "plan.late=drop")
    for record in run.records:
        assert record.charge.dropped == (0,) and record.participants == (1, 2)
        assert max(record.charge.device_j) <= cap * (1 + 1e-9) and record.charge.beyond_j == ()


def test_a_battery_that_waiting_empties_is_never_overdrawn(small, tmp_path):
    """Plans shorten as batteries run down; a device leaves when no round is short enough for what it has left."""
    kinds = devices("distance_m=60.0,static_power_w=3.0", "distance_m=200.0", "distance_m=300.0")
    free = ran(small, tmp_path / "free", *SHORT, kinds)
    battery = 2.6 * max(max(record.charge.device_j) for record in free.records)
    more = (kinds, "learn.evaluate_every=0", "learn.rounds=6", f"network.battery_j={battery}")
    run = ran(small, tmp_path / "run", *more, "plan.late=drop")
    left, present = np.full(3, battery), []
    for record in run.records:
        charge = record.charge
        left[list(record.participants)] -= charge.device_j
        np.testing.assert_allclose(charge.battery_j, left, rtol=1e-9, atol=1e-12)
        assert min(charge.battery_j) >= -1e-9 * battery
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        present.append(record.participants)
    assert present[0] == (0, 1, 2) and present[-1] == (1, 2)


def test_devices_that_take_no_part_draw_too_where_that_is_asked(small, tmp_path):
    some = (*DRAWN, "fleet.devices=4", "fleet.selected=2", "network.battery_j=100000")
    plain = ran(small, tmp_path / "plain", *some)
    run = ran(small, tmp_path / "run", *some, "network.idle_always=true")
    left = np.full(4, 100000.0)
    for record, before in zip(run.records, plain.records, strict=True):
        charge, others = record.charge, [k for k in range(4) if k not in record.participants]
        assert before.charge.rest_j == 0
        assert charge.rest_j == pytest.approx(2 * 0.4 * charge.seconds, rel=1e-9)
        left[list(record.participants)] -= charge.device_j
        left[others] -= 0.4 * charge.seconds
        np.testing.assert_allclose(charge.battery_j, left, rtol=1e-12)
        assert charge.energy == pytest.approx(charge.charged_j + charge.rest_j, rel=1e-9)


def test_an_empty_battery_draws_none(small, tmp_path):
    """Beside the two that take part, one idles its battery away: what it draws ends with it."""
    some = ("learn.evaluate_every=0", "learn.rounds=1", "network.static_power_w=5")
    free = ran(small, tmp_path / "free", *some, "fleet.devices=4", "fleet.selected=2")
    battery = 2.5 * max(free.records[0].charge.device_j)
    more = (*some, "learn.rounds=40", "fleet.devices=4", "fleet.selected=2", "plan.late=drop")
    run = started(small, tmp_path / "run", *more, f"network.battery_j={battery}", "network.idle_always=true")
    drawn = 0.0
    with pytest.raises(Exception, match="no device can take part"):
        for record in run.rounds():
            assert min(record.charge.battery_j) >= -1e-9 * battery
            drawn += sum(record.charge.device_j) + record.charge.rest_j
    assert drawn == pytest.approx(4 * battery - sum(run.records[-1].charge.battery_j), rel=1e-9)


def test_in_a_relay_devices_draw_in_their_own_turns_or_always(small, tmp_path):
    relay = (*DRAWN, "learn.method=sl", "plan.counts=all")
    plain = ran(small, tmp_path / "plain", *relay)
    run = ran(small, tmp_path / "run", *relay, "network.idle_always=true")
    for record, before in zip(run.records, plain.records, strict=True):
        charge = record.charge
        assert before.charge.idle_j == pytest.approx(0.4 * before.charge.seconds, rel=1e-9)
        assert charge.idle_j + charge.rest_j == pytest.approx(3 * 0.4 * charge.seconds, rel=1e-9)


def test_among_several_servers_waiting_is_charged_where_that_is_asked(small, tmp_path):
    plain = ran(small, tmp_path / "plain", *SQUARE, *SHORT)
    run = ran(small, tmp_path / "run", *SQUARE, *SHORT, "network.idle_always=true")
    power = build(run.job.network, run.job.seed).static_power
    assert power.min() > 0
    assert any("network.idle_always" in note for note in plain.fleet.notes)
    assert not any("network.idle_always" in note for note in run.fleet.notes)
    for record, before in zip(run.records, plain.records, strict=True):
        charge = record.charge
        computing = np.zeros(5)
        computing[list(record.participants)] = charge.compute_s
        assert charge.rest_j == pytest.approx((power * (charge.seconds - computing)).sum(), rel=1e-9)
        assert before.charge.rest_j == 0 and charge.charged_j == before.charge.charged_j


@pytest.mark.slow
def test_a_budget_that_binds_holds_with_what_is_drawn(small, tmp_path):
    wish = (
        *DRAWN,
        "learn.rounds=20",
        "learn.local_steps=1",
        "network.static_power_w=0.01",
        "network.bandwidth_mhz=1",
    )
    free = ran(small, tmp_path / "free", *wish, "plan.latency_weight=0.02")
    fast = ran(small, tmp_path / "fast", *wish, "plan.latency_weight=0.95")
    budget = 0.5 * float(mean_j(free).max() + mean_j(fast).max())
    run = ran(small, tmp_path / "run", *wish, "plan.latency_weight=0.95", f"plan.budget={budget}")
    assert mean_j(fast).max() > 1.2 * budget and mean_j(run).max() <= 1.1 * budget
    for record in run.records:
        assert record.charge.charged_j == pytest.approx(record.charge.predicted_j, rel=1e-9)
