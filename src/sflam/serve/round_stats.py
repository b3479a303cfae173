"""What the network did in the open round, as the server sees it: bytes of bodies and seconds, per device.

received  a body arrived: its bytes, the seconds from its headers to its last byte, and its part of the way it came by:
          of seconds in which n bodies came at once, an nth
away      seconds between an answer and the next request: the device at work, and both ways of the network
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from sflam.link.device_report import DeviceReport
from sflam.serve.timeline import COMPUTES, SENDS, WAITS, RoundTimeline


@dataclass
class Reading:
    """What was measured of one device.

    Attributes:
        bytes_up: bytes of bodies that came, repeated ones included.
        bytes_down: bytes of bodies that went.
        upload_s: seconds in which bodies came.
        link_s: of those its own part, where bodies of others came at the same time.
        away_s: seconds between answers and the next request.
        wait_s: seconds between its bodies and their answers.
        hand_s: of ``upload_s``, those of what it trained.
        bytes_handed: of ``bytes_up``, those of what it trained.
        bytes_fetched: of ``bytes_down``, those of the adapters it began with.
        report: what it reports of the round; None where it does not.
        finish_s: seconds from the opening of the round to the device's adapters; 0 where they did not come.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    upload_s: float = 0.0
    link_s: float = 0.0
    away_s: float = 0.0
    wait_s: float = 0.0
    hand_s: float = 0.0
    bytes_handed: int = 0
    bytes_fetched: int = 0
    report: DeviceReport | None = None
    finish_s: float = 0.0


@dataclass(eq=False)
class BodyOnWay:
    """A body on its way in.

    Attributes:
        device: whose.
        began: when its headers had come, s.
        link_s: its own part of the seconds so far.
    """

    device: int
    began: float
    link_s: float = 0.0


class RoundStats:
    """The readings of the open round; may be used from any thread.

    Args:
        clock: seconds, as :func:`time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._readings: dict[int, Reading] = {}
        self._answered: dict[int, float] = {}
        self._received: dict[int, float] = {}
        self._began = clock()
        self._arriving: list[BodyOnWay] = []
        self._shared = self._began
        self._lines = [RoundTimeline(self._began)]

    def begin(self) -> None:
        """A round opens."""
        with self._lock:
            self._readings, self._answered, self._received, self._began = {}, {}, {}, self.clock()
            before = [line.seen(self._began) for line in self._lines[-1:] if line.strips]
            self._lines = [*before, RoundTimeline(self._began)]

    def requested(self, device: int) -> None:
        """A device's request for an exchange has come."""
        with self._lock:
            before = self._answered.pop(device, None)
            if before is not None:
                self._of(device).away_s += self.clock() - before

    @contextmanager
    def arriving(self, device: int) -> Iterator[BodyOnWay]:
        """A device's body is on its way for as long as the context lasts, and shares the way with all others then."""
        with self._lock:
            self._share()
            arrival = BodyOnWay(device, self._shared)
            self._arriving.append(arrival)
            self._lines[-1].turn(device, SENDS, self._shared)
        try:
            yield arrival
        finally:
            with self._lock:
                self._share()
                self._arriving.remove(arrival)
                self._lines[-1].turn(device, WAITS, self._shared)

    def received(
        self, arrival: BodyOnWay, size: int, *, trained: bool = False, report: DeviceReport | None = None
    ) -> None:
        """A body of ``size`` bytes came, all of it; where it is what a device ``trained``, with its report."""
        with self._lock:
            self._share()
            reading = self._of(arrival.device)
            reading.bytes_up += size
            reading.upload_s += self._shared - arrival.began
            reading.link_s += arrival.link_s
            if not trained:
                self._received[arrival.device] = self._shared
                return
            reading.hand_s += self._shared - arrival.began
            reading.bytes_handed += size
            reading.report = report or reading.report

    def _share(self) -> None:
        """Give each body on its way its part of the seconds since this was last done."""
        now = self.clock()
        for arrival in self._arriving:
            arrival.link_s += (now - self._shared) / len(self._arriving)
        self._shared = now

    def sent(self, device: int, size: int, *, adapters: bool = False) -> None:
        """A body of ``size`` bytes goes: an answer, or the adapters that a device begins with."""
        with self._lock:
            reading, now = self._of(device), self.clock()
            reading.bytes_down += size
            reading.bytes_fetched += size * adapters
            reading.wait_s += now - self._received.pop(device, now)
            self._answered[device] = now
            self._lines[-1].turn(device, COMPUTES, now)

    def finished(self, device: int) -> None:
        """A device's adapters have come."""
        with self._lock:
            now = self.clock()
            self._of(device).finish_s = now - self._began
            self._lines[-1].turn(device, None, now)

    def lines(self, *, over: bool) -> list[RoundTimeline]:
        """Return what devices did in the round before, if there was one, and in this one, until now or until it was
        ``over``."""
        with self._lock:
            if over and self._lines[-1].ended is None:
                self._lines[-1] = self._lines[-1].seen(self.clock())
            return [line.seen(self.clock()) for line in self._lines]

    def add(self, device: int, other: Reading) -> None:
        """Count what a trunk server measured of a device; only it knows when the device was away between steps."""
        with self._lock:
            own = self._of(device)
            own.bytes_up += other.bytes_up
            own.bytes_down += other.bytes_down
            own.upload_s += other.upload_s
            own.link_s += other.link_s
            own.wait_s += other.wait_s
            own.away_s = other.away_s

    @property
    def seconds(self) -> float:
        """Since the round opened."""
        with self._lock:
            return self.clock() - self._began

    def readings(self) -> dict[int, Reading]:
        """Return device -> what was measured so far."""
        with self._lock:
            return {device: replace(reading) for device, reading in self._readings.items()}

    def of(self, device: int) -> Reading:
        """Return what was measured of a device so far."""
        with self._lock:
            return replace(self._of(device))

    def _of(self, device: int) -> Reading:
        return self._readings.setdefault(device, Reading())
