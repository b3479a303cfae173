"""Devices at their own pace: each is in a round of its own, which no other device's ends.

To a device that is a round as any other: it fetches what the round begins with, makes its steps, hands in what it
trained, and asks for the next. The number of its round counts its own cycles; attempts count the openings of all, so
that nothing meant for an earlier one is taken for a later one.

A device that asks for an opening after the one it is in has given that up, for example as it lost its part of it: its
cycle is begun anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sflam.serve.seat import Seat
from sflam.serve.session import Phase, Session, Verdict
from sflam.serve.waited_for import WaitedFor

PAUSE = 1.0
"""Least seconds between two openings of one cycle."""


@dataclass(frozen=True)
class Handed:
    """What a device handed in.

    Attributes:
        device: whose it is.
        result: what was checked.
        now: when it came.
    """

    device: int
    result: Any
    now: float


class PacedSession(Session):
    """The devices of a run, and the round that each is in; see :class:`sflam.serve.session.Session`.

    Args:
        legs: exchanges of a step.
        patience: seconds of silence after which a device counts as absent.
    """

    together = False

    def __init__(self, *, legs: int = 1, patience: float = 60.0) -> None:
        super().__init__(1, legs=legs, patience=patience)
        self.came: deque[Handed] = deque()
        """What devices handed in and is not taken yet, in the order in which it came."""
        self.may_begin: Callable[[], Callable[[int], bool]] = lambda: lambda device: True
        """Returns whether a device may begin a round now, whatever it does itself."""
        self._places: dict[int, tuple[int, int]] = {}
        self._over: dict[int, tuple[tuple[int, int], Seat]] = {}

    def begin_version(self, version: int, now: float) -> None:
        """Updates from now on move the version ``version``, from 0."""
        self.round, self.opened, self.phase = version, now, Phase.OPEN
        self.wait_for((), None)

    def begin(self, device: int, round: int, attempt: int, exchanges: int, now: float) -> None:
        """Open a round of a device.

        Args:
            device: whose.
            round: its number.
            attempt: a number above that of every opening before.
            exchanges: how many it will make.
            now: it has its patience from now on for its first exchange.
        """
        assert attempt > self.attempt and self.phase is Phase.OPEN, (attempt, self.attempt, self.phase)
        self.attempt = attempt
        self._places[device] = round, attempt
        self.seats[device] = Seat(exchanges, since=now)

    def take(self) -> Handed | None:
        """Return what came first and was not taken, whose device may then begin anew; None where there is nothing."""
        if not self.came:
            return None
        handed = self.came.popleft()
        seat = self.seats.pop(handed.device)
        seat.result = True  # it is answered again as it was, should the device ask again
        self._over[handed.device] = self._places[handed.device], seat
        return handed

    def ready(self, now: float) -> tuple[int, ...]:
        """Return the devices that are here and may begin a round, ascending."""
        idle = [device for device in self.present(now) if device in self.samples and self._idle(device, now)]
        if not idle:
            return ()
        may = self.may_begin()
        return tuple(device for device in idle if may(device))

    def _idle(self, device: int, now: float) -> bool:
        seat = self.seats.get(device)
        return seat is None or (seat.out and now - seat.since >= PAUSE)

    def place_of(self, device: int) -> tuple[int, int]:
        """Return the round that a device is in, or was last, and the attempt of its opening."""
        return self._places.get(device, (self.round, self.attempt))

    def asked(self, device: int, after: int, now: float) -> None:
        """Take a device that asks for what comes after its opening out of it."""
        seat = self.seats.get(device)
        if seat is not None and seat.active and 0 < self._places[device][1] <= after:
            self.drop(device)

    def drop(self, device: int) -> None:
        """End a device's round without a result; it is begun anew."""
        self.came = deque(handed for handed in self.came if handed.device != device)
        super().drop(device)

    def seat(self, device: int, round: int, attempt: int) -> Seat:
        """Return the seat of a device in its round, also in the one that it has just ended; raises Refused."""
        place, seat = self._over.get(device, ((-1, -1), None))
        if seat is not None and place == (round, attempt) and self.phase is Phase.OPEN:
            return seat
        return super().seat(device, round, attempt)

    def deliver(
        self, device: int, round: int, attempt: int, result: Any, now: float, seal: bytes = b""
    ) -> bool:
        """Take what a device trained; return False when it had delivered before; raises Refused."""
        first = super().deliver(device, round, attempt, result, now, seal)
        if first:
            self.came.append(Handed(device, result, now))
        return first

    @property
    def enough(self) -> bool:
        """Whether a round of all devices could be closed: there is none."""
        return False

    def waited_for(self, now: float) -> WaitedFor:
        """Return what the server waits for: any device at work."""
        present = self.present(now)
        return WaitedFor((), None, len(present), self.phase is Phase.OPEN and bool(present))

    def verdict(self, now: float) -> Verdict:
        """Return whether there is nothing but exchanges to do."""
        return Verdict.COMPLETE if self.came or self.ready(now) else Verdict.RUNNING
