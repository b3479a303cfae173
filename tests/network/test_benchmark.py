"""Measuring a machine: what is read, what stands in where nothing can be, and the file that names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sflam.errors import ConfigError
from sflam.network.benchmark import SIDE, highest_clock, matmul_flops, measure, usable_cores, usable_memory
from sflam.network.profiles import DEVICES, profile, to_toml
from tests.conftest import Cli, assert_refused


def test_speed_is_cores_times_clock_times_flops_per_cycle() -> None:
    found = measure(seconds=0.05, clock=2e9, power=5.0, idle=1.0, rate=4e7)
    one = found.profile
    assert one.cores == usable_cores() and one.memory == usable_memory() and found.notes == ()
    assert one.useful_flops_per_cycle * one.clock == pytest.approx(found.flops)
    assert found.flops > 1e8 and one.kappa * one.clock**3 == pytest.approx(5.0)


def test_the_best_product_counts() -> None:
    ticks = iter([0.0, 0.0, 1.0, 1.0, 1.5, 1.5, 9.0])
    assert matmul_flops(5.0, timer=lambda: next(ticks)) == pytest.approx(2 * SIDE**3 / 0.5)


def test_what_cannot_be_read_is_reported(tmp_path: Path) -> None:
    assert highest_clock(tmp_path, tmp_path / "none") is None
    (tmp_path / "cpuinfo").write_text("cpu MHz\t\t: 1000.5\ncpu MHz : 2000\n")
    assert highest_clock(tmp_path, tmp_path / "cpuinfo") == 2e9
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "cpuinfo_max_freq").write_text("1800000\n")
    assert highest_clock(tmp_path, tmp_path / "cpuinfo") == 1.8e9
    (tmp_path / "memory.max").write_text("1000\n")
    assert usable_memory(tmp_path) == 1000 and usable_memory(tmp_path / "none") > 1e8
    assert any("--power-w" in note for note in measure(seconds=0.01, clock=1e9).notes)


@pytest.mark.parametrize("name", DEVICES)
def test_a_profile_survives_its_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "one.toml"
    path.write_text(to_toml(DEVICES[name], remarks=("a board",)))
    read = profile(str(path), {})
    known, found = (
        {key: value for key, value in vars(each).items() if value is not None}
        for each in (DEVICES[name], read)
    )
    assert found == pytest.approx(known, rel=1e-15)


def test_impossible_numbers_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        measure(seconds=0, clock=-1.0, power=-1.0)
    assert len(caught.value.problems) == 3


def test_the_command_writes_a_profile_once(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    output = cli("profile", "--out", path, "--seconds", 0.05, "--clock-ghz", 2, "--rate-mbps", 30, "--json")
    assert output.code == 0
    result = json.loads(output.out[-1])
    assert result["cores"] == usable_cores() and result["out"] == str(path) and result["gflops"] > 0.1
    assert profile(str(path), {}).rate == 30e6 and profile(str(path), {}).clock == 2e9
    assert_refused(cli("profile", "--out", path), "exists already")
    assert_refused(
        cli("profile", "--out", tmp_path / "none" / "x.toml", "--seconds", 0.01), "cannot be written"
    )
    assert_refused(cli("profile", "--seconds", -1), "--seconds is -1.0")
