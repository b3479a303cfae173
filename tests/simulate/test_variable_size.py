"""Messages of variable size: plans count on the bound, what was sent is charged, and that is never more."""

from __future__ import annotations

from pathlib import Path

import pytest

from sflam.workload import Workload
from tests.simulate.builders import assert_resumes, ran

TOPK = (
    "quant.scheme=topk",
    "quant.bits_up=8",
    "quant.bits_down=8",
    "network.downlink_mbps=40",
    "model.cut=2",
)


@pytest.mark.parametrize("method", ["sflam", "sflam-mixed"])
def test_what_is_charged_is_within_what_was_planned(
    small: tuple[str, ...], tmp_path: Path, method: str
) -> None:
    run = ran(small, tmp_path / "run", *TOPK, f"learn.method={method}", "learn.evaluate_every=0")
    workload: Workload = run.fleet.planner.workload  # type: ignore[attr-defined]
    assert workload.scheme == "topk"
    less = 0
    for record in run.records:
        charge = record.charge
        assert charge is not None
        steps = max(-(-len(part) // run.job.learn.batch) for part in run.assembly.parts)
        for up, down, bits_up, bits_down in zip(
            charge.payload_up, charge.payload_down, charge.bits_up, charge.bits_down, strict=True
        ):
            assert 0 < up <= steps * workload.up_bits(bits_up)
            assert 0 < down <= steps * workload.down_bits(2, bits_down)
            less += up < steps * workload.up_bits(bits_up)
        assert charge.charged_s <= charge.predicted_s * (1 + 1e-9)
        assert charge.charged_j <= charge.predicted_j * (1 + 1e-9)
    assert less


def test_a_simulated_run_with_memory_resumes(small: tuple[str, ...], tmp_path: Path) -> None:
    assert_resumes(small, tmp_path, (*TOPK, "learn.rounds=3", "learn.evaluate_every=0"), stops=(1, 2))
