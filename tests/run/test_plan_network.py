"""A plan from arrays is that of the network file that lists the same devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sflam


def test_arrays_are_a_network_file(tmp_path: Path) -> None:
    gains, clocks = np.array([-95.0, -100.0, -105.0]), [1.0, 1.5, 2.0]
    found = sflam.plan_network({"gain_db": gains, "clock_ghz": clocks}, {"plan": {"latency_weight": 0.7}})
    rows = "".join(
        f"[[network.device]]\ngain_db = {gain}\nclock_ghz = {clock}\n"
        for gain, clock in zip(gains, clocks, strict=True)
    )
    (tmp_path / "network.toml").write_text(f"{rows}[plan]\nlatency_weight = 0.7\n")
    from sflam.planner import cell

    same = cell.decide(sflam.load(tmp_path / "network.toml"))
    assert found.plan.to_dict()["devices"] == same.plan.to_dict()["devices"]
    assert found.plan.objective == same.plan.objective >= found.plan.lower_bound
    assert len(found.to_frame()["bandwidth"]) == 3


def test_methods_are_compared_on_request() -> None:
    found = sflam.plan_network({"distance_m": [100, 300]}, compare=True)
    assert found.others and all(
        other.objective >= found.plan.objective * (1 - 1e-9) for other in found.others
    )


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ({"gain": [1]}, "'gain'"),
        ({"gain_db": [-90], "clock_ghz": [1, 2]}, "gain_db has 1, clock_ghz has 2"),
        ({"gain_db": []}, "gain_db has 0"),
        ({}, "there is none"),
        ({"gain_db": [3.0]}, "gain_db"),
        ({"gain_db": ["x"]}, "gain_db"),
    ],
)
def test_wrong_arrays_are_refused(devices: dict, message: str) -> None:
    with pytest.raises(sflam.SflamError, match=message):
        sflam.plan_network(devices)
