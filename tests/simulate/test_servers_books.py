"""Among several servers too, all that crosses is planned as it is charged: bodies, gradients, adapters, averaging."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.network.channel import rate
from sflam.network.scenario import build
from sflam.plan import ALL_LOCAL
from sflam.run.replay import replay
from sflam.sizes import HEADER_BYTES
from tests.simulate.builders import SQUARE, assert_resumes, ran

SHORT = (*SQUARE, "learn.rounds=2", "learn.evaluate_every=0")
BOTH = ("network.downlink_mbps=5", "network.receive_power_w=0.4", "network.backhaul_mbps=2")
PLACED = ("fleet.cuts=[1,1,2,1,1]", "fleet.servers=[0,1,-1,1,0]")


@pytest.mark.parametrize(
    "asked",
    [
        (),
        BOTH,
        PLACED,
        (*BOTH, *PLACED, "quant.bits_up=3", "quant.bits_down=5", "quant.bits_adapters=8"),
        (*BOTH, "learn.method=sfl-v2"),
        (*BOTH, "model.labels=device", "model.trainable=lora+head"),
        (*BOTH, "learn.local_epochs=1", "fleet.selected=3", "plan.method=equal"),
        (*BOTH, "plan.method=all-local"),
        (*BOTH, "quant.scheme=rotated", 'plan.optimize=["clock", "tuned"]', "plan.fit=[2.0, 1.0, 0.9]"),
    ],
)
def test_a_round_is_charged_as_it_is_planned(small, tmp_path, asked):
    run = ran(small, tmp_path / "run", *SHORT, *asked)
    for record in run.records:
        charge = record.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert charge.seconds == pytest.approx(charge.charged_s, rel=1e-12)
        assert sum(charge.device_j) == pytest.approx(charge.charged_j - charge.server_j, rel=1e-9)


def test_seconds_are_those_of_the_bodies_that_travelled(small, tmp_path):
    """By hand, from the bytes of the record and the channel alone."""
    run = ran(small, tmp_path / "run", *SHORT, *BOTH, *PLACED, "learn.rounds=1")
    (record,) = run.records
    charge, network = record.charge, build(run.fleet.job.network, run.job.seed, 0)
    best = int(network.gain[:, 2].argmax())
    homes = [0, 1, best, 1, 0]
    work, trained = run.fleet.planner.workload, sum(tensor.numel() for tensor in run.state.values())
    up, handed, fetches = 0.0, [0.0, 0.0], []
    for place, (home, where) in enumerate(zip(homes, charge.servers, strict=True)):
        gain = network.gain[home, place]
        if where != ALL_LOCAL:
            ahead = rate(charge.bandwidth[place], charge.power[place], gain, network.noise)
            up += charge.up_s[place] * ahead / 8
        values = trained if where == ALL_LOCAL else work.adapter_values[charge.cuts[place]]
        bits = 32 * values + 8 * HEADER_BYTES
        full = rate(network.bandwidth[home], network.max_power[place], gain, network.noise)
        fetches.append(fetched := bits / 5e6)
        assert charge.adapter_s[place] == pytest.approx(bits / full + fetched, rel=1e-9)
        handed[home] += charge.adapter_s[place] - fetched
    assert up == pytest.approx(record.bytes_up, rel=1e-9)
    down = (np.array(charge.down_s) * 5e6 / 8).sum()
    assert down == pytest.approx(record.bytes_down, rel=1e-9)
    ends = np.array(charge.finish) + fetches
    assert charge.seconds == pytest.approx(ends.max() + max(handed) + 2 * 32 * trained / 2e6, rel=1e-9)


def test_a_replay_charges_the_same(small, tmp_path):
    run = ran(small, tmp_path / "run", *SHORT, *BOTH, *PLACED)
    run.finish()
    again = replay(tmp_path / "run", [])
    assert [each.charge for each in again] == [each.charge for each in run.records]


def test_it_resumes(small, tmp_path):
    assert_resumes(small, tmp_path, (*SHORT, *BOTH, "learn.rounds=3"), stops=(1, 2))
