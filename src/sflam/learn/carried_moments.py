"""What optimisers remember, over a move of cuts: a copy that trains just what it trained before keeps its momenta.

A copy whose device moved has other blocks, and starts anew, as Adam counts the steps of a copy as a whole: momenta that
began at zero beside a large count would take steps several times the rate. A shared copy starts anew where a block came
to the server that no device had left to it before, or the last one left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sflam.learn.device import Devices
from sflam.learn.edge_servers import Servers
from sflam.learn.moments import RowState
from sflam.learn.optimizers import Side
from sflam.model.segment import Segment
from sflam.model.stack import Slot

DEVICES = -2
"""Stands for the devices' side where servers are numbered."""
Copy = tuple[int, int]
"""The side, a server or ``DEVICES``, and the row of a copy."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """What is remembered of a copy.

    Attributes:
        names: what it trains.
        slots: where these are in its momenta.
        size: numbers of a row.
        own: the momenta, and the steps.
    """

    names: frozenset[str]
    slots: Mapping[str, Slot]
    size: int
    own: RowState


def lent_moments(devices: Devices, servers: Servers) -> dict[Copy, Remembered]:
    """Give away what both sides remember, copy by copy, as far as that is anything."""
    found = {}
    for number, side in _sides(devices, servers).items():
        names = _names(number, side, devices, servers)
        for row, own in side.lent(list(names)).items():
            stack = side.segment.stack
            found[number, row] = Remembered(names[row], stack.slots, stack.size(), own)
    return found


def take_moments(lent: Mapping[Copy, Remembered], devices: Devices, servers: Servers) -> None:
    """Let both sides remember what was lent of the copies that train the same as before."""
    for number, side in _sides(devices, servers).items():
        stack = side.segment.stack
        back = {}
        for row, names in _names(number, side, devices, servers).items():
            before = lent.get((number, row))
            if before is None or before.names != names:
                continue
            back[row] = _laid_out(before, names, stack.slots, stack.size())
        side.take_back(back, changed=True)


def _sides(devices: Devices, servers: Servers) -> dict[int, Side[Segment]]:
    return {DEVICES: devices, **servers.trunks}  # type: ignore[dict-item]


def _names(number: int, side: Side[Segment], devices: Devices, servers: Servers) -> dict[int, frozenset[str]]:
    """Return row -> the names that it trains."""
    if number == DEVICES:
        return {device: frozenset(devices.names(device)) for device in range(len(devices.cuts))}
    own = [device for device, server in enumerate(servers.server_of) if server == number]
    if servers.trunks[number].shared:
        return {0: frozenset(side.segment.stack.slots)}
    return {
        servers.trunks[number].copy_of(device): frozenset(side.segment.names(devices.cuts[device], device))
        for device in own
    }


def _laid_out(before: Remembered, names: frozenset[str], slots: Mapping[str, Slot], size: int) -> RowState:
    """Return a copy's momenta as a row of another layout; what it does not train has none."""
    found: RowState = {}
    for key, value in before.own.items():
        if value.ndim == 0 or value.numel() != before.size:  # the steps
            found[key] = value
            continue
        row = torch.zeros(size, dtype=value.dtype, device=value.device)
        for name in names:
            row[slots[name].columns] = value[before.slots[name].columns]
        found[key] = row
    return found
