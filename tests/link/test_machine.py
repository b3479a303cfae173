"""How a machine fares, read from trees of files as Linux has them."""

from __future__ import annotations

import os

import pytest

from sflam.link import machine


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_process_holds_memory():
    assert machine.peak_memory() > 1 << 20


STATUS = "VmPeak:  900 kB\nVmSize:\t  700 kB\nVmData:\t  300 kB\n"


def test_memory_that_is_left_is_the_least_of_what_limits_leave(tmp_path, monkeypatch):
    limits = {}
    monkeypatch.setattr(machine, "_limit", limits.get)
    proc = write(
        tmp_path / "proc", {"self/status": STATUS, "meminfo": "MemTotal: 9 kB\nMemAvailable: 800 kB\n"}
    )
    bare = tmp_path / "none"
    assert machine.memory_left(bare, bare) is None
    assert machine.memory_left(proc, bare) == 800 * 1024
    limits["RLIMIT_DATA"] = 1000 * 1024
    assert machine.memory_left(proc, bare) == 700 * 1024
    limits["RLIMIT_AS"] = 1024 * 1024
    assert machine.memory_left(proc, bare) == 324 * 1024
    group = {"memory.max": "5000\n", "memory.current": "4000\n", "memory.stat": "file 9\ninactive_file 500\n"}
    assert machine.memory_left(proc, write(tmp_path / "group", group)) == 1500
    (tmp_path / "group/memory.max").write_text("max\n")
    assert machine.memory_left(proc, tmp_path / "group") == 324 * 1024
    limits["RLIMIT_DATA"] = 1
    assert machine.memory_left(proc, bare) == 0


@pytest.mark.skipif(os.name != "posix", reason="resource is Unix")
def test_limits_of_this_process():
    assert machine._limit("RLIMIT_AS") is None or machine._limit("RLIMIT_AS") > 0


@pytest.mark.skipif(os.name != "posix", reason="resource is Unix")
def test_memory_without_proc(tmp_path):
    assert machine.peak_memory(tmp_path) > 1 << 20


def test_a_bare_machine_tells_nothing(tmp_path):
    assert machine.temperature(tmp_path) is machine.throttled(tmp_path) is machine.battery(tmp_path) is None


def test_a_board(tmp_path):
    root = write(
        tmp_path,
        {
            "class/thermal/thermal_zone0/temp": "48312\n",
            "class/thermal/thermal_zone1/temp": "81700\n",
            "class/thermal/thermal_zone2/temp": "none\n",
            "class/thermal/thermal_zone3/temp": "9999999\n",
            machine.THROTTLED: "0x50005\n",
            "class/power_supply/BAT0/capacity": "63\n",
        },
    )
    assert (
        machine.temperature(root) == 81.7
        and machine.throttled(root) is True
        and machine.battery(root) == 0.63
    )
    write(root, {machine.THROTTLED: "0x50000\n"})  # it was, and is no more
    assert machine.throttled(root) is False


def test_a_cooled_processor(tmp_path):
    at = "class/thermal/cooling_device"
    root = write(tmp_path, {f"{at}0/type": "Fan", f"{at}0/cur_state": "3"})
    assert machine.throttled(root) is None
    write(root, {f"{at}1/type": "Processor\n", f"{at}1/cur_state": "0\n"})
    assert machine.throttled(root) is False
    write(root, {f"{at}1/cur_state": "2\n"})
    assert machine.throttled(root) is True
