"""Between requests and the trunk, for devices at their own pace: none waits for another device's exchange."""

from __future__ import annotations

import time
from collections.abc import Callable

from sflam.errors import Refused
from sflam.serve.buffered.paced_session import Handed, PacedSession
from sflam.serve.dispatch import Dispatch, Request


class PacedDispatch(Dispatch):
    """Arrivals and answers of the devices' own rounds; see :class:`sflam.serve.dispatch.Dispatch`.

    Args:
        paced: the session.
        window: seconds to wait for more arrivals once there is one.
        clock: seconds.
    """

    def __init__(
        self, paced: PacedSession, *, window: float = 0.002, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(paced, window=window, clock=clock)
        self.paced = paced
        self.sent: dict[int, bytes] = {}
        self.downloads = self.sent

    def begin_version(self, version: int) -> None:
        """Updates from now on move the version ``version``."""
        with self.locked():
            self.paced.begin_version(version, self.clock())

    def begin(self, device: int, round: int, attempt: int, exchanges: int, body: bytes) -> None:
        """Open a round of a device, which begins with the adapters in ``body``; see :meth:`PacedSession.begin`."""
        with self.locked():
            self._forget(device, Refused(409, "this round is over; ask for the next"))
            self.sent[device] = body
            self.paced.begin(device, round, attempt, exchanges, self.clock())
            self._publish()

    def take(self) -> Handed | None:
        """Return what was handed in first and not taken yet."""
        with self.locked():
            return self.paced.take()

    def ready(self) -> tuple[int, ...]:
        """Return the devices that are to begin a round."""
        with self.looked():
            return self.paced.ready(self.clock())

    def _due(self, arrival: Request, leg: int) -> bool:
        """Whatever comes is computed: a step between its two exchanges holds up no other device's."""
        return True

    def end(self) -> None:
        """The run is over, also for the devices that are in the middle of a step."""
        with self.locked():
            for device in list(self._futures):
                self._forget(device, Refused(409, "the run is over"))
            super().end()
