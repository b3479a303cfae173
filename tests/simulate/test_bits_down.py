"""Plans that choose bits down: measured, trained with, charged, written to plan.json and followed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sflam import config
from sflam.cost.convergence import quantization_noise
from sflam.errors import ConfigError
from sflam.planner.cell import decide
from sflam.run import start as jobs
from sflam.run.follow_plan import follow
from sflam.simulate.gradients import Probe
from sflam.simulate.sensitivity import gradient_noise, slowdown
from tests.simulate.builders import assert_resumes, ran, started

BOTH = 'plan.optimize=["clock","bits","bits_down"]'
CELL = ("network.downlink_mbps=2", "network.receive_power_w=0.3", "learn.rounds=3", "learn.evaluate_every=0")
CELL = (*CELL, "learn.local_steps=2", "model.cut=2", "plan.bias_share=0")
SET = (*CELL, BOTH, "plan.sensitivity=1", "plan.sensitivity_down=0.3")
MEASURED = (*CELL, BOTH, "plan.measure_every=2", "plan.measure_batches=3")


def test_rounds_train_with_the_planned_widths_and_are_charged_for_them(small, tmp_path):
    run = ran(small, tmp_path / "run", *SET)
    seen = set()
    for record in run.records:
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert charge.sensitivity_down == (0.3,) * len(record.participants)
        work, steps = run.fleet.planner.workload, run.job.learn.local_steps
        for place, bits in enumerate(charge.bits_down):
            seen.add(bits)
            device = record.participants[place]
            rows = record.device_samples[place] / run.job.learn.batch
            assert charge.payload_down[place] == pytest.approx(work.down_bits(2, bits) * rows)
            assert run.fleet.halves.exchange.bits[device][1] in range(2, 17)
            assert steps == 2
    assert len(seen) > 1 or seen != {8}
    plain = ran(small, tmp_path / "plain", *CELL, 'plan.optimize=["clock","bits"]', "plan.sensitivity=1")
    assert all(bits == 8 for record in plain.records for bits in record.charge.bits_down)
    chosen, held = (sum(one.charge.objective for one in each.records) for each in (run, plain))
    # What bits that stay cost as this problem counts them: the noise of 8 bits down, too.
    assert chosen < held * (1 + 0.3 * 5 * float(quantization_noise(8)))


def test_without_a_way_down_that_takes_time_bits_stay(small, tmp_path):
    asked = [*(each for each in SET if "downlink" not in each and "receive" not in each)]
    run = ran(small, tmp_path / "run", *asked, "network.downlink_mbps=0")
    assert all(bits == 8 for record in run.records for bits in record.charge.bits_down)
    assert all(record.charge.sensitivity_down == () for record in run.records)
    notes = decide(config.load(None, [BOTH, "plan.sensitivity=1"])).notes
    assert any("network.downlink_mbps is 0" in note and "8 down" in note for note in notes)


@pytest.mark.slow
def test_resumes(small, tmp_path):
    assert_resumes(small, tmp_path, MEASURED, stops=(1, 2))


def test_chi_of_the_way_down_is_what_rounding_adds_to_the_variance(small, tmp_path):
    """The mean of a gradient over roundings is the gradient, and chi' the mean of what is added."""
    run = started(small, tmp_path / "run", *MEASURED)
    fleet, devices = run.fleet.halves, (0, 1, 2)
    probe = Probe(fleet, run.state, devices, 0)
    drawn = probe.draw(0)
    plain, total, square, count = probe.gradients(drawn, 0), 0.0, 0.0, 200
    for noise in range(count):
        wrong = probe.gradients(drawn, 0, noise=noise, down=3)[1].double() - plain[1].double()
        total, square = total + wrong, square + float(wrong.square().sum())
    mean = total / count
    assert float(mean.square().sum()) < 3 * square / count / count  # nothing but noise is left
    exact = square / count / float(quantization_noise(3))
    found = gradient_noise(fleet, run.state, devices, round=0, batches=8, bits=3, down=True)
    assert found[1].added_down == pytest.approx(exact, rel=0.5)
    assert 0 < found[1].added_down_error < found[1].added_down
    without = gradient_noise(fleet, run.state, devices, round=0, batches=8, bits=3)
    assert all(without[d].added_down == 0 and without[d].added == found[d].added for d in devices)
    chi = slowdown([found[d] for d in devices], [30, 20, 10])
    rho = np.array([30, 20, 10]) / 60
    whole = float(rho**2 @ [found[d].plain for d in devices])
    assert chi.down == pytest.approx(rho**2 * [found[d].added_down for d in devices] / whole)


