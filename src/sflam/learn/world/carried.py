"""What devices carry from round to round, given to the rank that runs them and taken back: only rank 0 keeps it.

So a rank other than 0 keeps nothing between rounds, and a run may go on with any number of ranks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from sflam.learn.split_fleet import LocalFleet


def lent(fleet: LocalFleet, devices: Sequence[int], others: Collection[int]) -> dict[str, Any]:
    """Return what other ranks need for a round of ``devices``, of which they run ``others``; see :func:`borrow`.

    Rank 0 has no longer what is theirs, until :func:`taken_back`; what joint trunks remember stays here too.
    """
    joint = {}
    for server, trunk in fleet.servers.trunks.items():
        if trunk.joint:
            joint[server] = trunk.lent(_copies(fleet, server, devices))
            trunk.take_back(joint[server], changed=False)
    return _memory(fleet, others) | {
        "joint": joint,
        "personal": {device: parts for device, parts in fleet.personal.own.items() if device in devices},
        "adapters": fleet.adapters.state(),
    }


def borrow(fleet: LocalFleet, found: Mapping[str, Any]) -> None:
    """Begin a round on another rank from what rank 0 lent, and from nothing else."""
    fleet.devices.forget()
    fleet.devices.take_back(found["devices"], changed=False)
    for server, trunk in fleet.servers.trunks.items():
        trunk.forget()
        for kind in ("servers", "joint"):
            trunk.take_back(found[kind].get(server, {}), changed=False)
    fleet.exchange.remember(found["left_out"])
    fleet.personal.own = dict(found["personal"])
    fleet.adapters.restore(found["adapters"])


def returned(fleet: LocalFleet, devices: Sequence[int]) -> dict[str, Any]:
    """Return what ``devices`` trained on another rank in a round, and what they remember of it."""
    rows = {
        device: [own, None if fleet.servers.trunk_of(device).joint else served]
        for device, (own, served) in fleet.rows(devices).items()
    }
    return _memory(fleet, devices) | {"rows": rows}


def taken_back(fleet: LocalFleet, found: Mapping[str, Any]) -> dict[int, tuple[Tensor, Tensor]]:
    """Put back at rank 0 what another rank's devices remember; return the rows that they trained."""
    fleet.devices.take_back(found["devices"], changed=True)
    for server, memory in found["servers"].items():
        fleet.servers.trunks[server].take_back(memory, changed=True)
    fleet.exchange.remember(fleet.exchange.memory() | found["left_out"])
    where = fleet.devices.segment.stack.values
    return {
        device: (own.to(where), fleet.servers.row(device) if served is None else served.to(where))
        for device, (own, served) in found["rows"].items()
    }


def _memory(fleet: LocalFleet, devices: Collection[int]) -> dict[str, Any]:
    trunks = {server: trunk for server, trunk in fleet.servers.trunks.items() if not trunk.joint}
    left_out = fleet.exchange.memory()
    return {
        "devices": fleet.devices.lent(sorted(devices)),
        "servers": {server: trunk.lent(_copies(fleet, server, devices)) for server, trunk in trunks.items()},
        "left_out": {device: left for device, left in left_out.items() if device in devices},
    }


def _copies(fleet: LocalFleet, server: int, devices: Collection[int]) -> list[int]:
    trunk, server_of = fleet.servers.trunks[server], fleet.servers.server_of
    return sorted({trunk.copy_of(device) for device in devices if server_of[device] == server})
