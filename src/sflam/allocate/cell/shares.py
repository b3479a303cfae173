"""What a method of problem A decides."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.network.network import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """What a method decides, [K] each.

    Attributes:
        bandwidth: Hz that it sends over.
        power: W.
        clock: Hz.
        subchannels: [K] how many, or None where bandwidth is continuous.
        airtime: share of the time in which it may send, 1 for all of it.
    """

    bandwidth: Floats
    power: Floats
    clock: Floats
    subchannels: Floats | None = None
    airtime: Floats | float = 1.0
