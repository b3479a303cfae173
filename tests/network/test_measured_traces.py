"""Traces as they come from measuring: uneven times, dates, more columns, gaps, outages, and other tools' files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.config import load
from sflam.errors import ConfigError
from sflam.network import trace
from sflam.network.resample import GAP, OUTAGE, resampled
from sflam.planner.notes import notes


def write(folder, text, name="walk.csv"):
    (folder / name).write_text(text)
    return folder / name


def test_dates_jitter_and_more_columns(tmp_path):
    text = (
        "device,time,rsrp,rate_mbps,cell\n"
        "a,2026-03-01T12:00:00Z,-90,10,7\na,2026-03-01T12:00:01.100Z,-91,20,7\na,2026-03-01T14:00:02+02:00,-92,30,8\n"
        "b,2026-03-01T12:00:00.200,-90,1,7\nb,2026-03-01T12:00:01,-91,2,7\nb,2026-03-01T12:00:02,-92,3,7\n"
    )
    found = trace.read(write(tmp_path, text))
    assert (found.values / 1e6).tolist() == [[10, 1], [20, 2], [30, 3]]
    assert found.times == pytest.approx([0, 0.9, 1.8])
    used, dates, rounds = found.notes
    assert used == "trace walk.csv: rsrp, cell not used"
    assert dates.endswith("times are dates, counted in seconds from the first, 2026-03-01T12:00:00+00:00")
    assert "3 rounds of 0." in rounds and "to which rows were moved by 0.2 at most" in rounds
    job = load(None, [f"network.trace={tmp_path / 'walk.csv'}"])
    assert list(notes(job))[:3] == list(found.notes)


def test_missing_rows_are_filled_and_outages_are_said(tmp_path):
    rows = [("a", t, 100.0 if t < 6 else 50.0) for t in range(20) if t != 3 and not 8 <= t < 14]
    rows += [("b", t, 0.0 if t == 5 else 10.0) for t in range(20)]
    text = "device,time,gain\n" + "".join(f"{d},{t},{g}\n" for d, t, g in rows)
    found = trace.read(write(tmp_path, text))
    a, b = found.values.T
    assert a[3] == 100 and a[8:14].tolist() == [50 * OUTAGE] * 6 and a[14] == 50
    assert b[5] == 10 * OUTAGE and b[4] == b[6] == 10
    assert found.notes == (
        "trace walk.csv: 20 rounds of 1",
        "trace walk.csv: 1 of 40 filled from the values around them, in gaps of up to 3 (a)",
        "trace walk.csv: 7 of 40 outages, where 0.01 of a device's least value stands for no channel (a, b)",
    )


def test_what_is_even_is_taken_as_it_is(tmp_path):
    found = trace.read(write(tmp_path, "device,time,gain\na,10,1\na,20,2\nb,10,3\nb,20,4\n"))
    assert (
        found.notes == () and found.times.tolist() == [10, 20] and found.values.tolist() == [[1, 3], [2, 4]]
    )


def test_a_trace_that_changed_is_read_again(tmp_path):
    path = write(tmp_path, "device,time,gain\na,0,1\n")
    assert trace.read(path) is trace.read(path)
    write(tmp_path, "device,time,gain\na,0,22\n")
    assert trace.read(path).values.tolist() == [[22]]


def test_iperf3_writes_a_device_per_file(tmp_path):
    for name, rates in (("phone", (8e6, 4e6)), ("laptop", (80e6, 60e6))):
        sums = [{"start": 0.0, "bits_per_second": 1.0, "omitted": True}]
        sums += [
            {"start": at + 1e-5, "bits_per_second": own, "omitted": False} for at, own in enumerate(rates)
        ]
        write(
            tmp_path, json.dumps({"intervals": [{"streams": [], "sum": one} for one in sums]}), f"{name}.json"
        )
    found = trace.read(tmp_path)
    assert found.names == ("laptop", "phone") and found.values.tolist() == [[80e6, 8e6], [60e6, 4e6]]
    assert trace.read(tmp_path / "phone.json").names == ("phone",)
    write(tmp_path, '{"intervals": [{}]}', "phone.json")
    with pytest.raises(
        ConfigError, match=r"phone.json is no JSON of iperf3: it lacks intervals .* iperf3 -c HOST -J"
    ):
        trace.read(tmp_path)


def test_mahimahi_counts_packets(tmp_path):
    """Two packets in the first second, none in the second, one in the third, half of which there is."""
    found = trace.read(write(tmp_path, "1\n1000\n2500\n", "lte.up"))
    assert found.names == ("lte",) and found.kind == "rate"
    assert found.values[:, 0].tolist() == [24e3, 0.01 * 24e3, 24e3]
    assert "1 of 3 outages" in found.notes[-1]
    for text, why in (("1\nx\n", "every line must be a time in whole ms"), ("5\n3\n", "its times must rise")):
        with pytest.raises(ConfigError, match=why):
            trace.read(write(tmp_path, text, "bad.down"))


@given(st.integers(2, 30), st.integers(1, 4), st.data())
def test_jitter_below_half_a_step_moves_no_value(rounds, devices, data):
    jitter = np.array(
        data.draw(st.lists(st.floats(-0.2, 0.2), min_size=rounds * devices, max_size=rounds * devices))
    )
    jitter[:devices] = 0.0  # the first row says where time begins
    device = np.tile(np.arange(devices), rounds)
    even = np.repeat(np.arange(rounds, dtype=float), devices)
    values = np.arange(1.0, rounds * devices + 1)
    exact = resampled(device, even, values, devices)
    assert not exact.changed and exact.values.ravel().tolist() == values.tolist()
    order = np.array(data.draw(st.permutations(range(rounds * devices))))
    shuffled = resampled(device[order], even[order], values[order], devices)
    assert np.array_equal(shuffled.values, exact.values)
    moved = resampled(device, even + jitter, values, devices)
    assert moved.values.shape[1] == devices and (moved.values > 0).all()
    if np.ptp(np.abs(jitter)) == 0:
        assert np.array_equal(moved.values, exact.values)


@given(st.lists(st.booleans(), min_size=3, max_size=40), st.floats(0.5, 100))
def test_every_time_is_measured_filled_or_an_outage(there, step):
    there[0] = there[1] = there[-1] = True
    times = step * np.flatnonzero(there)
    found = resampled(np.zeros(len(times), np.int64), times, np.full(len(times), 2.0), 1)
    if found.step == pytest.approx(step):
        measured = np.array(there)
        assert len(found.times) == len(there)
        assert (measured.astype(int) + found.filled[:, 0] + found.outage[:, 0] == 1).all()
        assert (found.values[found.filled] == 2).all() and (found.values[found.outage] == 2 * OUTAGE).all()
        runs = "".join("x" if here else "." for here in there).split("x")
        assert found.outage.sum() == sum(len(run) for run in runs if len(run) > GAP)


@given(st.lists(st.integers(0, 20000), min_size=1, max_size=200))
def test_mahimahi_loses_no_packet(tmp_path_factory, at):
    path = tmp_path_factory.mktemp("mahi") / "link.mahi"
    path.write_text("".join(f"{one}\n" for one in sorted(at)))
    from sflam.network.trace_files import columns_of

    rates = columns_of(path)["rate_mbps"]
    last = max(*at, 1)
    whole = min(1.0, last / 1000) if last < 1000 else 1.0
    bits = sum(rates[:-1]) * 1e6 + rates[-1] * 1e6 * (
        whole if last < 1000 else (last / 1000 - (len(rates) - 1) if last / 1000 < len(rates) else 1.0)
    )
    counted = sum(1 for one in at if one <= 1000 * len(rates))
    assert bits == pytest.approx(counted * 12000, rel=1e-9)
