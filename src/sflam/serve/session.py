"""Present devices, and the progress of each in the open round: plain functions on state, no HTTP, no clock.

A round is open from :meth:`Session.open` to :meth:`Session.close`. Every request names its round and its attempt;
the attempt grows with every opening, so that nothing meant for an earlier one is taken for this one. A device makes
its exchanges one after another: a step is one exchange, or two with labels on the device (forward, backward).

    fresh      the exchange the server expects: computed once, then answered
    underway   the same exchange again while it is being computed: it waits for the same answer
    again      an exchange of the step just answered: the kept answer is given, nothing is computed
    refused    every other number, round or attempt: 409, and nothing changes

Where the server draws each device's share of a step (``data.sampling = "global"``), a share of zero is no exchange:
exchanges are numbered without gaps, over the steps in which the device has rows.

Time is a number that callers pass in, in seconds; it may stand still but never runs backwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sflam.errors import Refused
from sflam.serve.seat import Seat
from sflam.serve.waited_for import WaitedFor


class Phase(Enum):
    """What the server is doing."""

    WAITING = "waiting"
    OPEN = "open"
    DRAINING = "draining"
    ENDED = "ended"


class Verdict(Enum):
    """How an open round stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    SHORT = "short"  # over, with fewer devices than the quorum, or none that had rows


@dataclass(frozen=True)
class Fresh:
    """Compute this exchange."""


@dataclass(frozen=True)
class Underway:
    """This exchange is being computed; wait for its answer."""


@dataclass(frozen=True)
class Again:
    """This exchange was answered before: with ``answer``."""

    answer: bytes


