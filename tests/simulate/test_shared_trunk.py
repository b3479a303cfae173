"""One trunk for all devices on a virtual clock: shares as they are, chi device by device, and resumed bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.allocate.cell.shares import Shares
from sflam.allocate.referee import score
from sflam.data.sampling import round_shares
from sflam.model.adapters import state_of
from sflam.network.scenario import build
from sflam.simulate.gradients import Probe
from sflam.simulate.work import device_flop
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of
from tests.simulate.builders import assert_resumes, ran

MIXED = ("learn.method=sflam-mixed", "learn.rounds=3", "learn.evaluate_every=0", "learn.batch=4")
GLOBAL = (*MIXED, "data.sampling=global")


def samples_of(run):
    return {device: len(part) for device, part in enumerate(run.fleet.halves.parts)}


@pytest.mark.parametrize("selected", [0, 2])
def test_whole_passes_are_planned_as_they_are_charged(small, tmp_path, selected):
    """Local epochs of global sampling: every row comes as often as it is planned, in whatever steps."""
    run = ran(small, tmp_path / "run", *GLOBAL, f"fleet.selected={selected}", "network.server_kappa=1e-27")
    for record in run.records:
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        held = samples_of(run)
        assert record.device_samples == tuple(held[device] for device in record.participants)


def test_shares_are_planned_as_they_are_drawn(small, tmp_path):
    run = ran(small, tmp_path / "run", *GLOBAL, "learn.local_steps=2", "network.server_kappa=1e-27")
    for record in run.records:
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)


def test_published_plans_expect_shares_and_charge_them_as_they_fall(small, tmp_path):
    asked = (*GLOBAL, "learn.local_steps=2", "network.server_kappa=1e-27", "plan.counts=activations")
    run = ran(small, tmp_path / "run", *asked)
    held, batch = samples_of(run), run.job.learn.batch
    apart = 0.0
    for record in run.records:
        devices, charge = record.participants, record.charge
        rows = round_shares(held, batch * len(held), seed=run.job.seed, round=record.round, steps=2)
        assert record.device_samples == tuple(int(rows[device].sum()) for device in devices)
        network = build(run.fleet.job.network, run.job.seed, record.round)
        expected = run.fleet.planner.problem(network, devices)
        share = np.array([held[device] for device in devices]) / sum(held.values())
        assert expected.each("local_steps") == pytest.approx(2 * len(held) * share)
        real = np.array(record.device_samples) / batch
        given = Shares(
            bandwidth=np.array(charge.bandwidth), power=np.array(charge.power), clock=np.array(charge.speed)
        )
        for batches, seconds, joules in (
            (None, charge.predicted_s, charge.predicted_j),
            (np.maximum(real, 1e-9), charge.charged_s, charge.charged_j),
        ):
            run.fleet.planner.waited = run.fleet._drawn(record.round)[2]
            problem = run.fleet.planner.problem(network, devices, batches=batches)
            found = score(problem.change(bits=np.array(charge.bits_up)), given)
            assert seconds == pytest.approx(found.latency, rel=1e-9)
            assert joules == pytest.approx(found.energy, rel=1e-9)
        each = run.fleet.planner.workload
        per_row = each.up_bits(charge.bits_up[0]) / batch
        assert charge.payload_up[0] == pytest.approx(per_row * record.device_samples[0])
        apart = max(apart, abs(charge.charged_j / charge.predicted_j - 1))
    assert apart > 1e-3, "no share differed from its expectation: the test shows nothing"


def test_the_network_changes_nothing_about_training(small, tmp_path):
    asked = (*GLOBAL, "learn.local_steps=2", "fleet.selected=2", "learn.state=keep")
    one = ran(small, tmp_path / "one", *asked)
    two = ran(small, tmp_path / "two", *asked, "network.simulate=false")
    assert [record.participants for record in one.records] == [record.participants for record in two.records]
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)


def test_chi_is_measured_device_by_device():
    """A device's gradients at one copy that all share are those at a copy of its own."""
    found = []
    for method in ("sflam", "sflam-mixed"):
        backbone, model, examples = adapted("bert")
        learn = replace(LEARN, method=method, canonical=True)
        fleet = local_fleet(backbone, model, examples, parts_of([7, 12, 5]), cuts=(1, 0, 2), learn=learn)
        fleet.exchange = replace(fleet.exchange, scheme="uniform")
        probe = Probe(fleet, state_of(model), (0, 1, 2), 0)
        drawn = probe.draw(0)
        found.append([probe.gradients(drawn, 0, bits) for bits in (0, 4)])
    for own, shared in zip(*found, strict=True):
        for device in (0, 1, 2):
            assert own[device].norm() > 0
            torch.testing.assert_close(shared[device], own[device], rtol=1e-9, atol=1e-12)


def test_chi_is_measured_on_the_way(small, tmp_path):
    run = ran(small, tmp_path / "run", *MIXED, "plan.measure_every=2", 'plan.optimize=["clock","bits"]')
    plain = ran(small, tmp_path / "plain", *MIXED, 'plan.optimize=["clock","bits"]', "plan.sensitivity=0.5")
    for record in run.records:
        assert record.charge.sensitivity_error and np.isfinite(record.charge.sensitivity).all()
    assert plain.records[0].charge.sensitivity != run.records[0].charge.sensitivity


@pytest.mark.parametrize(
    "settings",
    [
        (*MIXED, "learn.state=keep", "plan.measure_every=2"),
        (*GLOBAL, "learn.state=keep", "learn.local_steps=2", "fleet.selected=2", "network.simulate=false"),
        (
            *MIXED,
            "learn.state=keep",
            "learn.local_steps=2",
            "fleet.selected=2",
            "fleet.policy=samples",
            "data.sampling=local",
        ),
    ],
)
def test_a_run_that_is_resumed_is_the_run_that_was_never_stopped(small, tmp_path, settings):
    assert_resumes(small, tmp_path, settings, stops=(1, 2))


def test_a_device_s_computing_is_that_of_its_shares(small, tmp_path):
    run = ran(small, tmp_path / "run", *GLOBAL, "learn.local_steps=2")
    whole = ran(small, tmp_path / "whole", *MIXED, "learn.local_steps=2")
    parts, train = run.fleet.halves.parts, run.assembly.splits.train
    found, other = (device_flop(one.job, parts, train, one.records) for one in (run, whole))
    rows = [sum(record.samples for record in one.records) for one in (run, whole)]
    assert found / other == pytest.approx(rows[0] / rows[1], rel=1e-9)
