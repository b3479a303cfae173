"""Simulated rounds of devices that share the time of one channel: charged what was planned, both ways of it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulate.builders import ran
from tests.simulate.test_books import assert_as_planned

SHORT = ("learn.evaluate_every=0", "learn.rounds=3", "fleet.devices=4", "network.bandwidth_mhz=1")
TIME = (*SHORT, "network.access=airtime", "network.downlink_mbps=5", "network.server_kappa=1e-27")
RADIO = ("network.circuit_power_w=0.2", "network.receive_power_w=0.3", "network.amplifier_efficiency=0.35")


@pytest.mark.parametrize("method", ["sflam", "sfl-v1", "sl", "fedlora", "sfl-v2"])
@pytest.mark.parametrize("optimize", ['["clock"]', "[]"])
def test_a_round_is_charged_what_was_planned(small, tmp_path, method, optimize):
    more = (*TIME, *RADIO, f"learn.method={method}", f"plan.optimize={optimize}")
    run = ran(small, tmp_path / "run", *more)
    for record in run.records:
        charge = record.charge
        if optimize == "[]":  # computing is charged, and not counted in the objective
            assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
            assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        else:
            assert_as_planned(record)
        if method == "sl":  # one after another, each in all the time
            assert charge.airtime == ()
            continue
        shares = np.array(charge.airtime)
        assert shares.sum() <= 1 + 1e-9 and set(charge.bandwidth) == {1e6}
        # what comes down takes its part of each device's slots
        down, up = np.array(charge.down_s), np.array(charge.up_s)
        bits = np.array(charge.payload_down, float)
        assert (down >= bits / 5e6 / shares * (1 - 1e-9)).all() and (up > 0).all()


@pytest.mark.parametrize("timing", ["chain", "barrier"])
@pytest.mark.parametrize("kind", ["deadline", "energy_cap", "battery"])
def test_limits_hold_for_what_is_charged(small, tmp_path, kind, timing):
    common = (*TIME, *RADIO, "plan.latency_weight=0.9", f"plan.timing={timing}")
    free = ran(small, tmp_path / "free", *common)
    worst = max(max(record.charge.device_j) for record in free.records)
    longest = max(record.charge.seconds for record in free.records)
    limit = {
        "deadline": f"plan.deadline={0.9 * longest}",
        "energy_cap": f"plan.energy_cap={0.8 * worst}",
        "battery": f"network.battery_j={2.9 * worst}",
    }[kind]
    run = ran(small, tmp_path / "run", *common, limit, "plan.late=drop")
    for record in run.records:
        if not record.participants:
            continue
        assert_as_planned(record)
        assert record.charge.late_s == 0 and record.charge.beyond_j == ()
        if kind == "energy_cap":
            assert max(record.charge.device_j) <= 0.8 * worst * (1 + 1e-9)
        if kind == "battery":
            assert min(record.charge.battery_j) >= 0


@pytest.mark.parametrize("timing", ["chain", "barrier"])
def test_bits_and_cuts_are_planned_and_charged(small, tmp_path, timing):
    for wish in ('plan.optimize=["clock", "bits"]', 'plan.optimize=["clock", "cut"]'):
        more = (
            *TIME,
            wish,
            "plan.sensitivity=0.5",
            "plan.bits_most=8",
            "network.server_flops_per_cycle=1024",
            f"plan.timing={timing}",
        )
        run = ran(small, tmp_path / wish[-6:-2], *more)
        for record in run.records:
            assert_as_planned(record)
            assert sum(record.charge.airtime) <= 1 + 1e-9
