"""A plan for tc and for a QoD API: the rates of the plan, in files that their readers take."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sflam.errors import ConfigError
from sflam.plan import NO_DEVICES, DevicePlans, Plan, Status
from sflam.planner.exporters import export

NAMES = ("pi 0", "$(reboot)")


def plan(devices=None):
    columns = dict.fromkeys(("cut", "bits", "bandwidth", "power", "clock"), 1)
    columns |= dict.fromkeys(("compute_s", "transmit_s", "compute_j", "transmit_j"), 2.0)
    given = DevicePlans(
        2, **columns, rate_up=np.array([1.5e6, 64.2e3]), payload_bits=np.array([3e6, 128.4e3])
    )
    return Plan(
        method="optimal", devices=given if devices is None else devices, latency=4.0, energy=0.0, objective=4.0,
        lower_bound=4.0, status=Status.OPTIMAL,
    )  # fmt: skip


def test_a_script_for_tc_runs_the_line_of_the_device_that_is_named(tmp_path):
    export(plan(), NAMES, tmp_path / "plan.sh")
    (tmp_path / "tc").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "tc").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"

    def run(*words):
        command = ["sh", tmp_path / "plan.sh", *words]
        return subprocess.run(command, capture_output=True, text=True, env={"PATH": path})

    assert (
        run("pi 0", "wlan0").stdout
        == "qdisc replace dev wlan0 root tbf rate 1500000bit burst 32768 latency 400ms\n"
    )
    assert "rate 64200bit" in run("$(reboot)", "wlan0").stdout
    assert run("other", "wlan0").returncode == 2


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="tc needs root, on Linux")
def test_tc_itself_takes_the_line(tmp_path):
    export(plan(), NAMES, tmp_path / "plan.sh")
    space = f"sflam-x{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", space], capture_output=True).returncode:
        pytest.skip("network namespaces are not to be had here")
    try:
        enter = ["ip", "netns", "exec", space]
        done = subprocess.run(
            [*enter, "sh", tmp_path / "plan.sh", "pi 0", "lo"], capture_output=True, text=True
        )
        if "qdisc kind is unknown" in done.stderr:
            pytest.skip("this kernel has no tbf")
        assert done.returncode == 0, done.stderr
        shown = subprocess.run(
            [*enter, "tc", "qdisc", "show", "dev", "lo"], capture_output=True, text=True
        ).stdout
        assert "tbf" in shown and "rate 1500Kbit" in shown
    finally:
        subprocess.run(["ip", "netns", "del", space], check=True)


def test_profiles_for_a_quality_on_demand_api(tmp_path):
    export(plan(), NAMES, tmp_path / "qod.json")
    found = json.loads((tmp_path / "qod.json").read_text())
    assert [item["maxUpstreamRate"] for item in found["qosProfiles"]] == [
        {"value": 1500, "unit": "kbps"}, {"value": 65, "unit": "kbps"}
    ]  # fmt: skip
    assert [item["name"] for item in found["qosProfiles"]] == ["sflam-pi-0", "sflam---reboot-"]
    assert found["sliceQosProfile"]["maxNumOfDevices"] == 2 and "power" in found["note"]


def test_what_cannot_be_exported(tmp_path):
    with pytest.raises(ConfigError, match=r"ends with '\.txt'; \.sh for tc"):
        export(plan(), NAMES, tmp_path / "plan.txt")
    with pytest.raises(ConfigError, match="gives no device anything"):
        export(plan(NO_DEVICES), (), tmp_path / "plan.sh")
    with pytest.raises(ConfigError, match="give another path"):
        export(plan(), NAMES, tmp_path / "no" / "plan.sh")
