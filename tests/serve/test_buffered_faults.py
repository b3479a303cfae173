"""Buffered rounds of processes over TLS: a killed server, a killed device; what came makes the same adapters."""

from __future__ import annotations

import signal

import pytest
import torch

from sflam import config
from sflam.learn.versions import RecordedVersions, buffers_of
from sflam.records import history
from sflam.run.assemble import assemble
from sflam.run.conditions import SERVE
from sflam.run.retrace import retrace
from tests.learn.builders import run
from tests.serve.network import adapters_of, network
from tests.serve.test_faults import DieAfter
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets

BUFFERED = (*FOUR_BITS, "learn.sync=buffered", "learn.buffer=2", "learn.rounds=6", "learn.local_steps=4")


def assert_same(folder, settings):
    """The adapters of a run are those of the updates in its history, made in one process."""
    _, records = history.read(folder / "history.jsonl")
    assembly = assemble(config.load(None, settings), command=SERVE)
    _, wanted = run(RecordedVersions(assembly.halves, buffers_of(records)), assembly.state, len(records))
    found = adapters_of(folder)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    return records


def test_a_killed_server_goes_on_from_its_last_version(room, tmp_path):
    settings = job_of(room, *BUFFERED)
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", prepare=DieAfter(22))
        joined = [net.join(device) for device in range(3)]
        assert server.wait() == -signal.SIGKILL
        assert 1 <= len(history.read(tmp_path / "run" / "history.jsonl")[1]) < 6
        server = net.serve("--resume", tmp_path / "run")
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0] * 3, [device.lines for device in joined]
    records = assert_same(tmp_path / "run", settings)
    assert retrace(tmp_path / "run").difference == 0.0
    counted = [
        (device, number)
        for record in records
        for buffer in [record.measured.buffer]
        for device, number in zip(buffer.devices, buffer.numbers, strict=True)
    ]
    assert len(records) == 6 and len(set(counted)) == len(counted) == 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["join", "device"])
def test_a_killed_device_comes_back_to_its_place(room, tmp_path, kind):
    settings = job_of(room, *BUFFERED, "learn.local_steps=20", "learn.rounds=4")
    with network(tmp_path) as net:
        server = net.serve(*sets(settings), "--out", tmp_path / "run", graphs=kind == "device")
        joined = [getattr(net, kind)(device) for device in range(3)]
        joined[1].wait_for("round 1: 20 steps", 200)
        joined[1].kill(signal.SIGKILL)
        joined[1].process.join(10)
        joined[1] = getattr(net, kind)(1)
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0] * 3
    if kind == "join":
        assert_same(tmp_path / "run", settings)
