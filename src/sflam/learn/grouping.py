"""The rows of a local step in groups: a shared trunk takes one optimiser step per group.

    sequential  one group per device: the classical SFL-V2
    batched     one group of all rows
    mixed       G groups, each with rows of every device that has enough: as many optimiser steps as central training,
                each on a mixture of all devices (merged features: MergeSFL, arXiv 2311.13348); see :func:`count_groups`

B_k rows of device k, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sflam.learn.settings import LearnSettings
from sflam.seeds import generator

Rows = NDArray[np.int64]
Group = dict[int, Rows]
"""Device -> those of its rows that are in the group."""


def grouped(update: str, counts: Mapping[int, int], seed: int, rows: int = 0) -> list[Group]:
    """Return the groups of a local step, in the order of their optimiser steps.

    Args:
        update: a value of ``learn.server_update``.
        counts: device -> B_k, at least one row each; groups keep this order.
        seed: of the step; only ``mixed`` draws.
        rows: of a mixed group; 0 has as many groups as the device with most has rows.
    """
    if update == "sequential":
        return [{device: np.arange(count)} for device, count in counts.items()]
    if update == "batched":
        return [{device: np.arange(count) for device, count in counts.items()}]
    return mixed(counts, seed, rows)


def group_rows(learn: LearnSettings, sampling: str) -> int:
    """Return the rows of a mixed group; 0 for one row of every device.

    Args:
        learn: how a round is run.
        sampling: ``data.sampling``: of a uniform sample, mini-batches are as large as central training's.
    """
    return learn.server_batch or (learn.batch if sampling == "global" else 0)


def count_groups(rows: int, most: int, wanted: int) -> int:
    """Return G of a mixed step.

    Args:
        rows: of all devices, sum B_k.
        most: of the device with most, max B_k.
        wanted: rows of a group; with 0, G = max B_k, so that no device has two rows in a group.
    """
    return max(1, round(rows / wanted)) if wanted else most


def mixed(counts: Mapping[int, int], seed: int, rows: int = 0) -> list[Group]:
    """Return groups over which each device's rows are spread evenly, every row once, about ``rows`` in each.

    Row j of device k is in group floor((j + u_k) G / B_k), with u_k drawn uniformly from [0, 1) for each device. A
    group without rows is left out.
    """
    count = count_groups(sum(counts.values()), max(counts.values()), rows)
    groups: list[dict[int, list[int]]] = [{} for _ in range(count)]
    for device, own in counts.items():
        start = generator(seed, "groups", device).random()
        places = np.minimum((np.arange(own) + start) * count / own, count - 1).astype(np.int64)
        for row, place in enumerate(places):
            groups[place].setdefault(device, []).append(row)
    return [{device: np.array(found) for device, found in group.items()} for group in groups if group]
