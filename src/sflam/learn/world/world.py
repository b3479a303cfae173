"""The processes ("ranks") that train one job together, and which device is whose; by default one process, alone.

Rank 0 leads: it plans, averages, writes and prints. In a round each rank runs the local steps of its own devices. A
trunk with a copy per device needs nothing of other ranks before the round's end. Trunks that are *joint* take every
optimiser step together: one that all devices share, and any in canonical mode, where a pass is never split over ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # methods are looked up without torch
    from torch import Tensor


class World:
    """One process that is alone: nothing is exchanged, and torch.distributed is not used.

    Attributes:
        size: how many processes there are.
        rank: which of them this is; 0 leads.
    """

    size = 1
    rank = 0

    def mine(self, devices: Sequence[int], loads: Callable[[], Mapping[int, int]]) -> list[int]:
        """Return those of a round's devices that this rank runs; ``loads`` returns device -> its rows."""
        return list(devices)

    def first(self, value: Any = None) -> Any:
        """Return rank 0's nested ``value`` on every rank."""
        return value

    def collect(self, own: Any) -> list[Any]:
        """Return the nested values of all ranks, in their order, on rank 0; an empty list elsewhere."""
        return [own]

    def gather(self, own: Any) -> list[Any]:
        """Return the nested values of all ranks, in their order, on every rank."""
        return [own]

    def each(self, number: int) -> list[int]:
        """Return the numbers of all ranks, in their order, on every rank."""
        return [number]

    def wait_long(self) -> None:
        """Wait for other ranks for as long as it takes."""

    def sum(self, tensor: Tensor) -> None:
        """Add a tensor up over all ranks, in place."""


ALONE = World()


def dealt(loads: Mapping[int, int], size: int) -> list[list[int]]:
    """Return the devices of each of ``size`` ranks, ascending: the largest load first, to the rank with least."""
    own: list[list[int]] = [[] for _ in range(size)]
    sums = [0] * size
    for device in sorted(loads, key=lambda device: (-loads[device], device)):
        rank = min(range(size), key=lambda rank: (sums[rank], len(own[rank]), rank))
        own[rank].append(device)
        sums[rank] += loads[device]
    return [sorted(devices) for devices in own]
