"""Moving the cuts of a served run between rounds: both halves, what was agreed with devices, and what they see of it.

A device sees that its job was changed when it next asks for the round. It then takes the job up anew: it fetches the
part of the model that it lacks, keeps its data, and begins with the adapters of the round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import Contract
from sflam.model.adapters import State
from sflam.plan import Placement
from sflam.serve.contracts import trained_by
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.orders import Orders
from sflam.serve.repartition import Repartition
from sflam.serve.round_planner import RoundPlanner
from sflam.serve.trunk_worker import Worker
from sflam.serve.trunks.hosted_trunks import HostedTrunks


class Moved(Protocol):
    """What is moved of a served fleet."""

    local: LocalFleet
    dispatch: Dispatch
    contracts: dict[int, Contract]
    worker: Worker | HostedTrunks
    planner: RoundPlanner | None
    orders: Orders
    event_log: EventLog
    notify: Callable[[str], None]

    def place(self, placements: list[Placement]) -> None:
        """Give devices cuts."""

    def expect_running(self) -> None:
        """Raise where the server was asked to stop."""


class Mover(Protocol):
    """What moves devices between rounds."""

    def begin(self, round: int, state: State) -> None:
        """Move what is to be moved before a round that begins from the global adapters ``state``."""

    def recorded(self, round: int, devices: Sequence[int]) -> dict[str, Any]:
        """Return what the record of a round of ``devices`` keeps of it, by names of ServedRound."""


class Moving:
    """Moves the cuts of a fleet.

    Args:
        cuts: which cut each device has.
        fleet: whose.
        changed: called when what devices must know of the job has changed.
    """

    def __init__(self, cuts: Repartition, fleet: Moved, changed: Callable[[], None]) -> None:
        self.cuts, self.fleet, self.changed = cuts, fleet, changed

    def begin(self, round: int, state: State) -> None:
        """Move what is to be moved before a round, and wait until the devices that are here know.

        Args:
            round: its number.
            state: the global adapters.
        """
        fleet = self.fleet
        with fleet.dispatch.looked():
            ordered = fleet.orders.cuts_ordered()
        known = self.cuts.decided >= round
        moves = self.cuts.decide(round, ordered)
        moved = self.put(state)
        for move in () if known else moves:
            fleet.event_log("moved", **asdict(move))
            fleet.notify(str(move))
        if moved:
            fleet.dispatch.wait_moved(moved)
            fleet.expect_running()

    def recorded(self, round: int, devices: Sequence[int]) -> dict[str, Any]:
        """Return the moves before a round; the cuts of all rounds are in their records anyway."""
        return {"moves": self.cuts.of(round)}

    def put(self, state: State) -> tuple[int, ...]:
        """Cut the halves where the cuts in force are; return the devices whose cut was another."""
        fleet, local = self.fleet, self.fleet.local
        pairs = zip(local.placements, self.cuts.cuts, strict=True)
        placed = [replace(before, cut=cut) for before, cut in pairs if before.cut != cut]
        if not placed:
            return ()
        devices = tuple(item.device for item in placed)
        # Before: a device that takes up its new cut while halves are made is not waited for again.
        with fleet.dispatch.locked():
            fleet.dispatch.moving |= set(devices)
        fleet.place(placed)
        now = dict(enumerate(local.devices.cuts))
        assert isinstance(fleet.worker, Worker), "rules leave cuts where they are with trunks elsewhere"
        fleet.worker.place(local.servers, now)
        with fleet.dispatch.locked():
            for device in devices:
                agreed = fleet.contracts[device]
                fleet.contracts[device] = replace(agreed, adapters=trained_by(local, state, device))
        if fleet.planner is not None:
            fleet.planner.moved(devices, local.devices.cuts)
        self.changed()
        return devices
