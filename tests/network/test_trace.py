"""Measured channels are read whole or refused with one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from sflam.config import load
from sflam.errors import ConfigError
from sflam.network import trace
from sflam.network.channel import rate
from sflam.network.scenario import build

GOOD = "device,time,gain_db\nb,0,-90\na,0,-100\na,1,-101\nb,1,-91\na,2,-102\nb,2,-92\n"


def write(folder, text, name="trace.csv"):
    (folder / name).write_text(text)
    return folder / name


def network_of(path, *more, round_number=0):
    job = load(None, [f"network.trace={path}", *(f"network.{item}" for item in more)])
    return build(job.network, 0, round_number)


def test_rounds_are_times_and_devices_are_in_order(tmp_path):
    found = trace.read(write(tmp_path, GOOD))
    assert found.names == ("b", "a") and found.times.tolist() == [0, 1, 2]
    assert 10 * np.log10(found.values) == pytest.approx(np.array([[-90, -100], [-91, -101], [-92, -102]]))
    assert np.array_equal(found.at(4), found.at(1))


def test_a_trace_makes_the_devices_and_their_gains(tmp_path):
    path = write(tmp_path, GOOD)
    network = network_of(path, round_number=1)
    assert network.names == ("b", "a") and 10 * np.log10(network.gain[0]) == pytest.approx([-91, -101])
    tables = "device=[{name = 'a', clock_ghz = 1}, {name = 'b', clock_ghz = 2}]"
    network = network_of(path, tables, round_number=1)
    assert network.names == ("a", "b") and 10 * np.log10(network.gain[0]) == pytest.approx([-101, -91])
    assert network.max_clock == pytest.approx([1e9, 2e9])


def test_rates_become_gains(tmp_path):
    network = network_of(write(tmp_path, "device,time,rate_mbps\na,0,10\nb,0,30\n"), "max_power_dbm=10")
    found = rate(network.bandwidth, network.max_power, network.gain[0], network.noise)
    assert found == pytest.approx([10e6, 30e6])


def test_parquet_is_the_same(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "trace.parquet"
    columns = {"device": ["a", "b", "a", "b"], "time": [0, 0, 1, 1], "gain": [1e-9, 2e-9, 3e-9, 4e-9]}
    parquet.write_table(arrow.table(columns), path)
    assert trace.read(path).values == pytest.approx(np.array([[1e-9, 2e-9], [3e-9, 4e-9]]))
    path.write_bytes(b"PAR1 no")
    with pytest.raises(ConfigError, match="cannot be read"):
        trace.read(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("device,time,gain\na,0,nan\n", "row 1: gain is 'nan'; it must be a finite number"),
        ("device,time,gain\na,0,\n", "row 1: gain is ''"),
        ("device,time,gain\na,0,0\na,1,0\n", "gain of device 'a' must be positive at some time"),
        ("device,time,gain\na,2026-03-01T12:00:00,1\na,1,1\n", "row 2: time is '1', and others are dates"),
        ("device,time,gain\na,0,1\na,1,1\na,1e9,1\nb,0,1\n", "spans 1e\\+09 steps of"),
        ("device,time,gain\na,0,-1\n", "must be positive"),
        ("device,time,gain_db\na,0,99999\n", "must be positive"),
        ("device,time,gain\na,zero,1\n", "time is 'zero'"),
        ("device,time,gian\na,0,1\n", "unknown column 'gian', did you mean 'gain'"),
        ("device,time\na,0\n", "needs device, time and one of"),
        ("device,time,gain,gain_db\na,0,1,2\n", "needs device, time and one of"),
        ("device,time,gain,gain\na,0,1,2\n", "names a column twice"),
        ("device,time,gain\na,0\n", "row 1 has 2 values; the header has 3"),
        ("device,time,gain\n", "has no rows"),
        ("", "has the columns none"),
        ("device,time,gain\na,0,1\na,0,2\n", "device 'a' has time 0 2 times"),
    ],
)
def test_a_wrong_trace_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        trace.read(write(tmp_path, text))
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


def test_a_missing_file_and_other_devices_are_reported(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        trace.read(tmp_path / "none.csv")
    path = write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match="2 devices, the network 1; 'a' is not"):
        network_of(path, "device=[{name = 'b'}]")
    assert len(network_of(path, "devices=2")) == 2
    with pytest.raises(ConfigError, match=r"network\.devices is 3, but trace .* has 2"):
        network_of(path, "devices=3")
    with pytest.raises(ConfigError, match="measured at one"):
        network_of(path, "scenario=square", "servers=2")


SERVED = "device,time,rate_mbps,contention,active\n0,0,8,2.5,1\n1,0,6,1.5,1\n0,1,4,1,1\n1,1,6,0,0\n"


def test_a_served_runs_trace_is_read_as_shared_time(tmp_path):
    """Rates are each device's alone: not divided again by how many there are, and known at full power only."""
    path = write(tmp_path, SERVED)
    found = trace.read(path)
    assert found.kind == "rate" and found.shares_time
    assert found.contention.tolist() == [[2.5, 1.5], [1, 0]] and found.active.tolist() == [
        [True] * 2,
        [True, False],
    ]
    network = network_of(path, "access=airtime", round_number=1)
    assert network.airtime == 1 and network.full_power.tolist() == [1, 1]
    assert rate(network.bandwidth, network.max_power, network.gain[0], network.noise) == pytest.approx(
        [4e6, 6e6]
    )
    with pytest.raises(ConfigError, match=r"set network\.access = .airtime."):
        network_of(path)


def test_a_link_that_is_no_radio_may_be_of_any_rate(tmp_path):
    """A network cable, or a loopback: 40 Gbit/s over 20 MHz would be a gain beyond any number."""
    path = write(tmp_path, "device,time,rate_mbps,contention,active\n0,0,40000,1,1\n1,0,5,1,1\n")
    network = network_of(path, "access=airtime")
    assert network.bandwidth.tolist() == [4e9]
    found = rate(network.bandwidth, network.max_power, network.gain[0], network.noise)
    assert found == pytest.approx([40e9, 5e6])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,0,8,0.5,1", "contention is 0.5; it must be 1 or more, or 0"),
        ("0,0,8,1,2", "active is 2; it must be 0 or 1"),
    ],
)
def test_a_use_of_a_link_that_cannot_be_is_refused(tmp_path, row, message):
    with pytest.raises(ConfigError, match=message):
        trace.read(write(tmp_path, SERVED.partition("\n")[0] + "\n" + row + "\n"))


def test_measured_devices_know_full_power_alone(tmp_path):
    tables = "device=[{rate_mbps = 8}, {gain_db = -90}, {}]"
    network = build(load(None, [f"network.{tables}", "network.access=airtime"]).network, 0, 0)
    assert network.full_power.tolist() == [1, 0, 0]
