"""A run over several servers, as processes: what it trains is what the simulation of several servers trains.

Whatever dies, and whenever.
"""

from __future__ import annotations

import json
import os

import pytest
import torch

from sflam.serve.trunk_worker import Worker
from sflam.serve.trunks.coordinator_link import CoordinatorLink
from sflam.serve.trunks.trunk_roster import TrunkRoster
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets, simulated

SEVERAL = (*FOUR_BITS, "fleet.servers=[0, 1, 1]")
NAMES = ("edge-a", "edge-b")


def dying(kind, name, when):
    """Let this process die in the call of a method that is the first one ``when`` says so of."""
    whole = getattr(kind, name)

    def wrapped(self, *arguments):
        if when(*arguments):
            os.kill(os.getpid(), 9)
        return whole(self, *arguments)

    setattr(kind, name, wrapped)


def dies_in_the_second_step():
    dying(Worker, "_step", lambda trunk, arrivals, *more: arrivals[0].step == 1)


def dies_as_it_hands_over():
    sent = []
    dying(
        CoordinatorLink, "send", lambda method, *more: method == "PUT" and (sent.append(1) or len(sent) > 1)
    )


def served(folder, settings, act=lambda net, server: None, *, prepare=(None, None), lean=(), more=()):
    """Serve a job by a coordinator, two trunk servers and three devices; return the adapters.

    Args:
        act: done when the trunk servers and the devices have been started; may return another coordinator.
        prepare: run in each trunk server before it begins.
        lean: devices without torch.
    """
    with network(folder, 3) as net:
        for name in NAMES:
            (folder / f"{name}.token").write_text(TrunkRoster(folder / "servers.json").enrol(name))
        silence = ("--server-patience", 2)
        server = net.serve(*sets(settings), "--out", folder / "run", *silence, *more, graphs=bool(lean))
        for name, how in zip(NAMES, prepare, strict=True):
            net.trunk(name, prepare=how).wait_for("serving devices")
        devices = [(net.device if device in lean else net.join)(device) for device in range(3)]
        server = act(net, server) or server
        assert server.wait() == 0, [one.lines for one in net.started]
        assert [device.wait(20) for device in devices] == [0] * 3, [device.lines for device in devices]
        left = [one for one in net.started if one.what == "trunk" and one.process.exitcode != -9]
        assert [trunk.wait(20) for trunk in left] == [0] * len(left), [trunk.lines for trunk in left]
    return adapters_of(folder / "run")


def assert_same(found, wanted):
    assert all(torch.equal(found[name], wanted[name]) for name in wanted), {
        name: float((found[name] - wanted[name]).abs().max()) for name in wanted
    }


def events(folder, name):
    lines = [json.loads(line) for line in (folder / "run/served.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == name]


@pytest.mark.parametrize(
    ("more", "lean"),
    [
        pytest.param((), (0,), marks=pytest.mark.slow),
        pytest.param(("learn.method=sfl-v2", "quant.scheme=identity"), (), marks=pytest.mark.slow),
        pytest.param(("model.labels=device",), (1,), marks=pytest.mark.slow),
        pytest.param(("fleet.ranks=[1, 2, 1]", "model.dropout=0.2"), (), marks=pytest.mark.slow),
        pytest.param(("fleet.selected=2", "fleet.cuts=[1, 2, 0]"), (), marks=pytest.mark.slow),
        pytest.param(("model.trainable=full", "quant.bits_adapters=32"), (), marks=pytest.mark.slow),
    ],
)
def test_two_servers_bit_for_bit(room, tmp_path, more, lean):
    settings = job_of(room, *SEVERAL, *more)
    wanted = simulated(tmp_path / "local", settings)
    assert_same(served(tmp_path, settings, lean=lean), wanted)
    assert not events(tmp_path, "trunk_server_lost")


def test_whichever_trunk_server_dies_and_whenever_the_adapters_are_the_same(room, tmp_path):
    """One in the middle of steps, the one that takes its devices as it hands over, and one before a round."""

    def act(net, server):
        server.wait_for("trunk server edge-a is gone", 60)
        server.wait_for("trunk server edge-b is gone", 60)
        again = net.trunk("edge-a")
        again.wait_for("round 1: devices 0, 1, 2")
        server.wait_for("round 1/3")

    settings = job_of(room, *SEVERAL, "learn.rounds=3")
    prepare = (dies_in_the_second_step, dies_as_it_hands_over)
    found = served(tmp_path, settings, act, prepare=prepare, lean=(0,))
    assert_same(found, simulated(tmp_path / "local", settings))
    lost = [(one["round"], one["names"]) for one in events(tmp_path, "trunk_server_lost")]
    assert lost[:2] == [(0, ["edge-a"]), (0, ["edge-b"])]
    assert {"0": "edge-b"} in [one["to"] for one in events(tmp_path, "trunks_moved")]


@pytest.mark.slow
def test_a_trunk_server_that_comes_back_serves_its_devices_again(room, tmp_path):
    def act(net, server):
        first = next(one for one in net.started if one.what == "trunk")
        server.wait_for("round 1/40")
        first.kill()
        server.wait_for("trunk server edge-a is gone", 60)
        net.trunk("edge-a").wait_for("round .*: devices 0$")

    settings = job_of(room, *SEVERAL, "learn.rounds=40")
    assert_same(served(tmp_path, settings, act), simulated(tmp_path / "local", settings))


@pytest.mark.slow
def test_a_trunk_server_that_hangs_is_one_that_is_gone(room, tmp_path):
    def act(net, server):
        first = next(one for one in net.started if one.what == "trunk")
        server.wait_for("round 1/40")
        first.kill(19)
        server.wait_for("trunk server edge-a is gone", 60)
        server.wait_for("round 40/40", 120)
        first.kill()

    settings = job_of(room, *SEVERAL, "learn.rounds=40")
    assert_same(served(tmp_path, settings, act), simulated(tmp_path / "local", settings))


@pytest.mark.slow
def test_the_coordinator_dies_between_two_rounds(room, tmp_path):
    def act(net, server):
        server.wait_for("round 2/30")
        server.kill()
        server.wait()
        return net.serve("--resume", tmp_path / "run", "--server-patience", 2)

    settings = job_of(room, *SEVERAL, "learn.rounds=30")
    assert_same(served(tmp_path, settings, act), simulated(tmp_path / "local", settings))
