"""What radios draw beyond what they radiate, in simulated runs: inside the plan, from batteries, under budgets."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.errors import AllocationError
from tests.simulate.builders import SQUARE, ran, started

SHORT = ("learn.rounds=3", "learn.evaluate_every=0", "network.downlink_mbps=5")
RADIO = (
    "network.amplifier_efficiency=0.35",
    "network.circuit_power_w=0.5",
    "network.receive_power_w=0.3",
)


@pytest.mark.parametrize("counts", ["all", "activations"])
@pytest.mark.parametrize("method", ["sflam", "sl"])
def test_charges_are_what_was_planned(small, tmp_path, counts, method):
    plain = ran(small, tmp_path / "plain", *SHORT, f"plan.counts={counts}", f"learn.method={method}")
    more = (*SHORT, *RADIO, f"plan.counts={counts}", f"learn.method={method}")
    run = ran(small, tmp_path / "run", *more)
    for record, before in zip(run.records, plain.records, strict=True):
        charge = record.charge
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        sending = np.array(charge.power) / 0.35 + 0.5
        assert charge.transmit_j == pytest.approx(float(sending @ charge.up_s), rel=1e-9)
        kinds = charge.compute_j + charge.transmit_j + charge.adapter_j + charge.receive_j
        assert sum(charge.device_j) == pytest.approx(kinds, rel=1e-12)
        assert charge.receive_j >= 0.3 * sum(charge.down_s) * (1 - 1e-12) > 0
        assert charge.energy == pytest.approx(kinds + charge.server_j, rel=1e-12)
        assert before.charge.receive_j == 0 and charge.energy > before.charge.energy


def test_a_cap_of_all_energy_holds_receiving_too(small, tmp_path):
    free = ran(small, tmp_path / "free", *SHORT, *RADIO, "plan.latency_weight=0.9")
    cap = 0.9 * max(max(record.charge.device_j) for record in free.records)
    more = (*SHORT, *RADIO, "plan.latency_weight=0.9", f"plan.energy_cap={cap}", "plan.late=drop")
    run = ran(small, tmp_path / "run", *more)
    for record in run.records:
        assert max(record.charge.device_j) <= cap * (1 + 1e-9) and record.charge.beyond_j == ()
        assert record.charge.charged_j == pytest.approx(record.charge.predicted_j, rel=1e-9)


def test_a_battery_pays_circuits_and_receiving(small, tmp_path):
    free = ran(small, tmp_path / "free", *SHORT, *RADIO)
    battery = 2.5 * max(max(record.charge.device_j) for record in free.records)
    more = (*SHORT, *RADIO, "learn.rounds=8", f"network.battery_j={battery}", "plan.late=drop")
    run = started(small, tmp_path / "run", *more)
    left = np.full(3, battery)
    with pytest.raises(AllocationError, match="no device can take part"):
        for record in run.rounds():
            left[list(record.participants)] -= record.charge.device_j
            np.testing.assert_allclose(record.charge.battery_j, left, rtol=1e-9, atol=1e-12)
            assert min(record.charge.battery_j) >= -1e-9 * battery
    assert len(run.records) >= 2


def test_a_budget_below_what_circuits_take_is_refused(small, tmp_path):
    free = ran(small, tmp_path / "free", *SHORT, *RADIO)
    least = min(min(record.charge.device_j) for record in free.records)
    with pytest.raises(AllocationError, match=r"plan.budget is .* needs"):
        ran(small, tmp_path / "run", *SHORT, *RADIO, f"plan.budget={0.2 * least}")


def test_several_servers_charge_circuits_by_the_same_function(small, tmp_path):
    run = ran(small, tmp_path / "run", *SQUARE, "learn.rounds=2", "learn.evaluate_every=0", *RADIO[:2])
    for record in run.records:
        charge = record.charge
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        sending = np.array(charge.power) / 0.35 + 0.5
        assert charge.transmit_j == pytest.approx(float(sending @ charge.up_s), rel=1e-9)
        assert charge.receive_j == 0
