"""A measured plan over processes and shaped links: the server dies in a round, and goes on with the plan it had."""

from __future__ import annotations

import json

import pytest

from sflam.records import history
from tests.serve.network import network
from tests.serve.shaped_link import shared_link

pytestmark = pytest.mark.slow
JOB = (
    "fleet.devices=3",
    "learn.rounds=3",
    "learn.local_steps=3",
    "learn.batch=32",
    "learn.device=cpu",
    "learn.evaluate_every=0",
    "data.partition=iid",
    "model.cut=1",
    'plan.optimize=["bits", "bits_down"]',
    "plan.sensitivity=2",
    "plan.sensitivity_down=1",
)
RATES = (1e6, 4e6, 16e6)
"""bit/s of each device's way to the server."""


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


def test_a_server_killed_in_a_planned_round_goes_on_with_its_plan(cli, tmp_path):
    run = tmp_path / "run"
    with network(tmp_path) as net:
        server = net.serve(*sets(JOB), "--out", run, "--plan", "measured", graphs=True)
        upstream = net.port
        with (
            shared_link(RATES[0], upstream) as slow,
            shared_link(RATES[1], upstream) as middle,
            shared_link(RATES[2], upstream) as fast,
        ):
            devices = []
            for number, link in enumerate((slow, middle, fast)):
                net.port = link.port
                devices.append(
                    net.device(number, "--threads", 1) if number else net.join(number, "--threads", 1)
                )
            net.port = upstream
            server.wait_for(r"round 2, attempt 2: open")
            server.kill()
            server.wait(20)
            kept = json.loads((run / "served/plan.json").read_text())
            assert kept["planned"] == 1
            again = net.serve("--resume", run, graphs=True)
            assert again.wait(300) == 0, again.lines[-8:]
            assert [device.wait(60) for device in devices] == [0, 0, 0]
    records = history.read(run / "history.jsonl")[1]
    found = records[1].measured
    bits = dict(enumerate(zip(found.bits_up, found.bits_down, strict=True)))
    assert {int(device): tuple(pair) for device, pair in kept["bits"].items()} == bits
    assert found.predicted is not None and found.predicted.source == "measured"
    probed = records[0].measured.bits_up  # nothing is known of computing yet
    assert probed[0] < max(probed)  # the slowest way carries the fewest bits
    assert min(records[-1].measured.memory) > 10 << 20
    done = cli("profile", "--from", run, "--out", tmp_path / "next.toml")
    assert done.code == 0 and "3 devices" in done.out[0], done.err
    planned = cli("plan", tmp_path / "next.toml", "--export", tmp_path / "shape.sh", "--json")
    assert planned.code == 0, planned.err
    assert (tmp_path / "shape.sh").read_text().count("tbf rate") == 3
    assert cli("profile", "--from", tmp_path, "--out", tmp_path / "no.toml").code == 2
    assert cli("profile", "--from", run, "--power-w", 3, "--out", tmp_path / "no.toml").code == 2
