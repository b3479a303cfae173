"""What a round begins with at the server: copies of the adapters, and what is put back where it is opened once more."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sflam.learn.adapter_exchange import flatten, send_adapters
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State


class RoundStart:
    """The start of the open round.

    Args:
        local: the job's simulated fleet, whose trunks serve.
    """

    def __init__(self, local: LocalFleet) -> None:
        self.local = local
        self.state: State = {}
        """The global adapters that the round begins from."""
        self._momenta: dict[int, Any] | None = None
        self._left_out: Any = None

    def begin(self, devices: Sequence[int], state: State) -> None:
        """Start the trunks' copies for the devices from the global adapters ``state``."""
        local, self.state = self.local, state
        local.rule.begin(state)
        for trunk in local.servers.trunks.values():
            trunk.open()
        keeps = local.learn.practice.state == "keep"
        self._momenta = copy.deepcopy(local.servers.state()) if keeps else None
        self._left_out = local.exchange.memory()
        self._copies(devices)

    def again(self, devices: Sequence[int]) -> None:
        """Put the trunks back to the start of the round, for these devices."""
        local = self.local
        for trunk in local.servers.trunks.values():
            trunk.optimizer.state.clear()
        if self._momenta is not None:
            local.servers.restore(self._momenta)
            self._momenta = copy.deepcopy(self._momenta)
        local.exchange.remember(self._left_out)
        self._copies(devices)

    def downloads(self, round: int, devices: Sequence[int]) -> dict[int, bytes]:
        """Return device -> the adapters that it fetches."""
        return self.bodies(round, devices, self.state)

    def bodies(self, round: int, devices: Sequence[int], state: State) -> dict[int, bytes]:
        """Return device -> the adapters of a round that begins from the global adapters ``state``."""
        local, found = self.local, {}
        for device in devices:
            names = local.devices.names(device)
            own = local.ranks.own(device, state, names)
            side = local.adapters.side(own, names)
            found[device] = send_adapters(round, device, 0, flatten(own, names), side) if names else b""
        return found

    def _copies(self, devices: Sequence[int]) -> None:
        servers, personal = self.local.servers, self.local.personal
        servers.seat(devices)
        for server, row in servers.copies(devices):
            servers.trunks[server].segment.stack.write(row, self.state)
        for device in devices if personal else ():
            servers.write(device, personal.of(device))
