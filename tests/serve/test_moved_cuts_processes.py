"""Cuts that an operator moves, over processes and TLS: a server and a device that are killed go on where they were."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import sflam
from sflam import config
from sflam.records import history
from sflam.serve.operators import Operators
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets

FEW = ("model.cut=2", "learn.rounds=8", "learn.local_steps=30")
MOVES = ("repartition.mode=ordered", "repartition.least_cut=1")


def placed_as(records):
    """Return a fleet around the job's own that places the cuts that served rounds had."""

    class Placed(sflam.FleetAround):
        def select(self, round):
            found = records[round]
            cuts = dict(zip(found.participants, found.measured.cuts, strict=True))
            self.place([replace(each, cut=cuts[each.device]) for each in self.inner.placements])
            return super().select(round)

    return Placed


@pytest.mark.slow
@pytest.mark.parametrize("state", ["reset", "keep"])
def test_killed_around_a_move_it_goes_on_with_the_same_cuts(room, cli, tmp_path, state):
    plain = job_of(room, *FOUR_BITS, *FEW, f"learn.state={state}")
    run, operators = tmp_path / "run", tmp_path / "operators.json"
    (tmp_path / "alice.token").write_text(Operators(operators).add("alice"))
    with network(tmp_path) as net:

        def admin(*words):
            done = cli(
                "admin", f"127.0.0.1:{net.port}", *words, "--token-file", tmp_path / "alice.token",
                "--ca", tmp_path / "certs/ca.pem",
            )  # fmt: skip
            assert done.code == 0, done.err
            return "\n".join(done.out)

        server = net.serve(*sets((*plain, *MOVES)), "--out", run, "--operators", operators)
        assert "1 block from the next round on" in admin("cut", "device-1", 1)
        devices = [net.join(device) for device in range(3)]
        server.wait_for(r"round 2: device 1 has 1 block from now on, of 2 before \(as the operator ordered\)")
        server.wait_for(r"round 2, attempt 2: open")
        server.kill()
        server.wait(20)
        again = net.serve("--resume", run, "--operators", operators)
        again.wait_for(r"round 2, attempt 3: open")
        assert "blocks" in admin("list")
        admin("cut", "device-1", "auto")
        admin("cut", "device-2", 1)
        devices[1].wait_for(r"device 1: \d+ samples, 1 blocks")
        devices[1].kill()
        devices[1].wait(20)
        devices[1] = net.join(1)
        assert again.wait(200) == 0, again.lines[-8:]
        assert [device.wait(60) for device in devices] == [0, 0, 0], [d.lines for d in devices]
    records = history.read(run / "history.jsonl")[1]
    cuts = [record.measured.cuts for record in records]
    assert cuts[0] == (2, 2, 2) and cuts[1] == (2, 1, 2) and cuts[-1] == (2, 2, 1)
    kept = json.loads((run / "served/cuts.json").read_text())["moves"]
    assert [(move["device"], move["cut"], move["why"]) for move in kept] == [
        (1, 1, "ordered"),
        (1, 2, "released"),
        (2, 1, "ordered"),
    ]
    events = [json.loads(line) for line in (run / "served.jsonl").read_text().splitlines()]
    assert [event["device"] for event in events if event["event"] == "moved"] == [1, 1, 2]
    sflam.train(config.load(None, plain), tmp_path / "local", around=placed_as(records))
    found, wanted = adapters_of(run), adapters_of(tmp_path / "local")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
