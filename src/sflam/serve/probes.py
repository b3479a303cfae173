"""Short probes of the ways to devices: a body down and one up, before a round opens.

Used under the lock of :class:`sflam.serve.dispatch.Dispatch`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

SIZE, SHORT = 1 << 16, 1 << 14
"""Bytes of a probe, each way: where nothing is known of a way, and where it is only to be known again."""
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
        asked: those that are asked for one now, and its bytes.
        notified: of them those that know.
        found: device -> what its probe found.
        body: what goes down.
    """

    able: set[int] = field(default_factory=set)
    asked: dict[int, int] = field(default_factory=dict)
    notified: set[int] = field(default_factory=set)
    found: dict[int, LinkProbe] = field(default_factory=dict)
    body: bytes = field(default_factory=lambda: os.urandom(SIZE))

    def ask(self, sizes: Mapping[int, int]) -> None:
        """Ask devices for a probe of so many bytes each, those that know what it is."""
        self.asked = {device: min(size, SIZE) for device, size in sizes.items() if device in self.able}
        self.notified = set()

    def end(self) -> None:
        """Ask for none any more."""
        self.asked, self.notified = {}, set()

    def note(self, device: int, probe: LinkProbe) -> None:
        """A device's probe is done."""
        self.found[device] = probe
        self.asked.pop(device, None)
