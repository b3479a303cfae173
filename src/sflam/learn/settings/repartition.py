"""``[repartition]``: when a served device is given fewer blocks between rounds, and gets them back. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sflam.ranges import Ranges

OFF, ORDERED, OVERLOAD = "off", "ordered", "overload"
MODES = (OFF, ORDERED, OVERLOAD)


@dataclass(frozen=True, kw_only=True)
class RepartitionSettings:
    """When a served device moves to a shallower cut between rounds, and back; other commands leave cuts as they are.

    Attributes:
        mode: who moves the cuts of a served run: nothing (``off``), an operator (``ordered``, by ``sflam admin SERVER
            cut``), or also the server, once a device is overloaded (``overload``). A device moves between
            ``least_cut`` and the cut that the job gives it, never deeper.
        least_cut: fewest blocks that a device may be left with: a shallower cut gives away more. With
            ``plan.least_leakage`` no cut is taken either that this forbids.
        memory_reserve: share of the memory that a device could have that is to stay free. One that reports less is
            overloaded.
        slow_factor: how many times the computing of the other devices' median a device's may take. One that takes
            longer, ``settle_rounds`` rounds in a row, is overloaded.
        settle_rounds: rounds in a row without overload after which a device gets its blocks back; twice as many after
            every time that it was overloaded again.
    """

    mode: str = OFF
    least_cut: int = 0
    memory_reserve: float = 0.1
    slow_factor: float = 3.0
    settle_rounds: int = 3

    def __post_init__(self) -> None:
        ranges = Ranges(self, "repartition")
        ranges.one_of(MODES, "mode")
        ranges.at_least(0, "least_cut")
        ranges.at_least(1, "settle_rounds")
        ranges.require(
            0 <= self.memory_reserve < 1, "memory_reserve", "it must be a share, 0 or more and less than 1"
        )
        ranges.require(
            1 < self.slow_factor < math.inf, "slow_factor", "it must be more than 1, for example 3"
        )
        ranges.check()

    @property
    def moves(self) -> bool:
        """Whether cuts may move."""
        return self.mode != OFF
