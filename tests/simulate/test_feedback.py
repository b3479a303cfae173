"""What training says back to the planner: chi as measured, and this machine's own step times."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from sflam import config, sizes
from sflam.allocate.registry import allocate
from sflam.learn.selection import chances
from sflam.network.scenario import build
from sflam.records import history
from sflam.records.charge import Charge
from sflam.records.codec import from_json_values, to_json_values
from sflam.report.terminal.loop_lines import both_times, loop_lines
from sflam.run import start as jobs
from sflam.simulate.sensitivity import gradient_noise, slowdown
from sflam.simulate.step_times import StepCost, step_costs
from tests.conftest import assert_refused, sets
from tests.simulate.builders import SIMULATED, ran, started, timeless

CHOSEN = ('plan.optimize=["clock", "bits"]', "plan.measure_batches=4", "learn.evaluate_every=0")
COST = StepCost(cut=1, device_s=0.02, server_s=0.003, extra_up=5000, extra_down=4900, extra_adapter=4736)


def test_the_planner_is_reported_what_was_measured(small, tmp_path):
    run = ran(small, tmp_path / "run", *CHOSEN, "plan.measure_every=1", "learn.rounds=1")
    [record] = run.records
    twin = started(small, tmp_path / "twin", *CHOSEN)
    fleet, devices = twin.assembly.fleet, record.participants
    noise = gradient_noise(fleet, twin.state, devices, round=0, batches=4)
    found = slowdown([noise[device] for device in devices], [len(fleet.parts[device]) for device in devices])
    charge = record.charge
    assert charge.sensitivity == tuple(found.chi) and charge.sensitivity_error == tuple(found.half)
    problem = twin.fleet.planner.problem(build(run.fleet.job.network, 0, 0), devices)
    planned = allocate(problem.change(sensitivity=np.maximum(found.chi, 0.0)), "bits")
    assert charge.bits_up == tuple(planned.devices.bits) and charge.objective == planned.objective
    assert 0 < record.measuring_s < record.seconds and 0 < record.planning_s < record.seconds


@pytest.mark.parametrize("practice", [(), ("learn.local_steps=2", "learn.weights=samples")])
def test_chi_counts_devices_as_their_average_does(small, tmp_path, practice):
    """Devices with more samples are drawn more often, and then do not count for them a second time."""
    asked = (*CHOSEN, "fleet.devices=6", "fleet.selected=3", "fleet.policy=samples", "plan.measure_every=9")
    asked = (*asked, "data.partition=dirichlet", "data.alpha=0.5", "learn.rounds=3", *practice)
    run = ran(small, tmp_path / "run", *asked)
    held = {device: len(part) for device, part in enumerate(run.fleet.halves.parts)}
    chance = chances(held, 3)
    assert max(chance.values()) < 1.0 or len(set(chance.values())) > 1
    for record in run.records:
        devices = record.participants
        noise = [run.fleet.planner.feedback.known[device] for device in devices]
        weight = [held[device] / chance[device] for device in devices]
        assert record.charge.sensitivity == pytest.approx(slowdown(noise, weight).chi, rel=1e-12)
        plain = slowdown(noise, [held[device] for device in devices]).chi
        assert max(held[d] for d in devices) > min(held[d] for d in devices)
        assert record.charge.sensitivity != pytest.approx(plain, rel=1e-6)


def test_no_width_in_common_beats_the_planned_ones_in_any_round(small, tmp_path):
    run = ran(small, tmp_path / "run", *CHOSEN, "plan.measure_every=2", "learn.rounds=4")
    for record in run.records:
        network = build(run.fleet.job.network, run.job.seed, record.round)
        chi = np.maximum(record.charge.sensitivity, 0.0)
        problem = run.fleet.planner.problem(network, record.participants).change(sensitivity=chi)
        for rival in ("fixed-bits", "bcd-bits"):
            assert record.charge.objective <= allocate(problem, rival).objective * (1 + 1e-9), rival


def test_no_device_has_fewer_bits_than_its_gradient_s_bias_allows(small, tmp_path):
    """Widths from 1 on: with the floor every plan keeps it, without it fewer bits are planned."""
    asked = (*CHOSEN, "plan.measure_every=1", "plan.bits_least=1", "learn.rounds=3")
    run = ran(small, tmp_path / "run", *asked)
    for record in run.records:
        charge = record.charge
        assert all(given >= least for given, least in zip(charge.bits_up, charge.bits_floor, strict=True))
        problem = run.fleet.planner.problem(
            build(run.fleet.job.network, run.job.seed, record.round), record.participants
        )
        assert problem.widths[0] == 1
    assert max(max(record.charge.bits_floor) for record in run.records) > 1
    lines = "\n".join(loop_lines(run.records))
    assert "for the bias of gradients" in lines
    free = ran(small, tmp_path / "free", *asked, "plan.bias_share=0")
    assert all(record.charge.bits_floor == () for record in free.records)
    capped = ran(small, tmp_path / "capped", *asked, "plan.bits_most=1")  # what is asked for is harder
    assert all(set(record.charge.bits_up) == {1} for record in capped.records)


@pytest.mark.parametrize("method", ["optimal", "bcd"])
def test_bits_and_subchannels_are_chosen_and_charged_together(small, tmp_path, method):
    asked = (*CHOSEN, "plan.measure_every=2", "plan.subchannels=9", f"plan.method={method}", "learn.rounds=3")
    run = ran(small, tmp_path / "run", *asked)
    for record in run.records:
        charge = record.charge
        assert charge.method == {"optimal": "subchannel-bits", "bcd": "bcd-bits"}[method]
        unit = run.fleet.job.network.bandwidth_mhz * 1e6 / 9
        counts = np.array(charge.bandwidth) / unit
        assert counts == pytest.approx(np.rint(counts), rel=1e-9) and round(counts.sum()) == 9
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)


def test_measuring_changes_nothing_but_the_plan(small, tmp_path):
    """Bits are given here, so that chi has no say: the same training, bit for bit, and the same time and energy."""
    common = ("learn.rounds=3", "learn.state=keep", "plan.measure_batches=3")
    plain = ran(small, tmp_path / "plain", *common)
    watched = ran(small, tmp_path / "watched", *common, "plan.measure_every=1")
    assert all((plain.state[name] == watched.state[name]).all() for name in plain.state)
    for a, b in zip(timeless(plain.records), timeless(watched.records), strict=True):
        assert len(b.charge.sensitivity) == len(b.charge.sensitivity_error) == 3
        silent = replace(b.charge, sensitivity=(), sensitivity_error=(), bits_floor=(), gap=None)
        assert replace(silent, objective=a.charge.objective) == replace(a.charge, gap=None)
        assert replace(b, charge=None) == replace(a, charge=None)


def test_a_device_is_measured_when_first_chosen_and_when_that_is_old(small, tmp_path):
    more = ("fleet.devices=5", "fleet.selected=2", "learn.rounds=6", "plan.measure_every=3")
    run = started(small, tmp_path / "run", *CHOSEN, *more)
    last: dict[int, int] = {}
    for record in run.rounds():
        for device in record.participants:
            if record.round - last.get(device, -9) >= 3:
                last[device] = record.round
        assert {device: one.round for device, one in run.fleet.planner.feedback.known.items()} == last
    assert len(set(last.values())) > 1


@pytest.mark.parametrize("settings", [(*CHOSEN, "plan.measure_every=2"), ("network.calibrate=true",)])
def test_what_was_measured_survives_a_crash(small, tmp_path, settings, monkeypatch):
    turn = iter(range(1, 9))
    monkeypatch.setattr(
        "sflam.simulate.fleet.step_costs", lambda fleet: (replace(COST, device_s=0.02 * next(turn)),)
    )
    common = ("learn.rounds=4", *settings)
    whole = ran(small, tmp_path / "whole", *common)
    turn = iter(range(1, 9))
    run = started(small, tmp_path / "stopped", *common)
    for record in run.rounds():
        if record.round == 1:
            break
    run = jobs.resume(tmp_path / "stopped")
    list(run.rounds())
    assert timeless(run.records) == timeless(whole.records)
    assert history.read(tmp_path / "stopped" / "history.jsonl")[1] == run.records


def test_methods_that_quantize_nothing_are_not_measured(small, tmp_path):
    run = ran(small, tmp_path / "run", "learn.method=sfl-v1", "plan.measure_every=1")
    assert run.records[0].charge.sensitivity == ()


def test_measured_steps_and_bodies_stand_beside_modelled_ones(small, tmp_path, monkeypatch):
    """Equal shares and full speed, so that the plan is the same: T by hand, and what it would have been as modelled."""
    same = ("plan.method=equal", "plan.optimize=[]", "network.downlink_mbps=30", "learn.rounds=2")
    monkeypatch.setattr("sflam.simulate.fleet.step_costs", lambda fleet: (COST,))
    run = ran(small, tmp_path / "run", *same, "network.calibrate=true", "model.cut=1")
    modelled = ran(small, tmp_path / "modelled", *same, "model.cut=1")
    for record, plain in zip(run.records, modelled.records, strict=True):
        charge, found = record.charge, record.charge.calibration
        assert found.modelled_s == pytest.approx(plain.charge.charged_s, rel=1e-12)
        assert found.modelled_j == pytest.approx(plain.charge.charged_j, rel=1e-12)
        assert plain.charge.calibration is None
        assert (found.device_s, found.server_s) == pytest.approx((0.02, 0.003))
        assert found.up_bits == 8 * record.bytes_up and found.modelled_up_bits == sum(charge.payload_up)
        network = build(run.fleet.job.network, 0, record.round)
        batches = np.array([len(part) for part in run.assembly.parts]) / 4
        computing = 0.02 * batches * network.max_clock.max() / network.max_clock
        turn = run.fleet.in_force[0].plan.devices
        rate = np.log2(1 + turn.power * network.gain[0] / (network.noise * turn.bandwidth)) * turn.bandwidth
        bodies = np.ceil(batches) * 8 * sizes.HEADER_BYTES
        up = np.array(charge.payload_up) + bodies + 32 * batches * 4
        down = np.array(charge.payload_down) + bodies
        by_hand = 0.003 * batches.sum() + computing + up / rate + down / 30e6
        assert charge.finish == pytest.approx(by_hand, rel=1e-9)
        assert charge.predicted_s == pytest.approx(
            charge.charged_s, rel=0.2
        )  # ragged batches have whole headers
        assert from_json_values(Charge, json.loads(json.dumps(to_json_values(charge)))) == charge
    took, as_modelled = sum(r.charge.charged_s for r in run.records), both_times(run.records)
    assert as_modelled == (
        pytest.approx(sum(r.charge.charged_s for r in modelled.records)),
        pytest.approx(took),
    )
    result = run.finish()
    assert result.modelled_s == as_modelled[0] and result.calibrated_s == as_modelled[1]
    assert "virtual time depends on this machine" in "\n".join(loop_lines(run.records))


def test_step_costs_are_those_of_the_runs_own_bodies(small, tmp_path):
    plain, timed = (
        started(small, tmp_path / name, "learn.rounds=2", "fleet.cuts=[0, 2, 1]")
        for name in ("plain", "timed")
    )
    costs = step_costs(timed.assembly.fleet, turns=2)
    assert [cost.cut for cost in costs] == [0, 1, 2]
    for cost in costs:
        assert cost.device_s > 0 and cost.server_s > 0
        assert cost.extra_up == 8 * sizes.HEADER_BYTES + 32 * 4  # four labels
        assert cost.extra_down == 8 * sizes.HEADER_BYTES
        assert cost.extra_adapter == (8 * sizes.HEADER_BYTES if cost.cut else 0)
    list(plain.rounds()), list(timed.rounds())
    assert all((plain.state[name] == timed.state[name]).all() for name in plain.state)


def test_the_end_table_says_what_was_measured(small, tmp_path, cli):
    more = (*CHOSEN, "learn.local_steps=0", "plan.measure_every=1", "network.battery_j=1")
    output = cli("simulate", *sets(*small, *more), "--out", tmp_path / "run")
    text = " ".join(" ".join(output.out).split())
    assert output.code == 0
    assert "chi of all devices, measured:" in text and "(95 %); bits up" in text
    assert "batteries hold" in text and "planning took" in text and ", measuring" in text
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert len(result["sensitivity"]) == len(result["sensitivity_error"]) == 3
    assert 0 < result["planning_share"] < 1 and result["modelled_s"] is None


def test_what_is_unusual_is_reported_first(small, tmp_path):
    notes = started(small, tmp_path / "a", CHOSEN[0]).notes
    assert any("fewest bits win; measure chi with plan.measure_every" in note for note in notes)
    notes = started(small, tmp_path / "b", "network.calibrate=true").notes
    assert any("virtual time depends on how fast" in note for note in notes)
    quiet = jobs.start(config.load(None, small), tmp_path / "c")
    assert quiet.notes == quiet.assembly.notes


def test_the_lines_under_a_table():
    assert list(loop_lines([])) == []
    assert both_times([]) == (None, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("plan.measure_every=1", "quant.scheme=identity"), "identity adds no noise to measure"),
        (("plan.measure_every=-1",), "plan.measure_every is -1"),
        (("plan.measure_batches=2",), "plan.measure_batches is 2; .* at least 3"),
        (
            ("network.calibrate=true", "learn.method=fedlora"),
            "calibration measures both halves of a cut model",
        ),
    ],
)
def test_bad_input_is_one_line(cli, small, tmp_path, settings, message):
    assert_refused(cli("train", *sets(*small, *SIMULATED, *settings), "--out", tmp_path / "run"), message)