class Session:
    """The devices of a run and its open round.

    Args:
        quorum: fewest devices whose result a round needs; all of a round with fewer.
        legs: exchanges of a step: 1, or 2 with labels on the device.
        patience: seconds of silence after which a device counts as absent; seconds it has for its next exchange.
        grace: seconds a round took until its quorum was there, and the devices left -> seconds it goes on for them.
    """

    together = True
    """Whether a round is opened and closed for all of its devices at once."""
    filled: tuple[int, int] | None = None
    """Where it is not: the updates that came for the next version, and how many it is made of."""

    def __init__(
        self,
        quorum: int,
        *,
        legs: int = 1,
        patience: float = 60.0,
        grace: Callable[[float, Collection[int]], float] = lambda elapsed, devices: math.inf,
    ) -> None:
        assert quorum >= 1 and legs in (1, 2), (quorum, legs)
        self.quorum, self.legs, self.patience, self.grace = quorum, legs, patience, grace
        self.phase = Phase.WAITING
        self.round = self.attempt = -1
        self.deadline = self.opened = 0.0
        self.met = False
        """Whether the open round has its quorum."""
        self.ordered = False
        """Whether an operator set its end: what devices took does not move it then."""
        self.wanted: tuple[int, ...] = ()
        """Devices that are waited for before a round opens."""
        self.until: float | None = None
        """When that wait ends; None where it has no end."""
        self.fewest = quorum
        """Devices that the next round needs."""
        self.seats: dict[int, Seat] = {}
        self.samples: dict[int, int] = {}
        """Samples each device reported, of the devices that ever came."""
        self.informed: set[int] = set()
        """Devices that know that the run has ended."""
        self.elsewhere = False
        """Whether trunk servers answer the steps, and what comes here is what was trained."""
        self._heard: dict[int, float] = {}

    def hello(self, device: int, samples: int, now: float) -> None:
        """Let a device in, or in again; it holds ``samples`` samples.

        Raises:
            Refused: it is in the open round with another number of samples.
        """
        before = self.samples.get(device, samples)
        if before != samples and device in self.seats and self.seats[device].active:
            raise Refused(
                409,
                f"device {device} joined round {self.round} with {before} samples and now has {samples}; wait for the "
                "next round, or bring the same data",
                retry=5.0,
            )
        self.samples[device] = samples
        if device in self.seats:
            self.seats[device].renew(now)
        self.heard(device, now)

    def heard(self, device: int, now: float) -> None:
        """Note a sign of life."""
        self._heard[device] = max(now, self._heard.get(device, now))

    def present(self, now: float) -> tuple[int, ...]:
        """Return the devices heard of within the last ``patience`` seconds, ascending.

        One whose exchange is being computed waits for the server, and so is here.
        """
        waiting = {device for device, seat in self.seats.items() if seat.computing}
        return tuple(sorted(d for d, at in self._heard.items() if now - at <= self.patience or d in waiting))

    def leave(self, device: int) -> None:
        """Note that a device is away until it comes again; what it reported stays."""
        self._heard.pop(device, None)

    def silence(self, device: int, now: float) -> float | None:
        """Return the seconds since a device was heard of; None where it never was."""
        return max(0.0, now - self._heard[device]) if device in self._heard else None

    def silent(self, now: float) -> set[int]:
        """Return the devices that came once, and have been waited for in vain since."""
        return self._heard.keys() - set(self.present(now))

    def wait_for(self, devices: Collection[int], until: float | None, fewest: int | None = None) -> None:
        """Note who is waited for before a round opens, until when, and how many it needs: the quorum by default."""
        self.wanted, self.until, self.fewest = tuple(sorted(devices)), until, fewest or self.quorum

    def open(
        self,
        round: int,
        attempt: int,
        exchanges: Mapping[int, int],
        deadline: float,
        shares: Mapping[int, Sequence[int]] | None = None,
        now: float = math.inf,
    ) -> None:
        """Open a round.

        Args:
            round: its number.
            attempt: a number above that of every opening before.
            exchanges: device -> how many exchanges it will make, 0 or more.
            deadline: when it is over, finished or not.
            shares: device -> its rows in each step of the fleet, where the server draws them.
            now: devices have ``patience`` from now on for their first exchange; as long as they like by default.
        """
        assert self.phase is Phase.WAITING and not self.seats, self.phase
        assert attempt > self.attempt and len(exchanges) >= 1, (attempt, self.attempt)
        self.round, self.attempt, self.deadline = round, attempt, deadline
        self.opened, self.met, self.ordered, own = now, False, False, shares or {}
        self.wait_for((), None)
        self.seats = {
            d: Seat(count, tuple(own.get(d, ())), since=now) for d, count in sorted(exchanges.items())
        }
        self.phase = Phase.OPEN

    def place_of(self, device: int) -> tuple[int, int]:
        """Return the round that a device is in, or was last, and the attempt of its opening."""
        return self.round, self.attempt

    def asked(self, device: int, after: int, now: float) -> None:
        """Note that a device asks for an opening after that with the attempt ``after``."""

    def seat(self, device: int, round: int, attempt: int) -> Seat:
        """Return the seat of a device in the open round it names.

        Raises:
            Refused: another round is open, or none; or the device has no part in it.
        """
        if self.phase is Phase.DRAINING:
            raise Refused(503, "the server is stopping; try again later", retry=5.0)
        if self.phase is not Phase.OPEN or (round, attempt) != self.place_of(device):
            now, opening = self.place_of(device)
            raise Refused(
                409,
                f"round {round}, attempt {attempt} is not open (now {self.phase.value}: round {now}, attempt "
                f"{opening}); ask for the round",
            )
        if device not in self.seats or self.seats[device].out:
            raise Refused(409, f"device {device} has no part in round {round}; wait for the next")
        return self.seats[device]

    def exchange(
        self, device: int, round: int, attempt: int, number: int, now: float, seal: bytes = b""
    ) -> Fresh | Underway | Again:
        """Take an exchange of a device, whose body has the digest ``seal``; return what to do with it.

        Raises:
            Refused: it is not this round's, neither the next exchange nor one of the step just answered, or another
                body than was taken for it before.
        """
        seat = self.check(device, round, attempt, number)
        seat.expect_same(device, number, seal)
        self.heard(device, now)
        if number < seat.next:
            seat.renew(now)
            return Again(seat.answers[number])
        if seat.computing:
            return Underway()
        if number % self.legs == 0:
            seat.answers.clear()  # the device has moved on, so it has the answers of the step before
            seat.seals.clear()
        seat.seals[number] = seal
        seat.computing = True
        return Fresh()

    def check(self, device: int, round: int, attempt: int, number: int) -> Seat:
        """Return the seat where :meth:`exchange` would take ``number``, changing nothing; raises Refused if not."""
        seat = self.seat(device, round, attempt)
        if self.elsewhere:
            raise Refused(
                403,
                "steps of this run go to the trunk servers that GET /v1/round names; use the same version of sflam on "
                "all sides",
            )
        if number in seat.answers or (number == seat.next < seat.exchanges):
            return seat
        kind = "was answered long ago" if number < seat.next else "is not due"
        raise Refused(
            409, f"exchange {number} {kind}; the next of device {device} is {seat.next} of {seat.exchanges}"
        )

    def answer(self, device: int, attempt: int, number: int, body: bytes, now: float = math.inf) -> bool:
        """Keep the answer of a fresh exchange; return False when its round is over or the device was dropped."""
        seat = self.seats.get(device)
        if seat is None or attempt != self.place_of(device)[1] or seat.out:
            return False
        if not seat.computing or number != seat.next:
            return False
        seat.answers[number] = body
        seat.since = now
        seat.next += 1
        seat.computing = False
        if now < math.inf:  # it was here while it waited for this, however long that was
            self.heard(device, now)
        return True

    def deliver(
        self, device: int, round: int, attempt: int, result: Any, now: float, seal: bytes = b""
    ) -> bool:
        """Take what a device trained; return False when it had delivered before (the first one counts).

        Raises:
            Refused: it is not this round's, the device has exchanges left, or it delivered something else before.
        """
        assert result is not None
        seat = self.check_done(device, round, attempt)
        seat.expect_same(device, seat.exchanges, seal)
        self.heard(device, now)
        if seat.result is not None:
            return False
        seat.result, seat.computing = result, False
        seat.answers.clear()
        seat.seals = {seat.exchanges: seal}
        if not self.met and self.enough:
            self.met = True
            left = [other for other, seat in self.seats.items() if seat.active]
            if left and not self.ordered:
                self.deadline = min(self.deadline, now + self.grace(now - self.opened, left))
        return True

    def check_done(self, device: int, round: int, attempt: int) -> Seat:
        """Return the seat where :meth:`deliver` would take a result, changing nothing; raises Refused if not."""
        seat = self.seat(device, round, attempt)
        if seat.next < seat.exchanges and not self.elsewhere:
            raise Refused(
                409,
                f"device {device} is at exchange {seat.next} of {seat.exchanges}; adapters come after the last",
            )
        return seat

    def progress(self, device: int, attempt: int, next: int, waiting: bool, now: float) -> None:
        """Note how far a device is with its steps elsewhere, and whether one of it is being answered there."""
        seat = self.seats.get(device)
        if attempt != self.attempt or seat is None or not seat.active:
            return
        if next > seat.next or waiting:
            seat.since = now
            self.heard(device, now)
        seat.next, seat.computing = min(max(seat.next, next), seat.exchanges), waiting

    def end_at(self, deadline: float) -> None:
        """Let an operator set when the open round is over."""
        self.deadline, self.ordered = deadline, True

    def drop(self, device: int) -> None:
        """Go on without a device in the open round; it may take part in the next."""
        if device in self.seats:
            seat = self.seats[device]
            seat.out, seat.computing, seat.result = True, False, None
            seat.answers.clear()

    def at_work(self, now: float) -> tuple[int, ...]:
        """Return the devices that the open round waits for, ascending: active, here, and in time with what is next.

        A device has ``patience`` seconds for its next exchange, whatever else it asks meanwhile, and four times as many
        while the body of it arrives.
        """
        here = set(self.present(now))

        def in_time(seat: Seat) -> bool:
            spent = now - seat.since
            return (
                seat.computing
                or spent <= self.patience
                or (seat.receiving > 0 and spent <= 4 * self.patience)
            )

        return tuple(d for d, seat in self.seats.items() if d in here and seat.active and in_time(seat))

    def awaited(self, now: float) -> tuple[int, ...]:
        """Return the devices at work in the open round that have exchanges left, ascending."""
        return tuple(d for d in self.at_work(now) if self.seats[d].next < self.seats[d].exchanges)

    @property
    def delivered(self) -> int:
        """How many devices have delivered in the open round."""
        return sum(seat.result is not None for seat in self.seats.values())

    @property
    def enough(self) -> bool:
        """Whether a quorum has delivered; devices without rows alone are none, as there is nothing to average."""
        rows = any(seat.exchanges for seat in self.seats.values() if seat.result is not None)
        return self.delivered >= min(self.quorum, len(self.seats)) and rows

    def waited_for(self, now: float) -> WaitedFor:
        """Return what the server waits for."""
        present = len(self.present(now))
        if self.phase is not Phase.OPEN:
            left = None if self.until is None else max(0.0, self.until - now)
            return WaitedFor(
                self.wanted, left, present, self.phase is Phase.WAITING and present >= self.fewest
            )
        active = tuple(device for device, seat in self.seats.items() if seat.active)
        needed = min(self.quorum, len(self.seats))
        enough = self.enough or self.delivered + len(self.at_work(now)) >= needed
        return WaitedFor(active, max(0.0, self.deadline - now), present, enough)

    def verdict(self, now: float) -> Verdict:
        """Return whether the open round goes on, is complete, or is over without its quorum.

        Once there is a quorum, only devices at work are waited for, and they no longer than the grace.
        """
        active = any(seat.active for seat in self.seats.values())
        if now < self.deadline and active and (not self.enough or self.at_work(now)):
            return Verdict.RUNNING
        return Verdict.COMPLETE if self.enough else Verdict.SHORT

    def close(self) -> dict[int, Any]:
        """Close the round, forget every kept answer, and return device -> what it delivered."""
        results = {d: seat.result for d, seat in self.seats.items() if seat.result is not None}
        self.seats = {}
        if self.phase is Phase.OPEN:
            self.phase = Phase.WAITING
        return results

    def drain(self) -> None:
        """Take nothing more: the server goes down, and may come back."""
        if self.phase is not Phase.ENDED:
            self.phase = Phase.DRAINING

    def end(self) -> None:
        """The run is over; devices may leave."""
        self.seats = {}
        self.phase = Phase.ENDED
