"""The updates that a version of a buffered run was made of: what a history keeps, and what it can be made again by."""

from __future__ import annotations

from dataclasses import dataclass, field

from sflam.records.codec import LATER, SELDOM


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """The updates that one version was made of, in the order in which they came; a device may have several.

    Attributes:
        devices: who sent each.
        staleness: of each, versions since the one that its device downloaded.
        weights: of each, what its difference was weighted by beside its samples, 1 / sqrt(1 + staleness).
        begun: of each, s on the clock of the run at which its device downloaded.
        arrived: of each, s at which it came.
        refused: devices whose updates came since the version before, further behind than ``learn.staleness``.
        refused_staleness: of each of these.
        numbers: of each in ``devices``, which of its device's own cycles it was, from 0: its draws go by that. Empty
            in older records.
        refused_numbers: the same of each in ``refused``.
        groups: where one trunk serves all, the devices of each group of frames that it took since the version before,
            in the order of time; else empty.
    """

    devices: tuple[int, ...]
    staleness: tuple[int, ...]
    weights: tuple[float, ...]
    begun: tuple[float, ...]
    arrived: tuple[float, ...]
    refused: tuple[int, ...] = ()
    refused_staleness: tuple[int, ...] = ()
    numbers: tuple[int, ...] = field(default=(), metadata=LATER)
    refused_numbers: tuple[int, ...] = field(default=(), metadata=LATER)
    groups: tuple[tuple[int, ...], ...] = field(default=(), metadata=SELDOM)
