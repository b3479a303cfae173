"""Where the seconds of a device's round go: computing, waiting for the server, and its answers on their way."""

from __future__ import annotations

import time

from sflam.link import machine
from sflam.link.device_report import DeviceReport
from sflam.link.https_client import Link


class Times:
    """Where the seconds of a device's steps went, in one life of it.

    Args:
        link: whose waiting is no computing.
        fetch_s: seconds in which the round's adapters came.
    """

    def __init__(self, link: Link, fetch_s: float = 0.0) -> None:
        self.link, self.fetch_s = link, fetch_s
        self.steps = 0
        self.compute_s = self.receive_s = 0.0
        self._left: int | None = None
        self._began: tuple[float, float, float] | None = None

    def go_on(self) -> None:
        """Steps begin, or begin again after a loss."""
        self._began = time.monotonic(), self.link.asked_s, self.link.received_s

    def rest(self) -> None:
        """The steps are done."""
        assert self._began is not None, "go_on comes first"
        began, asked, received = self._began
        self.compute_s += max(0.0, time.monotonic() - began - (self.link.asked_s - asked))
        self.receive_s += self.link.received_s - received

    def fullest(self) -> None:
        """Memory is at its fullest: what a step keeps for its backward is there."""
        left = machine.memory_left()
        if left is not None:
            self._left = left if self._left is None else min(left, self._left)

    def report(self) -> DeviceReport:
        """Return what the device reports of the round."""
        return DeviceReport(
            steps=self.steps,
            compute_s=self.compute_s,
            receive_s=self.receive_s,
            fetch_s=self.fetch_s,
            memory=machine.peak_memory(),
            memory_left=self._left,
            temperature=machine.temperature(),
            throttled=machine.throttled(),
            battery=machine.battery(),
        )
