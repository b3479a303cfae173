"""LoRA ranks of devices' own on a virtual clock: each is planned and charged for its own adapters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sflam.cost.memory import fits
from sflam.sizes import HEADER_BYTES
from tests.simulate.builders import ran

COMMON = ("learn.rounds=2", "learn.evaluate_every=0", "learn.local_epochs=1", "model.rank=4", "model.cut=2")
COMMON = (*COMMON, "network.server_kappa=1e-27", "data.partition=iid", "network.downlink_mbps=5")


@pytest.mark.parametrize(
    "asked", [("learn.method=sflam",), ("learn.method=fedlora",), ("learn.method=sfl-v2",)]
)
def test_devices_pay_for_their_own_ranks(small, tmp_path, asked):
    run = ran(small, tmp_path / "run", *COMMON, *asked, "fleet.ranks=[1, 4, 2]")
    alike = ran(small, tmp_path / "alike", *COMMON, *asked, "fleet.ranks=[4, 4, 4]")
    plain = ran(small, tmp_path / "plain", *COMMON, *asked)
    for mine, same, whole in zip(run.records, alike.records, plain.records, strict=True):
        charge, other = mine.charge, whole.charge
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        assert same.charge.predicted_j == pytest.approx(other.predicted_j, rel=1e-12)
        assert charge.predicted_j < other.predicted_j and charge.compute_j < other.compute_j
        cycles = np.array(charge.compute_s) * np.array(charge.speed)
        every = np.array(other.compute_s) * np.array(other.speed)
        assert cycles[0] < cycles[2] < cycles[1] == pytest.approx(every[1], rel=1e-9)
        whole_model = asked[0].endswith("fedlora")
        if not whole_model:
            work = run.fleet.planner.own((0, 1, 2))
            bits = [each.adapter_bits(2) for each in work]
            assert mine.adapter_bytes_up == sum(bits) // 8 + 3 * HEADER_BYTES
            assert bits[0] * 4 == bits[1] == bits[2] * 2
        else:
            sent = [each.up_bits(0) for each in run.fleet.planner.own((0, 1, 2))]
            assert mine.adapter_bytes_up == sum(sent) // 8 + 3 * HEADER_BYTES


def test_a_low_rank_fits_where_a_high_one_does_not(small, tmp_path):
    run = ran(small, tmp_path / "run", *COMMON, "fleet.ranks=[1, 4, 2]")
    planner, network = run.fleet.planner, run.fleet.network
    need = [workload.device_memory[2] for workload in planner.own((0, 1, 2))]
    assert need[0] < need[2] < need[1]
    problem = planner.problem(network, (0, 1, 2))
    limit = (need[1] + need[2]) / 2
    tight = problem.change(network=replace(network, memory=np.full(3, limit)))
    assert tight.room[:, 2].tolist() == [True, False, True]
    assert not fits(tight.network, problem.workload)[:, 2].any()
