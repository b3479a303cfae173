"""The trunk servers that are here, at their coordinator: what each is asked, and how far it is.

All of it is read and changed under the lock of the run's session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.errors import Refused
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.session import Phase
from sflam.serve.trunks.trunk_order import OVER, Copy, TrunkOrder, TrunkReport, count
from sflam.serve.trunks.trunk_roster import TrunkEntry


@dataclass(eq=False)
class TrunkHost:
    """One trunk server that came.

    Attributes:
        entry: by which it is enrolled.
        instance: of its process, which tells two of one name apart.
        url: where devices reach it.
        certificate: its own, PEM; "" for none.
        heard: when it was heard of last, s.
        order: what it is asked in the open round; None where it has no part in it.
        phase: of that order.
        serial: of the order and its phase.
        ready: the opening whose round is open there.
        copies: what it has handed over of the order's copies, [P] each.
        report: at the end of the order; None before.
    """

    entry: TrunkEntry
    instance: str
    url: str
    certificate: str
    heard: float
    order: TrunkOrder | None = None
    phase: str = OVER
    serial: int = 0
    ready: int = -1
    copies: dict[Copy, NDArray[np.floating[Any]]] = field(default_factory=dict)
    report: TrunkReport | None = None

    @property
    def name(self) -> str:
        """By which it is enrolled."""
        return self.entry.name

    def ask(self, order: TrunkOrder | None, phase: str) -> None:
        """Ask for something else from now on."""
        if order is not self.order:
            self.copies, self.report = {}, None
        self.order, self.phase = order, phase
        self.serial += 1

    def asked(self, round: int, attempt: int, *phases: str) -> TrunkOrder:
        """Return the order of an opening; raises Refused, 409, where it is another's, or in none of these phases."""
        order = self.order
        if order is None or (order.round, order.attempt) != (round, attempt) or self.phase not in phases:
            raise Refused(409, f"round {round}, attempt {attempt} is over for trunk server {self.name}")
        return order


@dataclass(frozen=True)
class TrunkSeen:
    """A trunk server that came, as pages and metrics show it.

    Attributes:
        number: the server whose devices are its own.
        name: by which it is enrolled.
        here: whether it is here still.
        devices: that it serves in the open round.
        silent_s: seconds since it was heard of.
    """

    number: int
    name: str
    here: bool
    devices: int
    silent_s: float


class TrunkHosts:
    """The trunk servers of a run.

    Args:
        dispatch: whose lock this is under, and where the progress of devices goes.
        silence: seconds without a sign of life after which one is gone.
        notify: shows a line to the user of the coordinator.
        event_log: one line per event.
    """

    def __init__(
        self, dispatch: Dispatch, silence: float, notify: Callable[[str], None], event_log: EventLog
    ) -> None:
        self.dispatch, self.silence, self.notify, self.event_log = dispatch, silence, notify, event_log
        self.hosts: dict[str, TrunkHost] = {}
        self.informed: set[str] = set()
        """Trunk servers that know that the run has ended."""

    def come(self, entry: TrunkEntry, instance: str, url: str, certificate: str) -> None:
        """Let a trunk server in, or in again.

        Raises:
            Refused: 409, another process has its name, and is here.
        """
        with self.dispatch.locked():
            before, now = self.hosts.get(entry.name), self.dispatch.clock()
            if before is not None and before.instance != instance and self.alive(before):
                raise Refused(
                    409,
                    f"trunk server {entry.name} is here already, at {before.url}; stop that one, or enrol this "
                    "one under a name of its own (sflam enrol NAME --trunk)",
                )
            self.hosts[entry.name] = TrunkHost(entry, instance, url, certificate, now)
        self.event_log("trunk_server", server=entry.number, name=entry.name, url=url)
        self.notify(f"trunk server {entry.name} is here, at {url}, as server {entry.number}")

    def of(self, entry: TrunkEntry, instance: str) -> TrunkHost | None:
        """Return the trunk server of a request, which is heard of; None for one that did not come, or is replaced."""
        host = self.hosts.get(entry.name)
        if host is None or host.instance != instance:
            return None
        host.heard = max(host.heard, self.dispatch.clock())
        return host

    def alive(self, host: TrunkHost) -> bool:
        """Whether a trunk server is here still."""
        return self.hosts.get(host.name) is host and self.dispatch.clock() - host.heard <= self.silence

    def living(self) -> list[TrunkHost]:
        """Return those that are here, in the order of their numbers."""
        return sorted(filter(self.alive, self.hosts.values()), key=lambda host: host.entry.number)

    def assigned(self, servers: Collection[int]) -> dict[int, TrunkHost]:
        """Return server -> the trunk server that serves its devices: its own, or the one here with fewest of others."""
        living, load = self.living(), Counter[str]()
        own = {host.entry.number: host for host in living}
        found = {}
        for server in sorted(servers, key=lambda server: (server not in own, server)):
            found[server] = own.get(server) or min(living, key=lambda host: load[host.name])
            load[found[server].name] += 1
        return found

    def beat(self, host: TrunkHost, found: Mapping[str, Any]) -> None:
        """Note how far the devices of a trunk server are.

        Raises:
            ValueError, KeyError or TypeError: it is malformed.
        """
        seats, attempt = found["seats"], count(found["attempt"], -1)
        order, session, now = host.order, self.dispatch.session, self.dispatch.clock()
        if order is None or order.attempt != attempt:
            return
        for key, (made, waiting, out) in seats.items():
            if (device := int(key)) not in order.devices:
                raise ValueError("devices of its own")
            if out is True:
                session.drop(device)
            session.progress(device, attempt, count(made), waiting is True, now)

    def standing(self, host: TrunkHost) -> dict[str, Any]:
        """Return what a trunk server is answered: what it is asked now."""
        session, order = self.dispatch.session, host.order
        ended = session.phase is Phase.ENDED
        if ended:
            self.informed.add(host.name)
        mine = order.devices if order else ()
        return {
            "known": True,
            "serial": -1 if ended else host.serial,
            "phase": "ended" if ended else host.phase,
            "round": order.round if order else -1,
            "attempt": order.attempt if order else -1,
            "out": [device for device in mine if device in session.seats and session.seats[device].out],
        }

    def seen(self) -> list[TrunkSeen]:
        """Return those that came, in the order of their numbers."""
        with self.dispatch.looked():
            now = self.dispatch.clock()
            return [
                TrunkSeen(
                    host.entry.number,
                    host.name,
                    self.alive(host),
                    len(host.order.devices) if host.order else 0,
                    max(0.0, now - host.heard),
                )
                for host in sorted(self.hosts.values(), key=lambda host: host.entry.number)
            ]

    def wait_informed(self, seconds: float) -> None:
        """Wait until the trunk servers that are here know that the run has ended, at most so many seconds."""
        until = self.dispatch.clock() + seconds
        self.dispatch.wait_until(
            lambda: self.dispatch.clock() >= until or {host.name for host in self.living()} <= self.informed
        )
