"""Adapters summed under masks in a run: bit for bit those of the plain sum of the same whole numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from sflam import config
from sflam.errors import SecureSumError
from sflam.learn.averaging import Averaging
from sflam.learn.secure_width import most_weight, secure_width
from sflam.learn.settings import LearnSettings
from sflam.run import start as jobs
from sflam.secure.in_process import SecureSum, sum_in_process
from sflam.secure.messages import PHASES
from sflam.secure.ring import top

SECURE = ("privacy.secure_aggregation=true", "quant.adapters_scale=common", "data.minimum=4")


def started(small, folder, *keys):
    return jobs.start(config.load(None, [*small, *SECURE, *keys]), folder)


def plain(vectors, width, context):
    """Return the sum in the clear."""
    total = sum(vectors.values()) & top(width)
    return SecureSum(np.asarray(total, np.uint64), tuple(sorted(vectors)))


def fleet_of(run):
    """Return the fleet of the job itself."""
    found = run.fleet
    while not hasattr(found, "sums"):
        found = found.inner
    return found


@pytest.mark.parametrize(
    "keys",
    [
        ("fleet.devices=5", "learn.rounds=3"),
        ("learn.method=sflam-mixed", "learn.local_epochs=1", "learn.local_steps=0"),
        ("model.labels=device", "model.trainable=lora+head", "quant.bits_adapters=16"),
        ("learn.aggregation=freeze-a", "learn.server_optimizer=adam"),
        ("fleet.devices=5", "fleet.selected=3", "learn.weights=samples", "learn.optimizer=sgd"),
        ("data.sampling=global",),
    ],
    ids=lambda keys: " ".join(keys),
)
def test_adapters_are_those_of_the_plain_sum_bit_for_bit(small, tmp_path, keys):
    mine, other = (started(small, tmp_path / name, *keys) for name in ("mine", "other"))
    fleet_of(other).sums = plain
    mine_records, _ = list(mine.rounds()), list(other.rounds())
    assert all(torch.equal(mine.state[name], other.state[name]) for name in other.state)
    for record in mine_records:
        assert record.secured.devices == record.participants and record.aggregation_error is None
        assert record.secured.neighbours == len(record.participants) - 1


def test_what_moves_them_is_the_mean_of_what_devices_trained(small, tmp_path, monkeypatch):
    """Within the rounding of the grid, of the weighted mean of floats."""
    run = started(small, tmp_path / "run", "learn.rounds=1", "quant.bits_adapters=16", "fleet.devices=4")
    fleet = fleet_of(run)
    seen = {}
    collect = fleet.averaged_over

    def noted(round, devices, steps, rows):
        seen.update(
            rows={d: fleet.devices.segment.stack.named(rows[d][0]) for d in devices}, n=dict(steps.samples)
        )
        return collect(round, devices, steps, rows)

    monkeypatch.setattr(fleet, "averaged_over", noted)
    begun = {name: tensor.clone() for name, tensor in run.state.items()}
    (record,) = run.rounds()
    for name in fleet.names:
        wanted = sum(seen["n"][d] * seen["rows"][d][name].double() for d in seen["rows"]) / record.samples
        reach = (wanted - begun[name].double()).abs().max()
        assert reach > 0 and (run.state[name].double() - wanted).abs().max() < 1e-3 * reach


def test_the_server_averages_no_device_half(small, tmp_path, monkeypatch):
    """What reaches the average device by device are the server's own copies alone."""
    names, call = set(), Averaging.__call__

    def noted(averaging, start, states, *others, **named):
        names.update(name for state in states.values() for name in state)
        return call(averaging, start, states, *others, **named)

    monkeypatch.setattr(Averaging, "__call__", noted)
    run = started(small, tmp_path / "run", "learn.rounds=1")
    list(run.rounds())
    fleet = fleet_of(run)
    assert names and not names & set(fleet.names) and names | set(fleet.names) == set(run.state)


def test_it_resumes(small, tmp_path):
    whole = started(small, tmp_path / "whole", "learn.rounds=4")
    list(whole.rounds())
    run = started(small, tmp_path / "run", "learn.rounds=4")
    for record in run.rounds():
        if record.round == 1:
            break
    run = jobs.resume(tmp_path / "run")
    list(run.rounds())
    assert all(torch.equal(run.state[name], whole.state[name]) for name in whole.state)
    assert [r.secured for r in run.records] == [r.secured for r in whole.records]


@pytest.mark.parametrize("phase", PHASES)
def test_a_device_lost_in_the_middle_of_a_sum(small, tmp_path, phase):
    """Adapters are those of the plain sum of the others, on both sides of the cut, and of its numbers if they came."""
    away = [] if phase == "unmasking" else [2]
    mine, other = (
        started(small, tmp_path / name, "fleet.devices=5", "learn.rounds=1") for name in ("mine", "other")
    )

    def losing(vectors, width, context):
        return sum_in_process(vectors, width, context, 0.66, lost={phase: [2]})

    def without(vectors, width, context):
        return plain({d: v for d, v in vectors.items() if d not in away}, width, context)

    fleet_of(mine).sums, fleet_of(other).sums = losing, without
    (record,), _ = list(mine.rounds()), list(other.rounds())
    assert record.secured.devices == tuple(d for d in range(5) if d not in away)
    assert record.secured.neighbours == (3 if phase == "keys" else 4)
    assert all(torch.equal(mine.state[name], other.state[name]) for name in other.state)


def test_too_few_end_the_round_with_one_sentence(small, tmp_path):
    run = started(small, tmp_path / "run", "fleet.devices=5", "learn.rounds=1")
    fleet_of(run).sums = partial(sum_in_process, share=0.66, lost={"masked": [0, 4]})
    with pytest.raises(
        SecureSumError, match=r"^3 of 5 devices are left of a secure sum, and it takes 4; begin"
    ):
        list(run.rounds())


def test_weights_that_were_not_agreed_end_the_round(small, tmp_path):
    run = started(small, tmp_path / "run", "learn.rounds=1")

    def lying(vectors, width, context):
        found = plain(vectors, width, context)
        found.total[-1] += np.uint64(1)
        return found

    fleet_of(run).sums = lying
    with pytest.raises(
        SecureSumError, match=r"weights of a secure sum add up to 23; 22 were agreed, and at most 51$"
    ):
        list(run.rounds())


def test_the_modulus_holds_the_weights_of_every_round():
    learn = LearnSettings(local_steps=3, batch=4)
    assert most_weight(learn, 2, [5, 50, 7]) == 50 + 12
    assert most_weight(LearnSettings(local_epochs=2), 0, [5, 50, 7]) == 124
    assert [secure_width(learn, bits, 0, [10**5] * 3) for bits in (1, 8, 16)] == [3, 4, 5]
