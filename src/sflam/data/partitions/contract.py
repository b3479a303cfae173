"""What every partition is given and returns, and what all of them keep: each sample on one device, a minimum each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset
from sflam.data.settings import DataSettings
from sflam.errors import DataError

Labels = NDArray[np.int64]
Part = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PartitionRequest:
    """What a partition is asked for.

    Attributes:
        settings: of ``[data]``.
        train: the training part, N samples.
        devices: how many devices K share it.
        rng: the stream ``partition`` of the seed, for all randomness.
    """

    settings: DataSettings
    train: Dataset
    devices: int
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Division:
    """What a partition returns.

    Attributes:
        parts: K sorted int64 arrays of positions in the training part.
        groups: int64 [N], what samples were distinguished by, where that is not their class; else None.
        names: of the groups, in their order.
        note: a sentence for the user; often empty.
    """

    parts: list[Part]
    groups: Labels | None = None
    names: tuple[str, ...] = ()
    note: str = ""


Partition = Callable[[PartitionRequest], Division]
"""Shares samples out; raises DataError where it cannot."""


def expect_enough(samples: int, devices: int, minimum: int) -> None:
    """Raise DataError where ``samples`` cannot give ``minimum`` to each of ``devices``."""
    if devices < 1 or minimum < 1:
        raise DataError(f"{devices} devices of at least {minimum} samples: both must be at least 1")
    if devices > samples:
        raise DataError(
            f"{devices} devices cannot share {samples} training samples; use at most {samples} devices"
        )
    if devices * minimum > samples:
        raise DataError(
            f"{devices} devices with at least {minimum} samples each need {devices * minimum} training "
            f"samples, but there are {samples}; set data.minimum to {samples // devices} or less, "
            f"or use at most {samples // minimum} devices"
        )


def parts_of(owners: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[Part]:
    """Return the sorted samples of each device, from the owner of each sample and each owner's samples."""
    order = np.argsort(owners, kind="stable")
    return np.split(order, np.cumsum(sizes)[:-1])


def repair(
    owners: NDArray[np.int64], sizes: NDArray[np.int64], minimum: int, rng: np.random.Generator
) -> None:
    """Move samples, one at a time, from the device that holds most to those below ``minimum``; in place.

    Without replacement: a moved sample leaves its former device. Takers are served in index order and ties
    between givers go to the lower index, so one generator state gives one result. A giver always has more
    than ``minimum``, since K * minimum <= N.
    """
    order = rng.permutation(len(owners))  # a giver loses random samples, not its first class
    stacks = [list(order[owners[order] == device]) for device in range(len(sizes))]
    for taker in np.flatnonzero(sizes < minimum):
        while sizes[taker] < minimum:
            giver = int(np.argmax(sizes))
            owners[stacks[giver].pop()] = taker
            sizes[giver] -= 1
            sizes[taker] += 1
