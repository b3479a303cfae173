"""Between requests and the trunk: the session behind one lock, arrivals on one side, answers on the other.

The web application hands bodies in and waits for futures; the worker, in its own thread, collects what has arrived,
computes, and answers. Neither knows the other.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sflam.codec.bodies import Body
from sflam.codec.messages import Message
from sflam.errors import Refused
from sflam.serve.probes import LinkProbe, Probes
from sflam.serve.seat import Seat
from sflam.serve.session import Again, Fresh, Phase, Session, Verdict

TICK = 0.1
"""Seconds after which a waiting worker looks at the clock again."""


@dataclass(frozen=True, eq=False)
class Request:
    """One exchange waiting to be computed.

    Attributes:
        device: who sent it.
        number: which exchange.
        step: the step of the fleet that it belongs to.
        body: its bytes.
        message: what they hold, checked.
    """

    device: int
    number: int
    step: int
    body: Body
    message: Message
    future: Future[bytes]


def sealed(body: Body) -> bytes:
    """Return the digest by which a body is compared with another."""
    return hashlib.blake2b(body, digest_size=16).digest()


class Dispatch:
    """Arrivals and answers of the open round, and the lock of the session.

    Args:
        session: the devices and the open round.
        canonical: compute only when every awaited device has arrived, in the order of their numbers.
        window: seconds to wait for more arrivals once there is one; nothing is waited for when all are there.
        clock: seconds, as :func:`time.monotonic`.

    Attributes:
        by_step: compute the exchanges of one step together, once every awaited device that is at it has arrived, the
            earliest step first: what one copy for all devices learns depends on which rows come together.
        away: entered while the worker waits; with other jobs in its process, these compute meanwhile.
    """

    def __init__(
        self,
        session: Session,
        *,
        canonical: bool = False,
        window: float = 0.002,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session, self.canonical, self.window, self.clock = session, canonical, window, clock
        self.by_step = False
        self.away: Callable[[], AbstractContextManager[object]] = nullcontext
        self.stopping = False
        self._changed = threading.Condition()
        self._arrived: dict[int, Request] = {}
        self._futures: dict[int, Future[bytes]] = {}
        self.downloads: Mapping[int, bytes] = {}
        self.news: Future[None] = Future()
        """Done at the next opening of a round, or end of the run: for those who wait without a thread."""
        self.computed = self.repeated = 0
        self.doing = ""
        """What the server does with what devices delivered, where that takes long; else ""."""
        self.probes = Probes()
        self.moving: set[int] = set()
        """Devices that have another cut than they last announced themselves with."""
        self.pacing: Mapping[int, float] = {}
        """Device -> bit/s that it is to send with in the open round, where a plan gives it any."""

    @contextmanager
    def locked(self) -> Iterator[Session]:
        """Look at the session, or change it, alone; waiting threads look again afterwards."""
        with self._changed:
            yield self.session
            self._changed.notify_all()

    @contextmanager
    def looked(self) -> Iterator[Session]:
        """Look at the session alone, without waking waiting threads."""
        with self._changed:
            yield self.session

    # what requests call

    def heard(self, device: int) -> None:
        """Note a sign of life of a device that has announced itself."""
        with self._changed:
            if device in self.session.samples:
                self.session.heard(device, self.clock())

    @contextmanager
    def receiving(self, seat: Seat) -> Iterator[None]:
        """A body of a device's next exchange, or its adapters, arrive meanwhile."""
        seat.receiving += 1
        try:
            yield
        finally:
            seat.receiving -= 1

    def submit(
        self, device: int, round: int, attempt: int, number: int, body: Body, message: Message
    ) -> Future[bytes]:
        """Hand in a checked exchange; the future holds its answer, at once where it was answered before.

        Raises:
            Refused: the session does not take it.
        """
        seal = sealed(body)
        with self._changed:
            outcome = self.session.exchange(device, round, attempt, number, self.clock(), seal)
            if isinstance(outcome, Again):
                self.repeated += 1
                done: Future[bytes] = Future()
                done.set_result(outcome.answer)
                return done
            if outcome == Fresh():
                future: Future[bytes] = Future()
                self._futures[device] = future
                step = self.session.seats[device].step(number, self.session.legs)
                self._arrived[device] = Request(device, number, step, body, message, future)
                self._changed.notify_all()
            else:
                self.repeated += 1
            return self._futures[device]

    # what the worker calls

    def open(
        self,
        round: int,
        attempt: int,
        exchanges: Mapping[int, int],
        seconds: float,
        downloads: Mapping[int, bytes],
        shares: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """Open a round that lasts at most ``seconds``; see :meth:`Session.open`.

        ``downloads`` are the adapters of each device.
        """
        with self._changed:
            self.downloads = downloads
            now = self.clock()
            self.session.open(round, attempt, exchanges, now + seconds, shares, now)
            self._publish()

    def collect(self, leg: int = 0, group: tuple[int, ...] | None = None) -> list[Request]:
        """Return what is to be computed next, in the order of devices; empty when the round is over.

        Args:
            leg: which exchange of a step.
            group: wait for these devices' alone; those that are absent or dropped meanwhile are left out.
        """
        first = None
        with self.away(), self._changed:
            while not self.stopping:
                now = self.clock()
                if self.session.verdict(now) is not Verdict.RUNNING:
                    return []
                ready = {
                    d: a
                    for d, a in self._arrived.items()
                    if self._due(a, leg) and (group is None or d in group)
                }
                awaited = set(self.session.awaited(now)) & set(self.session.seats if group is None else group)
                if group is not None and not awaited | ready.keys():
                    return []
                if self.by_step and group is None:
                    ready, awaited = self._earliest(ready, awaited)
                first = first or (now if ready else None)
                patient = self.canonical or self.by_step or group is not None
                late = not patient and first is not None and now - first >= self.window
                if ready and (late or awaited <= ready.keys()):
                    return [self._arrived.pop(device) for device in sorted(ready)]
                self._changed.wait(min(TICK, self.window) if ready and not patient else TICK)
        return []

    def _due(self, arrival: Request, leg: int) -> bool:
        """Whether an arrival is what is collected, where that is exchange ``leg`` of a step."""
        return arrival.number % self.session.legs == leg

    def _earliest(self, ready: dict[int, Request], awaited: set[int]) -> tuple[dict[int, Request], set[int]]:
        """Return those of the arrivals and of the awaited devices that are at the earliest step of all of them."""
        seats, legs = self.session.seats, self.session.legs
        due = {d: seats[d].step(seats[d].next, legs) for d in awaited} | {d: a.step for d, a in ready.items()}
        step = min(due.values(), default=0)
        return {d: a for d, a in ready.items() if a.step == step}, {d for d in awaited if due[d] == step}

    def answer(self, arrival: Request, attempt: int, body: bytes) -> bool:
        """Answer an arrival; return False when its round is over or its device was dropped."""
        with self.locked():
            kept = self.session.answer(arrival.device, attempt, arrival.number, body, self.clock())
            self._futures.pop(arrival.device, None)
            self.computed += kept
        if arrival.future.done():  # the server is stopping, and the waiting request is answered
            return kept
        if kept:
            arrival.future.set_result(body)
        else:
            arrival.future.set_exception(Refused(409, f"device {arrival.device} is no longer in this round"))
        return kept

    def drop(self, device: int, reason: str) -> None:
        """Go on without a device."""
        with self.locked():
            self.session.drop(device)
            self._forget(device, Refused(409, reason))

    def wait_over(self) -> None:
        """Wait until the round is over, or the server stops."""
        self.wait_until(lambda: self.session.verdict(self.clock()) is not Verdict.RUNNING)

    def close(self) -> dict[int, Any]:
        """Close the round; return device -> what it delivered."""
        with self.locked():
            for device in list(self._futures):
                self._forget(device, Refused(409, "the round is over; ask for the next"))
            self.downloads = {}
            return self.session.close()

    def wait_present(self, enough: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
        """Wait until the present devices are ``enough``, or the server stops; return them."""
        return self.wait_until(lambda: enough(self.session.present(self.clock())))

    def probe(self, sizes: Mapping[int, int], seconds: float) -> dict[int, LinkProbe]:
        """Ask devices for probes of ``sizes``, wait for those that know them and are present; return what was found."""
        until = self.clock() + seconds
        with self.locked():
            self.probes.ask(sizes)
            self._publish()

        def done() -> bool:
            here = self.session.present(self.clock())
            return not self.probes.asked.keys() & set(here) or self.clock() >= until

        self.wait_until(done)
        with self.locked():
            self.probes.end()
            found, self.probes.found = self.probes.found, {}
        return found

    def wait_moved(self, devices: Collection[int]) -> None:
        """Wait until these devices, those that are here, have taken up their new cuts, or the server stops.

        That is for the patience at most: one that takes longer is waited for in the round, as any other.
        """
        until = self.clock() + self.session.patience
        with self.locked():
            self.moving |= set(devices)
            self._publish()
        here = self.wait_until(
            lambda: not self.moving & set(self.session.present(self.clock())) or self.clock() >= until
        )
        with self.locked():
            self.moving -= set(here)

    def stop(self) -> None:
        """Take nothing more, and wake all waiting threads."""
        with self.locked():
            self.stopping = True
            self.session.drain()
            self._publish()
            for device in list(self._futures):
                self._forget(device, Refused(503, "the server is stopping; try again later", 5.0))

    def end(self) -> None:
        """The run is over."""
        with self.locked():
            if self.session.phase is Phase.OPEN:
                self.session.close()
            self.session.end()
            self._publish()

    def wait_informed(self, seconds: float) -> None:
        """Wait until every present device knows that the run has ended, at most so many seconds."""
        until = self.clock() + seconds
        with self.away(), self._changed:
            while self.clock() < until and set(self.session.present(self.clock())) - self.session.informed:
                self._changed.wait(TICK / 2)

    def wait_until(self, done: Callable[[], bool]) -> tuple[int, ...]:
        """Wait until something is done, or the server stops; return the devices that are present then."""
        with self.away(), self._changed:
            while not self.stopping and not done():
                self._changed.wait(TICK)
            return self.session.present(self.clock())

    def _publish(self) -> None:
        self.news, before = Future(), self.news
        if not before.done():
            before.set_result(None)

    def _forget(self, device: int, why: Refused) -> None:
        self._arrived.pop(device, None)
        future = self._futures.pop(device, None)
        if future and not future.done():
            future.set_exception(why)