@pytest.mark.slow
def test_measured_rounds_record_it(small, tmp_path):
    run = ran(small, tmp_path / "run", *MEASURED)
    assert all(min(record.charge.sensitivity_down) > 0 for record in run.records)


def test_nothing_comes_back_to_a_device_without_blocks(small, tmp_path):
    run = started(small, tmp_path / "run", *MEASURED, "model.cut=0")
    found = gradient_noise(run.fleet.halves, run.state, (0, 1), round=0, batches=3, down=True)
    assert found[0].added_down == found[1].added_down == 0


def planned(*more):
    asked = (
        "network.devices=3",
        "network.downlink_mbps=2",
        BOTH,
        "plan.sensitivity=1",
        "plan.sensitivity_down=0.3",
    )
    return [*asked, *more]


def test_a_plan_of_one_round_is_the_allocator_s_and_is_written_and_followed(tmp_path):
    job = config.load(None, planned("fleet.devices=3"))
    decision = decide(job)
    plan = decision.plan
    assert plan.gap < 1e-2 and plan.method == "bits"
    down = plan.devices.bits_down.tolist()
    assert down != [8, 8, 8]
    for width in (4, 8, 16):
        held = decide(
            config.load(
                None, planned("fleet.devices=3", f"quant.bits_down={width}", 'plan.optimize=["clock","bits"]')
            )
        ).plan
        assert plan.objective < held.objective
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    followed, _ = follow(config.load(None, ["fleet.devices=3", f"fleet.plan={tmp_path / 'plan.json'}"]))
    assert [one.bits_down for one in followed.placements] == down
    assert [one.bits_up for one in followed.placements] == plan.devices.bits.tolist()
    computed, _ = follow(config.load(None, planned("fleet.devices=3", "fleet.plan=computed")))
    assert computed.placements == followed.placements  # as a server hands them to its devices
    simulate = ["fleet.devices=3", "network.simulate=true", f"fleet.plan={tmp_path / 'plan.json'}"]
    with pytest.raises(ConfigError, match="bits_down"):
        follow(config.load(None, [*simulate, 'plan.optimize=["clock","bits"]']))
    follow(config.load(None, [*simulate, BOTH, "network.downlink_mbps=2"]))


def test_old_plans_do_not_change(small, tmp_path):
    """chi' of 0 and bits that stay give the plans that there were, to the bit."""
    job = config.load(None, ["network.devices=6", "network.downlink_mbps=2", 'plan.optimize=["clock","bits"]',
                             "plan.sensitivity=2"])  # fmt: skip
    first, second = decide(job).plan, decide(job).plan
    assert first.objective == second.objective and set(first.devices.bits_down.tolist()) == {8}


def test_trained_is_what_the_widths_are(small, tmp_path):
    """The adapters are those of a plain run with the plan's bits, where every round has the same."""
    run = ran(small, tmp_path / "run", *SET, "plan.every=0", "learn.rounds=2")
    charge = run.records[0].charge
    bits = (f"fleet.bits_up={list(charge.bits_up)}", f"fleet.bits_down={list(charge.bits_down)}")
    same = (*CELL[2:], "learn.rounds=2", "quant.bits_adapters=32", *bits)  # adapters as `ran` sends them
    plain = jobs.start(config.load(None, [*small, *same]), tmp_path / "plain")
    list(plain.rounds())
    assert all(torch.equal(run.state[name], plain.state[name]) for name in run.state)
