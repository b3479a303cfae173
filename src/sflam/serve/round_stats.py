"""What the network did in the open round, as the server sees it: bytes of bodies and seconds, per device.

received  a body arrived: its bytes, and the seconds from its headers to its last byte
away      seconds between an answer and the next request: the device at work, and both ways of the network
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass
class Reading:
    """What was measured of one device.

    Attributes:
        bytes_up: bytes of bodies that came, repeated ones included.
        bytes_down: bytes of bodies that went.
        upload_s: seconds in which bodies came.
        away_s: seconds between answers and the next request.
        finish_s: seconds from the opening of the round to the device's adapters; 0 where they did not come.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    upload_s: float = 0.0
    away_s: float = 0.0
    finish_s: float = 0.0


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
        self._began = clock()

    def begin(self) -> None:
        """A round opens."""
        with self._lock:
            self._readings, self._answered, self._began = {}, {}, self.clock()

    def requested(self, device: int) -> None:
        """A device's request for an exchange has come."""
        with self._lock:
            before = self._answered.pop(device, None)
            if before is not None:
                self._of(device).away_s += self.clock() - before

    def received(self, device: int, size: int, seconds: float) -> None:
        """A body of ``size`` bytes came within ``seconds``."""
        with self._lock:
            reading = self._of(device)
            reading.bytes_up += size
            reading.upload_s += seconds

    def sent(self, device: int, size: int) -> None:
        """A body of ``size`` bytes goes."""
        with self._lock:
            self._of(device).bytes_down += size
            self._answered[device] = self.clock()

    def finished(self, device: int) -> None:
        """A device's adapters have come."""
        with self._lock:
            self._of(device).finish_s = self.clock() - self._began

    @property
    def seconds(self) -> float:
        """Since the round opened."""
        with self._lock:
            return self.clock() - self._began

    def readings(self) -> dict[int, Reading]:
        """Return device -> what was measured so far."""
        with self._lock:
            return {device: replace(reading) for device, reading in self._readings.items()}

    def _of(self, device: int) -> Reading:
        return self._readings.setdefault(device, Reading())
