"""What crosses beside whole mini-batches: gradients of halves that are averaged, and activations that are kept."""

from __future__ import annotations

import numpy as np
import pytest

from sflam import config
from sflam.planner.cell import decide
from sflam.sizes import HEADER_BYTES
from tests.simulate.builders import assert_resumes, ran

PLAIN = ("learn.rounds=3", "learn.evaluate_every=0", "learn.batch=4", "learn.method=sfl-v2")
PLAIN = (*PLAIN, "learn.server_update=batched", "network.server_kappa=1e-27", "network.downlink_mbps=5")
AVERAGED = (*PLAIN, "learn.device_half=averaged", "model.cut=2")
FROZEN = (*PLAIN, "learn.method=sflam", "learn.server_update=", "learn.device_half=frozen", "model.cut=1")


def trained_bits(run):
    """Bits of what a device half trains, as floats."""
    devices = run.fleet.halves.devices
    return 32 * devices.segment.stack.size(devices.segment.names(max(devices.cuts)))


@pytest.mark.parametrize(
    "asked",
    [
        ("learn.local_steps=2",),
        ("learn.local_epochs=2",),
        ("learn.local_steps=2", "fleet.selected=2"),
        ("data.sampling=global",),
        ("learn.local_steps=2", "model.labels=device", "model.trainable=lora+head"),
    ],
)
def test_averages_of_every_step_are_planned_as_they_are_charged(small, tmp_path, asked):
    run = ran(small, tmp_path / "run", *AVERAGED, *asked)
    one = trained_bits(run)
    for record in run.records:
        charge, learn = record.charge, run.job.learn
        held = {d: len(run.fleet.halves.parts[d]) for d in record.participants}
        if run.job.data.sampling == "global":
            steps = -(-sum(held.values()) // (learn.batch * len(held)))
        else:
            steps = learn.local_steps or max(learn.local_epochs * -(-n // learn.batch) for n in held.values())
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        work = run.fleet.planner.workload
        for place, device in enumerate(record.participants):
            rows = record.device_samples[record.participants.index(device)]
            tokens = work.up_bits(charge.bits_up[place]) * rows / learn.batch
            assert charge.payload_up[place] == pytest.approx(tokens + steps * one)
            assert charge.payload_down[place] >= steps * one
        assert record.bytes_up >= sum(charge.payload_up) // 8 + steps * HEADER_BYTES * len(held)


def test_averages_cost_seconds_and_joules(small, tmp_path):
    each, once = (
        ran(small, tmp_path / half, *AVERAGED, "learn.local_steps=2", f"learn.device_half={half}")
        for half in ("averaged", "trained")
    )
    for mine, other in zip(each.records, once.records, strict=True):
        assert mine.charge.predicted_s > other.charge.predicted_s
        assert mine.charge.transmit_j > other.charge.transmit_j
        assert mine.bytes_up > other.bytes_up and mine.bytes_down > other.bytes_down
        assert min(mine.charge.down_s) > max(other.charge.down_s)


def test_averaged_halves_resume(small, tmp_path):
    assert_resumes(small, tmp_path, (*AVERAGED, "learn.local_steps=2", "learn.state=keep"), stops=(1, 2))


def test_a_plan_of_one_round_counts_them():
    asked = ("network.devices=3", "learn.device_half=averaged", "learn.method=sfl-v2", "plan.local_steps=4")
    mine = decide(config.load(None, list(asked)))
    other = decide(config.load(None, [*asked, "learn.device_half=trained"]))
    assert mine.plan.latency > other.plan.latency and mine.plan.energy > other.plan.energy


@pytest.mark.parametrize("cache", ["server", "device"])
@pytest.mark.parametrize(
    "asked",
    [
        ("learn.local_epochs=2",),
        ("learn.local_steps=3",),
        ("learn.local_steps=3", "fleet.selected=2"),
        ("data.sampling=global", "learn.local_steps=2", "learn.method=sfl-v2", "learn.server_update=batched"),
        ("learn.local_epochs=2", "model.labels=device"),
    ],
)
def test_what_is_kept_is_neither_planned_nor_charged_again(small, tmp_path, cache, asked):
    """At every round, as each was drawn: what the server has does not cross, what is kept is not made."""
    run = ran(small, tmp_path / "run", *FROZEN, *asked, f"learn.cache={cache}")
    plain = ran(small, tmp_path / "plain", *FROZEN, *asked)
    sent = [0, 0]
    for mine, other in zip(run.records, plain.records, strict=True):
        assert mine.participants == other.participants and mine.samples == other.samples
        charge = mine.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-6)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-6)
        assert charge.compute_j <= other.charge.compute_j * (1 + 1e-3)  # sample numbers travel too
        sent[0] += sum(charge.payload_up)
        sent[1] += sum(other.charge.payload_up)
    last, whole = run.records[-1].charge, plain.records[-1].charge
    assert last.compute_j < whole.compute_j
    if cache == "server":
        assert sent[0] < sent[1]
        assert last.predicted_s < whole.predicted_s and last.predicted_j < whole.predicted_j
    else:
        assert sent[0] == sent[1]


def test_each_sample_crosses_once(small, tmp_path):
    run = ran(small, tmp_path / "run", *FROZEN, "learn.local_epochs=2", "learn.cache=server")
    work, held = run.fleet.planner.workload, [len(part) for part in run.fleet.halves.parts]
    first, *later = run.records
    per_row = work.up_bits(first.charge.bits_up[0]) / run.job.learn.batch
    assert first.charge.payload_up == pytest.approx([per_row * count for count in held])
    for record in later:
        assert not any(record.charge.payload_up)
        assert record.charge.transmit_j < first.charge.transmit_j  # headers, labels and sample numbers
        assert np.isfinite(record.charge.predicted_s)


def test_a_plan_that_stays_is_charged_for_what_is_made(small, tmp_path):
    """Rounds that follow the plan of an earlier one pay for what they make themselves."""
    run = ran(small, tmp_path / "run", *FROZEN, "learn.local_epochs=1", "learn.cache=server", "plan.every=0")
    first, second, _ = (record.charge for record in run.records)
    assert second.compute_j < 1e-6 * first.compute_j and second.charged_s < first.charged_s
