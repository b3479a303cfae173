"""The rows of a local step in groups: a shared trunk takes one optimiser step per group.

    sequential  one group per device: the classical SFL-V2
    batched     one group of all rows
    mixed       G = max B_k groups, each with rows of every device that has enough: as many optimiser steps as central
                training, each on a mixture of all devices (merged features: MergeSFL, arXiv 2311.13348)

B_k rows of device k, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sflam.seeds import generator

Rows = NDArray[np.int64]
Group = dict[int, Rows]
"""Device -> those of its rows that are in the group."""


def grouped(update: str, counts: Mapping[int, int], seed: int) -> list[Group]:
    """Return the groups of a local step, in the order of their optimiser steps.

    Args:
        update: a value of ``learn.server_update``.
        counts: device -> B_k, at least one row each; groups keep this order.
        seed: of the step; only ``mixed`` draws.
    """
    if update == "sequential":
        return [{device: np.arange(count)} for device, count in counts.items()]
    if update == "batched":
        return [{device: np.arange(count) for device, count in counts.items()}]
    return mixed(counts, seed)


def mixed(counts: Mapping[int, int], seed: int) -> list[Group]:
    """Return G = max B_k groups over which each device's rows are spread evenly, every row once.

    Row j of device k is in group floor((j + u_k) G / B_k), with u_k drawn uniformly from [0, 1) for each device: no
    device has two rows in a group, and no group is without a row of the device with most.
    """
    most = max(counts.values())
    groups: list[Group] = [{} for _ in range(most)]
    for device, count in counts.items():
        start = generator(seed, "groups", device).random()
        places = np.minimum((np.arange(count) + start) * most / count, most - 1).astype(np.int64)
        for row, place in enumerate(places):
            groups[place][device] = np.array([row])
    return groups
