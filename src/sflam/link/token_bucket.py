"""Pacing: bytes go no faster than a rate, but for a burst after a pause."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_S = 0.05
"""Seconds of the rate that may go at once."""
LEAST, MOST = 1 << 11, 1 << 16
"""Bytes of a piece."""


class TokenBucket:
    """A bucket that fills at a rate and holds one burst; a piece goes once it holds as much.

    Args:
        rate: bit/s, above 0.
        clock: seconds, as :func:`time.monotonic`.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rate, self.clock, self.sleep = rate / 8, clock, sleep
        self.piece = int(min(max(self.rate * BURST_S, LEAST), MOST))
        self._free = clock() - self.piece / self.rate
        """When the bucket was, or will be, empty."""

    def take(self, size: int) -> None:
        """Wait until ``size`` bytes may go."""
        now = self.clock()
        self._free = max(self._free, now - self.piece / self.rate) + size / self.rate
        if self._free > now:
            self.sleep(self._free - now)
