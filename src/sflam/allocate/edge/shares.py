"""What a method of problem B decides, its cost in parts, and its loads. N users, M servers, SI units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sflam.network.network import Floats
from sflam.plan import DevicePlans

Integers = NDArray[np.int64]


def add_up(index: Integers, values: Floats, count: int) -> Floats:
    """Return the sums [count] of the values [n] that have each index."""
    return np.bincount(index, values, minlength=count).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeShares:
    """What a method decides, [N] each.

    Attributes:
        server: index, or ``ALL_LOCAL``.
        split: layers on the user, alpha; Y exactly where the server is ``ALL_LOCAL``.
        bandwidth: Hz; 0 where nothing is sent.
        power: W; 0 where nothing is sent.
        clock: the user's, Hz.
        server_clock: share of the server's clock, Hz; 0 where nothing is sent.
    """

    server: Integers
    split: Integers
    bandwidth: Floats
    power: Floats
    clock: Floats
    server_clock: Floats

    @classmethod
    def from_plan(cls, devices: DevicePlans) -> Self:
        """Return what a plan gives its users."""
        return cls(
            server=devices.server,
            split=devices.cut,
            bandwidth=devices.bandwidth,
            power=devices.power,
            clock=devices.clock,
            server_clock=devices.server_clock,
        )


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The parts of (3.1), as weighted there; no unit.

    Attributes:
        delay: w_t times all users' seconds.
        energy: w_e times all joules.
        instability: w_s times all users' AS.
        fit: w_f times the losses that all users' training reaches.
    """

    delay: float
    energy: float
    instability: float
    fit: float = 0.0

    @property
    def total(self) -> float:
        """The objective."""
        return self.delay + self.energy + self.instability + self.fit


@dataclass(frozen=True, kw_only=True, eq=False)
class Loads:
    """A plan's load on every server, [M] each.

    Attributes:
        users: how many it serves.
        bandwidth: Hz.
        clock: Hz.
    """

    users: Floats
    bandwidth: Floats
    clock: Floats
