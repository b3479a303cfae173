"""Short probes of the ways to devices of which nothing was measured yet: a body down and one up, before a round opens.

Used under the lock of :class:`sflam.serve.dispatch.Dispatch`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field

SIZE = 1 << 16
"""Bytes of a probe, each way."""
SECONDS = 15.0
"""Most that probes are waited for."""


@dataclass(frozen=True)
class LinkProbe:
    """What a probe found.

    Attributes:
        size: bytes, each way.
        up_s: s in which the body came.
        link_s: of those its own part, where bodies of others came at the same time.
        down_s: s in which the body went, as the device reports.
    """

    size: int
    up_s: float
    link_s: float
    down_s: float


@dataclass
class Probes:
    """Who is asked for a probe, and what was found.

    Attributes:
        able: devices that know what a probe is.
        asked: those that are asked for one now.
        notified: of them those that know.
        found: device -> what its probe found.
        body: what goes down.
    """

    able: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    notified: set[int] = field(default_factory=set)
    found: dict[int, LinkProbe] = field(default_factory=dict)
    body: bytes = field(default_factory=lambda: os.urandom(SIZE))

    def ask(self, devices: Collection[int]) -> None:
        """Ask devices for a probe, those that know what it is."""
        self.asked = set(devices) & self.able
        self.notified = set()

    def end(self) -> None:
        """Ask for none any more."""
        self.asked, self.notified = set(), set()

    def note(self, device: int, probe: LinkProbe) -> None:
        """A device's probe is done."""
        self.found[device] = probe
        self.asked.discard(device)
