"""The planner behind a served fleet: rounds planned from what was measured, expected, resumed; strangers' claims."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.allocate.settings import PlanSettings
from sflam.codec.settings import QuantSettings
from sflam.config import Job
from sflam.errors import ServeError
from sflam.learn.settings import FleetSettings
from sflam.link.device_report import DeviceReport
from sflam.link.https_client import Link
from sflam.model.settings import ModelSettings
from sflam.network.settings import NetworkSettings
from sflam.planner.cell import workload_of
from sflam.planner.served import Rates
from sflam.serve.probes import SHORT, SIZE, LinkProbe
from sflam.serve.round_measure import away_of
from sflam.serve.round_planner import RoundChoice, RoundPart, RoundPlanner
from sflam.serve.round_stats import Reading
from tests.learn.builders import LEARN, with_bits
from tests.serve.threads import KINDS, Rig, simulated

FEW = replace(LEARN, canonical=True, local_steps=2, rounds=3)
CUTS = (1, 2, 0)
OPTIONS = {"cuts": CUTS, "labels": "server", "quant": QuantSettings(bits_up=4, bits_down=4), "learn": FEW}
WORK = workload_of(Job(model=ModelSettings(cut=1), quant=QuantSettings(bits_adapters=32)))


def planner(file=None, *, plan="measured", access="fdma", prior=None, **wish):
    wish = {"optimize": ("bits", "bits_down"), "sensitivity": 3.0, "sensitivity_down": 1.0} | wish
    job = Job(
        model=ModelSettings(cut=1),
        quant=replace(OPTIONS["quant"], bits_adapters=32),
        learn=FEW,
        fleet=FleetSettings(devices=3, plan=plan),
        plan=PlanSettings(**wish),
        network=NetworkSettings(access=access),
    )
    return RoundPlanner(job, WORK, (), CUTS, file, prior)


def shares(devices=(0, 1, 2), bits=(4, 4)):
    return {device: RoundPart(rows=32, exchanges=2, bits=bits) for device in devices}


RATES = {device: Rates(up=10.0 ** (5 + device), down=1e7, compute_s=0.01) for device in range(3)}


@pytest.mark.usefixtures("one_thread")
@KINDS
@pytest.mark.parametrize("access", ["fdma", "airtime"])
def test_rounds_planned_from_what_was_measured_are_those_of_a_simulation(tmp_path, access, lean):
    made = planner(tmp_path / "plan.json", access=access)
    records, found = Rig(tmp_path, "vit", planner=made, lean=lean, **OPTIONS).run()
    bits = [dict(enumerate(zip(r.measured.bits_up, r.measured.bits_down, strict=True))) for r in records]

    def planned(local, number):
        local.place(with_bits(local, bits[number]))
        return (0, 1, 2)

    _, wanted = simulated("vit", selected=planned, **OPTIONS)
    if not lean:  # NumPy rounds otherwise than torch
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert records[0].measured.predicted is None  # probes do not know how a device computes
    for record in records[1:]:
        one = record.measured
        assert one.predicted.source == "measured" and one.predicted.planned == record.round
        assert len(one.predicted.compute_s) == 3 and one.predicted.seconds > 0
        assert min(one.memory) > 1 << 20 and min(one.compute_s) > 0
        parts = np.sum([one.compute_s, one.up_s, one.wait_s, one.down_s, one.adapter_s], axis=0)
        assert (parts <= np.array(one.finish) * 1.01).all() and (parts > 0.3 * np.array(one.finish)).all()
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept["planned"] == 2 and {int(d): tuple(pair) for d, pair in kept["bits"].items()} == bits[2]


def test_a_fleet_that_plans_nothing_is_still_expected(tmp_path):
    records, _ = Rig(tmp_path, "vit", planner=planner(plan=""), **OPTIONS).run()
    assert {record.measured.bits_up for record in records} == {(4, 4, 4)}
    assert [record.measured.predicted is None for record in records] == [True, False, False]


class Older(Link):
    """A device of an earlier version: it knows of no probe and reports nothing."""

    def json(self, method, path, body=None):
        if body is not None:
            body = {key: value for key, value in body.items() if key != "probe"}
        found = super().json(method, path, body)
        assert not isinstance(found, dict) or "probe" not in found
        return found

    def call(self, method, path, body=None, headers=None, *, most=1 << 34):
        kept = {key: value for key, value in (headers or {}).items() if key != "Sflam-Report"}
        return super().call(method, path, body, kept, most=most)


def test_older_devices_are_served_by_a_planner(tmp_path):
    made = planner(tmp_path / "plan.json")
    rig = Rig(tmp_path, "vit", planner=made, links=dict.fromkeys(range(3), Older), **OPTIONS)
    records, _ = rig.run()
    assert records[0].measured.bits_up == (4, 4, 4)  # nothing was known
    last = records[-1].measured
    assert last.compute_s == last.away_s and last.memory == (0, 0, 0) and not rig.deaths
    assert last.predicted is not None


def test_a_server_that_died_goes_on_with_the_plan_it_had(tmp_path):
    file = tmp_path / "plan.json"
    first = planner(file, prior=RATES)
    chosen = first.decide(4, shares())
    assert len(set(chosen.bits.values())) > 1
    again = planner(file)  # which knows nothing any more
    assert again.decide(4, shares()) == chosen
    assert again.decide(4, shares((0, 2))) == chosen
    assert planner(file, prior=RATES).decide(3, shares()).planned == 3  # the run went back
    kept = planner(file, every=3, prior=RATES)
    assert kept.decide(5, shares()).planned == 3 and kept.decide(6, shares()).planned == 6
    assert planner(file, every=0).decide(99, shares()).planned == 6


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"planned": 1}',
        '{"planned": 1, "bits": {"0": [99, 1]}, "rate": {}}',
    ],
)
def test_a_plan_that_cannot_be_read_is_made_again(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    assert planner(tmp_path / "plan.json", prior=RATES).decide(1, shares()).planned == 1


def test_who_cannot_keep_the_deadline_is_left_out_or_stops_the_run():
    one = planner(prior=RATES, deadline=2.0, late="drop")
    found = one.decide(0, shares())
    assert found.dropped == (0,) and set(found.bits) == {1, 2} and one.limit == 2.0
    assert one.probes((0, 1, 2)) == {0: SHORT}  # it may be better by now
    assert one.probes((0, 1, 2)) == {}  # but is not asked all the time
    one.probed({0: LinkProbe(size=1 << 16, up_s=0.01, link_s=0.01, down_s=0.01)})
    assert one.decide(1, shares()).dropped == ()
    with pytest.raises(ServeError, match=r"round 1: the shortest round takes .*plan\.late"):
        planner(prior=RATES, deadline=2.0).decide(0, shares())
    with pytest.raises(ServeError, match=r"no device keeps plan\.deadline = 1e-06"):
        planner(prior=RATES, deadline=1e-6, late="drop").decide(0, shares())


def test_devices_that_share_a_way_are_left_out_until_the_rest_keep_the_deadline():
    slow = {device: Rates(up=1e6, compute_s=0.01) for device in range(3)}
    found = planner(prior=slow, access="airtime", deadline=2.5, late="drop", sensitivity=0.0).decide(
        0, shares()
    )
    assert 0 < len(found.dropped) < 3


def test_a_probe_alone_is_planned_with_and_not_predicted_by():
    one = planner()
    one.probed(
        {
            device: LinkProbe(size=1 << 16, up_s=2.0 / 10**device, link_s=0.1, down_s=0.0)
            for device in range(3)
        }
    )
    assert one.expected(0, shares()) is None
    bits = one.decide(0, shares()).bits
    assert bits[0][0] < bits[2][0]


CLAIMS = (
    DeviceReport(steps=1, compute_s=1e9, receive_s=1e9, fetch_s=1e9),
    DeviceReport(steps=1),
    DeviceReport(steps=1 << 29, compute_s=1e-9),
    DeviceReport(steps=1, receive_s=1e9),
)


@pytest.mark.parametrize("report", [None, *CLAIMS])
def test_what_a_device_claims_is_at_most_what_the_server_measured(report):
    away = away_of(Reading(away_s=2.0, report=report), 3)
    assert away.compute_s + away.down_s + away.fetch_s == pytest.approx(2.0)
    assert (
        min(away.compute_s, away.down_s, away.fetch_s, away.receive_s) >= 0 and away.receive_s <= away.down_s
    )


def test_who_is_probed():
    now = [0.0]
    one = planner(prior={0: RATES[0]}, probe=True)
    one.clock = lambda: now[0]
    assert one.probes((0, 1)) == {0: SHORT, 1: SIZE} and one.probes((0, 1)) == {}
    now[0] = 3.0
    assert one.probes((0, 1)) == {0: SHORT, 1: SIZE}
    assert planner(prior=RATES).probes((0, 1)) == {} == planner(plan="").probes((0, 1))


def test_a_choice_covers_those_it_dropped():
    choice = RoundChoice(planned=0, bits={1: (4, 4)}, rate={}, dropped=(0,))
    assert choice.covers((0, 1)) and not choice.covers((0, 2))
