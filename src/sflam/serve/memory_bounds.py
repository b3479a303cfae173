"""How many bytes of bodies may be in memory at once, of one device and of all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sflam.errors import Refused


class Bounds:
    """Bytes in flight; used from one thread only.

    Args:
        total: most bytes of all devices together.
        each: most bytes of one device.
    """

    def __init__(self, total: int, each: int) -> None:
        self.total, self.each = total, each
        self.held: Counter[int] = Counter()

    @property
    def bytes(self) -> int:
        """Bytes in flight now."""
        return sum(self.held.values())

    @contextmanager
    def hold(self, device: int, size: int) -> Iterator[None]:
        """Count ``size`` bytes of a device as in flight.

        Raises:
            Refused: 429 above the device's own limit, 503 above that of all.
        """
        if self.held[device] + size > self.each:
            raise Refused(
                429, f"device {device} has bodies of {self.held[device]} bytes in flight; one at a time", 0.2
            )
        if self.bytes + size > self.total:
            raise Refused(503, f"{self.bytes} bytes are in flight, of {self.total}; come again", 0.5)
        self.held[device] += size
        try:
            yield
        finally:
            self.held[device] -= size
