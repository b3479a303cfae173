"""The trunks of a run on servers of their own: in the place of a worker, at the coordinator.

Which devices learn together is decided by the server that the plan gives each. A server's trunk is at the trunk server
of its number while that is here, and else at another one: what is trained, drawn and averaged stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sflam.codec.bodies import Body, decode, encode
from sflam.codec.messages import AdapterFrame
from sflam.errors import Refused, WireError
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Steps
from sflam.model.adapters import State
from sflam.serve.round_stats import RoundStats
from sflam.serve.session import Verdict
from sflam.serve.trunks.round_token import new_key, round_token
from sflam.serve.trunks.trunk_hosts import TrunkHost, TrunkHosts
from sflam.serve.trunks.trunk_order import GATHER, OPEN, OVER, TrunkOrder
from sflam.sizes import adapter_body_bytes

LONGEST_HANDOVER = 4.0
"""Times the patience after which a trunk server that opens no round, or hands nothing over, counts as gone."""


class HostedTrunks:
    """Serves rounds by trunk servers; see :class:`sflam.serve.trunk_worker.Worker`.

    Args:
        local: the job's simulated fleet, whose trunks hold what trunk servers hand over.
        hosts: the trunk servers.
        stats: what the network does in a round.
        gather: seconds a trunk server that never came is waited for.
    """

    def __init__(self, local: LocalFleet, hosts: TrunkHosts, stats: RoundStats, gather: float) -> None:
        self.local, self.hosts, self.stats, self.gather = local, hosts, stats, gather
        self.dispatch, self.exchange = hosts.dispatch, local.exchange
        self.dispatch.session.elsewhere = True
        self.busy = 0.0
        """Seconds of computing in the round, of all trunk servers."""
        self.busy_of: dict[int, float] = {}
        """Server -> those of its own trunk server; empty in a round in which one had the devices of another."""
        self.passes: list[tuple[int, ...]] = []
        """None are kept: those of several servers are in no common order."""
        self.lost: tuple[str, ...] = ()
        """Trunk servers that the round lost."""
        self._used: list[TrunkHost] = []
        self._homes: tuple[int, ...] = ()
        """Servers whose devices are in the round."""
        self._named: dict[int, dict[str, str]] = {}
        """Device -> its trunk server in the opening, which a device that is late still asks for."""
        self._starts: dict[int, Body] = {}
        self._given_up: set[int] = set()

    def prepare(
        self, round: int, attempt: int, devices: Sequence[int], samples: Mapping[int, int], start: State
    ) -> bool:
        """Let the trunk servers open a round; return whether all have, which the loss of one prevents."""
        server_of = self.local.servers.server_of
        servers = sorted({server_of[device] for device in devices})
        self._wait_for(round, servers)
        if self.dispatch.stopping:
            return False
        self._starts = {server: self._start(round, server, start) for server in servers}
        known = tuple(samples.get(device, -1) for device in range(len(server_of)))
        with self.dispatch.locked():
            if not self.hosts.living():
                return False
            homes = self.hosts.assigned(servers)
            host_of = {device: homes[server_of[device]] for device in devices}
            self._used, self._homes = list(dict.fromkeys(homes.values())), tuple(homes)
            for host in self.hosts.living():
                own = tuple(device for device in devices if host_of[device] is host)
                order = TrunkOrder(round, attempt, new_key(), own, tuple(devices), known, server_of)
                host.ask(order if own else None, OPEN if own else OVER)
            self._named = {device: _place(host, device) for device, host in host_of.items()}
        moved = {server: host.name for server, host in homes.items() if host.entry.number != server}
        if moved:
            self.hosts.event_log("trunks_moved", round=round, attempt=attempt, to=moved)
        clock = self.dispatch.clock
        until = clock() + LONGEST_HANDOVER * self.dispatch.session.patience
        self.dispatch.wait_until(
            lambda: bool(self._gone()) or clock() > until or all(h.ready == attempt for h in self._used)
        )
        return not self._note_gone(round, attempt)

    def serve(self, round: int, attempt: int, devices: tuple[int, ...]) -> Steps:
        """Wait until the round is over and take what was trained; :attr:`lost` names the servers that are gone."""
        session, clock = self.dispatch.session, self.dispatch.clock
        self.busy, self.busy_of, self.lost, done = 0.0, {}, (), Steps(samples=dict.fromkeys(devices, 0))
        self.dispatch.wait_until(
            lambda: session.verdict(clock()) is not Verdict.RUNNING or bool(self._gone())
        )
        with self.dispatch.locked():
            for host in self._used if not self._gone() else []:
                host.ask(host.order, GATHER)
        until = clock() + LONGEST_HANDOVER * session.patience
        self.dispatch.wait_until(
            lambda: bool(self._gone()) or clock() > until or all(host.report for host in self._used)
        )
        if not self._note_gone(round, attempt) and not self.dispatch.stopping:
            for host in self._used:
                self._take(host, attempt, done)
            if set(self._homes) != {host.entry.number for host in self._used}:
                self.busy_of = {}
        with self.dispatch.locked():
            for host in self._used:
                host.ask(None, OVER)
            self._used = []
        done.device_losses = dict.fromkeys(devices, 0.0) | done.device_losses
        return done

    def named(self, device: int) -> dict[str, str] | None:
        """Return the trunk server of a device in the open round, and its token there; None where it has none."""
        return self._named.get(device)

    def start(self, server: int) -> Body:
        """Return the adapters with which a server's copies begin."""
        if server not in self._starts:
            raise Refused(409, f"server {server} has no part in the round")
        return self._starts[server]

    def copy_bytes(self, device: int) -> int:
        """Return the bytes of the body with the copy of a device."""
        row = self.local.servers.row(device)
        return adapter_body_bytes(row.numel(), row.element_size() * 8)

    def keep(self, host: TrunkHost, order: TrunkOrder, device: int, body: Body) -> None:
        """Take the copy of a device.

        Raises:
            WireError: the body is none.
            Refused: 409, of a device that is not served there.
        """
        places = {first: copy for copy, first in self.local.servers.copies(order.devices).items()}
        if device not in places:
            raise Refused(409, f"device {device} has no copy of its own at trunk server {host.name}")
        message, row = decode(body), self.local.servers.row(device)
        sound = isinstance(message, AdapterFrame) and (message.round, message.device) == (order.round, device)
        if not sound or not isinstance(message, AdapterFrame):
            raise WireError(f"another body came where the copy of device {device} was agreed")
        if len(message.values) != row.numel() or message.values.dtype.itemsize != row.element_size():
            raise WireError(f"{len(message.values)} values came; {row.numel()} were agreed")
        host.copies[places[device]] = message.values

    def _start(self, round: int, server: int, state: State) -> Body:
        stack = self.local.servers.trunks[server].segment.stack
        values = [state[name].reshape(-1).to(stack.values) for name in stack.slots]
        if not values:
            return b""
        return encode(AdapterFrame(round, server, 0, torch.cat(values).cpu().numpy()))

    def _wait_for(self, round: int, servers: Sequence[int]) -> None:
        """Wait for the trunk servers of these numbers; for those that never came no longer than others may."""
        hosts, clock = self.hosts, self.dispatch.clock
        until, shown = clock() + self.gather, False

        def enough() -> bool:
            nonlocal shown
            living = {host.entry.number for host in hosts.living()}
            came = {host.entry.number for host in hosts.hosts.values()}
            missing = set(servers) - living - came - self._given_up
            if living and (not missing or clock() >= until):
                self._given_up |= missing
                return True
            if not shown:
                shown = True
                wanted = ", ".join(map(str, sorted(missing or set(servers))))
                hosts.notify(
                    f"round {round + 1}: waiting for trunk servers {wanted} ({len(living)} are here)"
                )
            return False

        self.dispatch.wait_until(enough)

    def _gone(self) -> list[str]:
        return [host.name for host in self._used if not self.hosts.alive(host)]

    def _note_gone(self, round: int, attempt: int) -> bool:
        """Note the trunk servers that an opening has lost, or that hand nothing over; return whether there are any."""
        with self.dispatch.looked():
            late = [
                host.name
                for host in self._used
                if (host.phase == GATHER and host.report is None)
                or (host.phase == OPEN and host.ready != attempt)
            ]
            self.lost = () if self.dispatch.stopping else tuple(self._gone() or late)
        if self.lost:
            names = ", ".join(self.lost)
            self.hosts.event_log("trunk_server_lost", round=round, attempt=attempt, names=list(self.lost))
            self.hosts.notify(
                f"round {round + 1}, attempt {attempt}: trunk server {names} is gone; the round begins again without it"
            )
        return bool(self.lost)

    def _take(self, host: TrunkHost, attempt: int, done: Steps) -> None:
        """Count what a trunk server did, and put what it trained into the copies here."""
        report, order = host.report, host.order
        assert report is not None and order is not None
        servers = self.local.servers
        for place, device in servers.copies(order.devices).items():
            if place in host.copies:
                with torch.no_grad():
                    servers.row(device).copy_(torch.from_numpy(_own(host.copies[place])))
        done.add(report.steps)
        self.busy += report.busy
        self.busy_of[host.entry.number] = report.busy
        for device, reading in report.readings.items():
            self.stats.add(device, reading)
        with self.dispatch.locked() as session:
            for device in order.devices:
                seat = session.seats.get(device)
                made = report.made.get(device, 0)
                session.progress(device, attempt, made, False, self.dispatch.clock())
                copy = (servers.server_of[device], servers.trunk_of(device).copy_of(device))
                untrained = servers.row(device).numel() > 0 and copy not in host.copies
                if device in report.out or untrained or (seat is not None and made < seat.exchanges):
                    session.drop(device)


def _place(host: TrunkHost, device: int) -> dict[str, str]:
    """Return where a device finds its trunk server, and by which token it is known there."""
    assert host.order is not None
    token = round_token(host.order.key, device)
    return {"name": host.name, "url": host.url, "certificate": host.certificate, "token": token}


def _own(values: NDArray[Any]) -> NDArray[Any]:
    """Return values that may be written to: those of a body may not."""
    return np.array(values)
