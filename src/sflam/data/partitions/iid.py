"""``iid``: the same mix for every device."""

from __future__ import annotations

import numpy as np

from sflam.data.partitions.contract import Division, Labels, Part, PartitionRequest, expect_enough


def divide(request: PartitionRequest) -> Division:
    """Return equal random parts."""
    return Division(iid(request.train.labels, request.devices, request.rng, request.settings.minimum))


def iid(labels: Labels, devices: int, rng: np.random.Generator, minimum: int = 1) -> list[Part]:
    """Return a uniformly random partition of the N samples; sizes differ by at most one."""
    expect_enough(len(labels), devices, minimum)
    order = rng.permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, devices)]
