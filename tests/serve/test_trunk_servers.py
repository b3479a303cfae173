"""A run over several servers, as processes: what it trains is what the simulation of several servers trains."""

from __future__ import annotations

import torch

from sflam.serve.trunks.trunk_roster import TrunkRoster
from tests.serve.network import adapters_of, network
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets, simulated

SEVERAL = (*FOUR_BITS, "fleet.servers=[0, 1, 1]")
NAMES = ("edge-a", "edge-b")


def served(folder, settings, act=lambda net, server, trunks: None, *, lean=(), more=()):
    """Serve a job by a coordinator, two trunk servers and three devices; return the adapters."""
    with network(folder, 3) as net:
        for name in NAMES:
            (folder / f"{name}.token").write_text(TrunkRoster(folder / "servers.json").enrol(name))
        silence = ("--server-patience", 2)
        server = net.serve(*sets(settings), "--out", folder / "run", *silence, *more, graphs=bool(lean))
        trunks = [net.trunk(name) for name in NAMES]
        devices = [(net.device if device in lean else net.join)(device) for device in range(3)]
        act(net, server, trunks)
        assert server.wait() == 0, [server.lines, *(trunk.lines for trunk in trunks)]
        assert [device.wait(20) for device in devices] == [0] * 3, [device.lines for device in devices]
        left = [trunk for trunk in net.started[1:] if "trunk" in trunk.what and not trunk.killed]
        assert [trunk.wait(20) for trunk in left] == [0] * len(left), [trunk.lines for trunk in left]
    return adapters_of(folder / "run")


def assert_same(found, wanted):
    assert all(torch.equal(found[name], wanted[name]) for name in wanted), {
        name: float((found[name] - wanted[name]).abs().max()) for name in wanted
    }


def test_two_servers_bit_for_bit(room, tmp_path):
    settings = job_of(room, *SEVERAL)
    wanted = simulated(tmp_path / "local", settings)
    assert_same(served(tmp_path, settings), wanted)
