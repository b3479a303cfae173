"""Moving devices of a served run to other trunk servers between rounds.

A trunk server keeps nothing between rounds, and every order names the server of each device: nothing but the order
changes. Devices see their trunk server with every round, so they take nothing up anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sflam.config import Job
from sflam.learn.settings.association import MEASURED
from sflam.model.adapters import State
from sflam.planner.served_servers import ServedServers
from sflam.records.history import RoundRecord
from sflam.serve.moving import Moved
from sflam.serve.trunks.association import Association
from sflam.serve.trunks.hosted_trunks import HostedTrunks


class ServerMoving:
    """Moves the devices of a fleet among its trunk servers.

    Args:
        association: which server each device has.
        fleet: whose.
        hosted: its trunks.
    """

    def __init__(self, association: Association, fleet: Moved, hosted: HostedTrunks) -> None:
        self.association, self.fleet, self.hosted = association, fleet, hosted
        association.all_here = self._all_here
        self.put()

    def begin(self, round: int, state: State) -> None:
        """Move what is to be moved before a round."""
        fleet = self.fleet
        with fleet.dispatch.looked():
            ordered = fleet.orders.servers_ordered()
        known = self.association.decided >= round
        moves = self.association.decide(round, ordered)
        self.put()
        for move in () if known else moves:
            fleet.event_log("moved_server", **asdict(move))
            fleet.notify(str(move))

    def put(self) -> None:
        """Let the devices be at the servers in force."""
        pairs = zip(self.fleet.local.placements, self.association.in_force, strict=True)
        placed = [replace(before, server=server) for before, server in pairs if before.server != server]
        if placed:
            self.fleet.place(placed)

    def recorded(self, round: int, devices: Sequence[int]) -> dict[str, Any]:
        """Return what a round's record keeps: the servers of its ``devices``, what these took, and the moves."""
        server_of, busy = self.association.in_force, self.hosted.busy_of
        return {
            "servers": tuple(server_of[device] for device in devices),
            "server_busy": tuple(busy.get(server, 0.0) for server in range(max(busy, default=-1) + 1)),
            "server_moves": self.association.of(round),
        }

    def _all_here(self) -> bool:
        with self.fleet.dispatch.looked():
            return set(self.association.servers) <= {host.entry.number for host in self.hosted.hosts.living()}


def association_of(job: Job, file: Path, records: Sequence[RoundRecord]) -> Association | None:
    """Return which server the devices of a job have, by the moves in ``file``; None where none may move.

    Args:
        job: the job.
        file: of the moves.
        records: of the rounds done, to which those that follow are added.

    Raises:
        ServeError: the file cannot be read.
    """
    if not (job.association.moves and any(job.fleet.servers)):
        return None
    homes = job.fleet.servers
    plan = ServedServers(job.association, set(homes)) if job.association.mode == MEASURED else None
    return Association(homes, plan, file, records)


def server_moving_of(
    association: Association | None, fleet: Moved, hosted: HostedTrunks | None
) -> ServerMoving | None:
    """Return what moves the devices of a fleet among its trunks, which are where they are to be then; None without."""
    return ServerMoving(association, fleet, hosted) if association and hosted else None
