"""Devices that move among trunk servers, over processes and TLS: what is trained is what a simulation trains so."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch

import sflam
from sflam import config
from sflam.records import history
from sflam.serve.operators import Operators
from sflam.serve.trunks.trunk_roster import TrunkRoster
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import job_of, sets
from tests.serve.test_trunk_servers import NAMES, SEVERAL, assert_same, dying, events

MOVES = "association.mode=ordered"
SHARED = ("learn.method=sfl-v2", "quant.scheme=identity")
UNLIKE = ("fleet.cuts=[1, 2, 0]", "model.labels=device", "model.dropout=0.2")
LONG = ("learn.rounds=5", "learn.local_steps=12")


def placed_as(records):
    """Return a fleet around the job's own that places the servers that served rounds had."""

    class Placed(sflam.FleetAround):
        def select(self, round):
            found = records[round]
            servers = dict(zip(found.participants, found.measured.servers, strict=True))
            self.place([replace(each, server=servers[each.device]) for each in self.inner.placements])
            return super().select(round)

    return Placed


class Site:
    """A coordinator, two trunk servers, three devices and an operator."""

    def __init__(self, net, cli, folder, settings, *, prepare=(None, None), device=None):
        self.net, self.cli, self.folder = net, cli, folder
        self.operators = folder / "operators.json"
        (folder / "alice.token").write_text(Operators(self.operators).add("alice"))
        for name in NAMES:
            (folder / f"{name}.token").write_text(TrunkRoster(folder / "servers.json").enrol(name))
        self.server = self.serve(*sets(settings), "--out", folder / "run")
        self.prepare, self.trunks, self.devices = prepare, [], []

    def serve(self, *arguments):
        return self.net.serve(*arguments, "--operators", self.operators, "--server-patience", 2)

    def begin(self):
        for name, how in zip(NAMES, self.prepare, strict=True):
            self.trunks.append(self.net.trunk(name, prepare=how))
            self.trunks[-1].wait_for("serving devices")
        self.devices = [self.net.join(device) for device in range(3)]

    def admin(self, *words):
        found = self.cli(
            "admin", f"127.0.0.1:{self.net.port}", *words, "--token-file", self.folder / "alice.token",
            "--ca", self.folder / "certs/ca.pem",
        )  # fmt: skip
        assert found.code == 0, found.err
        return "\n".join(found.out)

    def end(self):
        assert self.server.wait(240) == 0, self.server.lines[-8:]
        assert [device.wait(60) for device in self.devices] == [0] * 3, [one.lines for one in self.devices]


def records_of(folder):
    return history.read(folder / "run/history.jsonl")[1]


def assert_as_simulated(folder, settings, records):
    """Assert that a served run has the adapters of a simulation with its associations, and not those without moves."""
    plain = [one for one in settings if not one.startswith("association.")]
    sflam.train(config.load(None, plain), folder / "local", around=placed_as(records))
    assert_same(adapters_of(folder / "run"), adapters_of(folder / "local"))
    sflam.train(config.load(None, plain), folder / "stays")
    found, stays = adapters_of(folder / "run"), adapters_of(folder / "stays")
    assert not all(torch.equal(found[name], stays[name]) for name in stays)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param((), marks=pytest.mark.slow, id="trunks per device"),
        pytest.param(SHARED, id="a trunk per server"),
        pytest.param(UNLIKE, marks=pytest.mark.slow, id="cuts of their own, labels on devices"),
    ],
)
def test_an_operator_moves_a_device_and_the_coordinator_and_the_device_are_killed(room, cli, tmp_path, more):
    settings = (*job_of(room, *SEVERAL), *LONG, *more, MOVES)
    with network(tmp_path, 3) as net:
        site = Site(net, cli, tmp_path, settings)
        site.begin()
        site.server.wait_for("round 1, attempt 1: open")
        assert "device-2: at server 0 from the next round on" in site.admin("server", "device-2", 0)
        site.server.wait_for(
            r"round 2: device 2 is at server 0 from now on, at 1 before \(as the operator ordered\)"
        )
        site.server.wait_for("round 2, attempt 2: open")
        site.server.kill()
        site.server.wait(20)
        site.server = site.serve("--resume", tmp_path / "run")
        site.server.wait_for("servers as ordered, until sflam admin SERVER server NAME auto: device-2 0")
        site.server.wait_for("round 2, attempt 3: open")
        assert "server" in site.admin("list")
        site.devices[2].kill()
        site.devices[2].wait(20)
        site.devices[2] = net.join(2)
        site.server.wait_for("round 3, attempt .*: open")
        site.admin("server", "device-2", "auto")
        site.admin("server", "device-1", 0)
        site.end()
    records = records_of(tmp_path)
    servers = [record.measured.servers for record in records]
    assert servers[:3] == [(0, 1, 1), (0, 1, 0), (0, 1, 0)] and servers[3:] == [(0, 0, 1)] * 2
    moved = [
        [(m.device, m.before, m.server, m.why) for m in record.measured.server_moves] for record in records
    ]
    assert moved == [
        [], [(2, 1, 0, "ordered")], [], [(1, 1, 0, "ordered"), (2, 0, 1, "released")], []
    ]  # fmt: skip
    kept = json.loads((tmp_path / "run/served/association.json").read_text())["moves"]
    assert [(move["device"], move["server"]) for move in kept] == [(2, 0), (1, 0), (2, 1)]
    assert [event["device"] for event in events(tmp_path, "moved_server")] == [2, 1, 2]
    assert_as_simulated(tmp_path, settings, records)


