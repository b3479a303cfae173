"""What a server waits for, as its session reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WaitedFor:
    """What the server waits for now.

    Attributes:
        devices: which, ascending.
        seconds: for how long at most; None where there is no limit.
        present: how many devices are here.
        enough: whether the run can go on: with those that are here, the open round or the next has its quorum.
    """

    devices: tuple[int, ...]
    seconds: float | None
    present: int
    enough: bool
