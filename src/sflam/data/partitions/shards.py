"""``shards``: every device a few classes."""

from __future__ import annotations

import numpy as np

from sflam.data.partitions.contract import (
    Division,
    Labels,
    Part,
    PartitionRequest,
    expect_enough,
    parts_of,
    repair,
)
from sflam.data.partitions.lengths import classes_or_lengths
from sflam.errors import DataError


def divide(request: PartitionRequest) -> Division:
    """Return parts of few classes each, or of few lengths where texts have no labels."""
    by = classes_or_lengths(request)
    settings = request.settings
    parts = shards(by.ids, request.devices, settings.shards, request.rng, settings.minimum)
    return by.division(parts)


def shards(labels: Labels, devices: int, each: int, rng: np.random.Generator, minimum: int = 1) -> list[Part]:
    """Return a partition where a device holds few classes: ``each`` of K * ``each`` pieces of the sorted samples.

    Samples are sorted by class, in random order within one, and cut into pieces whose sizes differ by at most one.
    With two pieces a device, most devices hold two classes. Where the rounding leaves a device below ``minimum``,
    single samples are moved.

    Source: H. B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Aguera y Arcas, "Communication-Efficient Learning
    of Deep Networks from Decentralized Data", AISTATS 2017, section 3.

    Args:
        labels: int64 [N].
        devices: K.
        each: pieces of a device, at least 1.
        rng: all randomness.
        minimum: fewest samples a device may hold.

    Raises:
        DataError: K * each or K * minimum exceeds N.
    """
    expect_enough(len(labels), devices, minimum)
    if each < 1 or devices * each > len(labels):
        raise DataError(
            f"{devices} devices with {each} shards each need {devices * each} shards of {len(labels)} training "
            f"samples; set data.shards to at least 1 and at most {len(labels) // devices}"
        )
    shuffled = rng.permutation(len(labels))
    pieces = np.array_split(shuffled[np.argsort(labels[shuffled], kind="stable")], devices * each)
    owners = np.empty(len(labels), dtype=np.int64)
    for place, piece in enumerate(rng.permutation(devices * each)):
        owners[pieces[piece]] = place // each
    sizes = np.bincount(owners, minlength=devices)
    if sizes.min() < minimum:
        repair(owners, sizes, minimum, rng)
    return parts_of(owners, sizes)
