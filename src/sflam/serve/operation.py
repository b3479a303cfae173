"""What an operator sees of a served run, and does to it: devices by name, no HTTP.

Everything done is an event of the run, with the operator's name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sflam.errors import Refused
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.orders import Orders
from sflam.serve.repartition import Repartition
from sflam.serve.roster import Roster
from sflam.serve.roster_entry import Entry
from sflam.serve.seat import Seat
from sflam.serve.session import Phase, Session
from sflam.serve.trunks.association import Association

LONGEST = 1e7
"""Seconds a round may be given."""
DAY = 86400.0


class RunOperation:
    """A served run as its operators have it; slow where it waits for the roster's lock.

    Args:
        dispatch: the session and its lock.
        roster: the devices by name.
        orders: what stays in force.
        event_log: one line per act.
        devices: places there are.
    """

    def __init__(
        self, dispatch: Dispatch, roster: Roster, orders: Orders, event_log: EventLog, devices: int
    ) -> None:
        self.dispatch, self.roster, self.orders = dispatch, roster, orders
        self.event_log, self.devices = event_log, devices
        self.renews: Mapping[str, bool] = {}
        """Name -> whether the device renews its token, of those that came; empty where none are renewed."""

        self.cuts: Repartition | None = None
        """Which cut each device has; None where none may move."""
        self.association: Association | None = None
        """Which trunk server each device has; None where none may move."""

    def seen(self) -> dict[str, Any]:
        """Return the run, and every device of the roster by name, as JSON."""
        entries, unix = self.roster.entries(), time.time()
        names = {
            entry.device: name for name, entry in entries.items() if not (entry.revoked or entry.pending)
        }
        with self.dispatch.looked() as session:
            now = self.dispatch.clock()
            waited = session.waited_for(now)
            here = set(session.present(now))
            devices = [
                self._device(entry, session, here, now, unix)
                for entry in sorted(entries.values(), key=lambda entry: (entry.device, entry.name))
            ]
            return {
                "phase": session.phase.value,
                "paused": self.orders.paused,
                "round": session.round + 1,
                "attempt": session.attempt,
                "present": waited.present,
                "places": self.devices,
                "quorum": session.quorum,
                "delivered": session.delivered,
                "waiting": [names.get(device, f"number {device}") for device in waited.devices],
                "seconds": waited.seconds,
                "devices": devices,
            }

    def _device(
        self, entry: Entry, session: Session, here: set[int], now: float, unix: float
    ) -> dict[str, Any]:
        number = entry.device
        seat = session.seats.get(number) if session.phase is Phase.OPEN and not entry.revoked else None
        heard = None if entry.revoked else session.silence(number, now)
        return {
            "name": entry.name,
            "number": number,
            "state": self._state(entry, seat, number in here, heard, unix),
            "drained": entry.name in self.orders.drained,
            "blocks": self.cuts.cuts[number] if self.cuts and 0 <= number < self.devices else None,
            "server": self.association.in_force[number]
            if self.association and 0 <= number < self.devices
            else None,
            "exchange": seat.next if seat else None,
            "exchanges": seat.exchanges if seat else None,
            "samples": None if entry.revoked else session.samples.get(number),
            "silent_s": None if heard is None else round(heard, 1),
            "days_left": round((entry.ends - unix) / DAY, 1),
            "bound": bool(entry.certificate),
            "renews": self.renews.get(entry.name),
            "renewing": bool(entry.next_sha256),
        }

    def _state(self, entry: Entry, seat: Seat | None, here: bool, heard: float | None, unix: float) -> str:
        if entry.revoked:
            return "revoked"
        if entry.pending:
            return "waits for approval"
        if unix >= entry.ends:
            return "expired"
        if entry.device >= self.devices:
            return "beyond the job's places"
        if seat is not None and seat.result is not None:
            return "delivered"
        if seat is not None and seat.active:
            return "at work" if here else "silent"
        if entry.name in self.orders.drained:
            return "drained"
        if seat is not None:
            return "left out"
        return "waits" if here else "never came" if heard is None else "absent"

    def approve(self, by: str, names: Sequence[str]) -> str:
        """Give places to devices that enrolled themselves; raises Refused, 409, where none is left."""
        self._entries(names)
        self.roster.approve(names, self.devices)
        self.event_log("approve", by=by, names=list(names))
        return f"{_listed(names)}: approved"

    def unbind(self, by: str, names: Sequence[str]) -> str:
        """Let devices' tokens be bound anew, to the certificates that they come with next."""
        self._entries(names)
        self.roster.unbind(names)
        self.event_log("unbind", by=by, names=list(names))
        return f"{_listed(names)}: bound to the certificate it comes with next"

    def pause(self, by: str) -> str:
        """Let the open round end, and no other begin."""
        return self._paused(by, True)

    def resume(self, by: str) -> str:
        """Go on after a pause."""
        return self._paused(by, False)

    def _paused(self, by: str, paused: bool) -> str:
        with self.dispatch.locked() as session:
            already = self.orders.paused == paused
            self.orders.pause(paused)
            running, number = session.phase is Phase.OPEN, session.round + 1
        self.event_log("pause" if paused else "resume", by=by)
        if already:
            return "it was paused already" if paused else "it was not paused"
        if not paused:
            return "goes on"
        return f"round {number} ends, and no other begins" if running else "no round begins"

    def drain(self, by: str, names: Sequence[str]) -> str:
        """Let devices finish their round, and begin no other."""
        self._entries(names)
        with self.dispatch.locked() as session:
            self.orders.drain(names)
            busy = sorted(name for name in names if self._seat(session, name))
        self.event_log("drain", by=by, names=list(names))
        after = f" after round {session.round + 1}" if busy else ""
        return f"{_listed(names)}: no further round{after}"

    def undrain(self, by: str, names: Sequence[str]) -> str:
        """Let drained devices take part again, from the next round on."""
        self._entries(names)
        with self.dispatch.locked():
            self.orders.undrain(names)
        self.event_log("undrain", by=by, names=list(names))
        return f"{_listed(names)}: in again from the next round on"

    def cut(self, by: str, names: Sequence[str], blocks: int | None) -> str:
        """Give devices so many blocks from the next round on; None lets them have those that they had without orders.

        Raises:
            Refused: 404 or 409 as for any order; 409 where no cut may move, 422 for blocks that a device may not have.
        """
        entries = self._entries(names)
        if self.cuts is None:
            raise Refused(
                409,
                'cuts of this run stay as they are; serve a job with repartition.mode = "ordered" or "overload"',
            )
        for name in names:
            number = entries[name].device
            if not 0 <= number < len(self.cuts.allowed):
                raise Refused(409, f"{name} has no place in this job")
            may = self.cuts.allowed[number]
            if blocks is not None and (type(blocks) is not int or blocks not in may):
                raise Refused(
                    422,
                    f"{name} may have {may[0]} to {may[-1]} blocks, from repartition.least_cut to its cut in the job; "
                    f"{str(blocks)[:20]} were given",
                )
        with self.dispatch.locked():
            self.orders.cut(names, blocks)
        self.event_log("cut", by=by, names=list(names), blocks=blocks)
        if blocks is None:
            return f"{_listed(names)}: no longer ordered, from the next round on"
        return f"{_listed(names)}: {blocks} block{'s' * (blocks != 1)} from the next round on"

    def server(self, by: str, names: Sequence[str], number: int | None) -> str:
        """Give devices a trunk server from the next round on; None leaves theirs to the run again.

        Raises:
            Refused: 404 or 409 as for any order; 409 where no device may move, 422 for a server that the job has not.
        """
        entries = self._entries(names)
        if self.association is None:
            raise Refused(
                409,
                "devices of this run stay at their servers; serve a job of several fleet.servers with "
                'association.mode = "ordered" or "measured"',
            )
        for name in names:
            if not 0 <= entries[name].device < self.devices:
                raise Refused(409, f"{name} has no place in this job")
        servers = self.association.servers
        if number is not None and (type(number) is not int or number not in servers):
            raise Refused(
                422,
                f"the servers of this job are {', '.join(map(str, servers))}, as fleet.servers names them; "
                f"{str(number)[:20]} was given",
            )
        with self.dispatch.locked():
            self.orders.server(names, number)
        self.event_log("server", by=by, names=list(names), server=number)
        if number is None:
            return f"{_listed(names)}: no longer ordered, from the next round on"
        return f"{_listed(names)}: at server {number} from the next round on"

    def kick(self, by: str, names: Sequence[str]) -> str:
        """Take devices out of the open round, at once; raises Refused, 409, where none of them is in one."""
        entries = self._entries(names)
        with self.dispatch.locked() as session:
            seated = [name for name in names if self._seat(session, name)]
            if not seated:
                raise Refused(
                    409, f"{_listed(names)} has no part in a round; drain keeps a device out of the next"
                )
            self.orders.kick(seated, session.round, session.attempt)
            for name in seated:
                self.dispatch.drop(entries[name].device, "the operator took this device out of the round")
            enough = session.waited_for(self.dispatch.clock()).enough
            number = session.round
        self.event_log("kick", by=by, names=seated, round=number)
        follows = "it goes on without" if enough else "it is opened again without, as its quorum is gone"
        return f"{_listed(seated)}: out of round {number + 1}; {follows}"

    def revoke(self, by: str, names: Sequence[str]) -> str:
        """Take devices' tokens back, and the devices out of the open round."""
        entries = self._entries(names)
        for name in names:
            self.roster.revoke(name)
        with self.dispatch.locked() as session:
            seated = [name for name in names if self._seat(session, name, entries[name])]
            if seated:
                self.orders.kick(seated, session.round, session.attempt)
            for name in seated:
                self.dispatch.drop(entries[name].device, "the token of this device was revoked")
        self.event_log("revoke", by=by, names=list(names))
        return f"{_listed(names)}: revoked"

    def deadline(self, by: str, seconds: float) -> str:
        """Let the open round last so many seconds from now; raises Refused, 409, without one, 422 for no number."""
        if not (type(seconds) in (int, float) and math.isfinite(seconds) and 0 < seconds <= LONGEST):
            raise Refused(422, f"a deadline is {LONGEST:g} seconds from now at most, and more than 0")
        with self.dispatch.locked() as session:
            number = self._open_round(session)
            session.end_at(self.dispatch.clock() + seconds)
        self.event_log("deadline", by=by, round=number, seconds=seconds)
        return f"round {number + 1} ends {seconds:g} s from now at the latest"

    def close(self, by: str) -> str:
        """Close the open round with what was delivered; raises Refused, 409, below its quorum."""
        with self.dispatch.locked() as session:
            number = self._open_round(session)
            if not session.enough:
                needed = min(session.quorum, len(session.seats))
                raise Refused(
                    409,
                    f"{session.delivered} of at least {needed} devices have delivered in round {number + 1}; wait, or "
                    "kick those that will not",
                )
            session.end_at(self.dispatch.clock())
            delivered = session.delivered
        self.event_log("close", by=by, round=number)
        return f"round {number + 1} is closed with what {delivered} devices delivered"

    @staticmethod
    def _open_round(session: Session) -> int:
        if session.phase is not Phase.OPEN:
            raise Refused(409, f"no round is open (now {session.phase.value})")
        if not session.together:
            raise Refused(
                409, "devices of this run work at their own pace, so it has no round that could be closed"
            )
        return session.round

    def _seat(self, session: Session, name: str, entry: Entry | None = None) -> Seat | None:
        """Return the seat of a device in the open round, unless it is out of it."""
        entry = entry or self.roster.known()[name]
        seat = session.seats.get(entry.device) if session.phase is Phase.OPEN else None
        return seat if seat is not None and not seat.out else None

    def _entries(self, names: Iterable[str]) -> dict[str, Entry]:
        """Return the devices named; raises Refused: 404 for one not in the roster, 409 for one revoked."""
        entries = self.roster.entries()
        for name in names:
            if name not in entries:
                known = ", ".join(sorted(entries)) or "none"
                raise Refused(404, f"no device {name!r}; there are {known[:300]}")
            if entries[name].revoked:
                raise Refused(409, f"{name} is revoked; sflam enrol {name} gives it a new token")
        return {name: entries[name] for name in names}


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