def dies_in_the_round_of_the_move():
    from sflam.serve.trunk_worker import Worker

    dying(Worker, "_step", lambda trunk, arrivals, *more: {one.device for one in arrivals} == {0, 2})


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARED], ids=["trunks per device", "a trunk per server"])
def test_the_trunk_server_that_a_device_moved_to_dies_in_the_round_of_the_move(room, cli, tmp_path, more):
    settings = (*job_of(room, *SEVERAL), *LONG, *more, MOVES)
    with network(tmp_path, 3) as net:
        site = Site(net, cli, tmp_path, settings, prepare=(dies_in_the_round_of_the_move, None))
        site.admin("server", "device-2", 1)
        site.begin()
        site.server.wait_for("round 1, attempt 1: open")
        site.admin("server", "device-2", 0)
        site.server.wait_for("trunk server edge-a is gone", 60)
        site.server.wait_for("round 3, attempt .*: open", 60)
        net.trunk("edge-a").wait_for("round .*: devices 0, 2")
        site.end()
    records = records_of(tmp_path)
    assert [record.measured.servers for record in records] == [(0, 1, 1)] + [(0, 1, 0)] * 4
    lost = [(one["round"], one["names"]) for one in events(tmp_path, "trunk_server_lost")]
    assert lost[0] == (1, ["edge-a"])
    assert {"0": "edge-b"} in [one["to"] for one in events(tmp_path, "trunks_moved")]
    busy = [len(record.measured.server_busy) for record in records]
    assert busy[0] == 2 and busy[1] == 0  # that one computed for the devices of both
    assert_as_simulated(tmp_path, settings, records)


def is_slow():
    from sflam.serve.trunk_worker import Worker

    whole = Worker._step

    def slow(self, *arguments):
        time.sleep(0.15)
        return whole(self, *arguments)

    Worker._step = slow


@pytest.mark.slow
def test_the_plan_moves_devices_off_a_slow_trunk_server_and_lets_them_rest(room, cli, tmp_path):
    plan = ("association.mode=measured", "association.saves=0.2")
    settings = (*job_of(room, *SEVERAL), *LONG, "learn.rounds=6", *plan)
    with network(tmp_path, 3) as net:
        site = Site(net, cli, tmp_path, settings, prepare=(None, is_slow))
        site.begin()
        line = site.server.wait_for(r"round 3: device 1 is at server 0 from now on, at 1 before \((.*)\)")
        assert line[1].startswith("the round is shorter by it: a round of ")
        site.end()
    records = records_of(tmp_path)
    assert [record.measured.servers for record in records] == [(0, 1, 1)] * 2 + [(0, 0, 0)] * 4
    assert [move.why for record in records for move in record.measured.server_moves] == ["measured"] * 2
    assert [len(record.measured.server_busy) for record in records] == [2, 2, 1, 1, 1, 1]
    assert_as_simulated(tmp_path, settings, records)
