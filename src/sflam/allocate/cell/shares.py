"""What a method of problem A decides."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.network.network import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Shares:
    """What a method decides, [K] each.

    Attributes:
        bandwidth: Hz.
        power: W.
        clock: Hz.
        subchannels: [K] how many, or None where bandwidth is continuous.
    """

    bandwidth: Floats
    power: Floats
    clock: Floats
    subchannels: Floats | None = None
