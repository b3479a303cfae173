"""Which device has which sample, and what is wrong with it: partitions by name, flipped labels, changed images.

Every sample lands on exactly one device and no device holds fewer than ``data.minimum``: nothing is dropped, repeated,
or drawn with replacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset
from sflam.data.partitions import clusters, column, dirichlet, iid, index_file, shards
from sflam.data.partitions.contract import Part, Partition, PartitionRequest
from sflam.data.settings import DataSettings
from sflam.data.skew import flipped, noisy, shifted
from sflam.errors import DataError
from sflam.registry import add
from sflam.seeds import generator

PARTITIONS: dict[str, Partition] = {
    "iid": iid.divide,
    "dirichlet": dirichlet.divide,
    "shards": shards.divide,
    "quantity": dirichlet.divide_quantity,
    "column": column.divide,
    "file": index_file.divide,
    "clusters": clusters.divide,
}
"""``data.partition`` -> how samples are shared out."""


def register(name: str, partition: Partition) -> None:
    """Make an own partition known as ``data.partition = name`` in this process.

    Args:
        name: small letters, digits and hyphens.
        partition: from a :class:`PartitionRequest` to a :class:`Division`; a pure function, whose randomness is
            ``request.rng``. Every sample lands on one device, and none has fewer than ``data.minimum``.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    add("partition", name, partition, PARTITIONS)


@dataclass(frozen=True, eq=False)
class Shared:
    """The training part as the devices hold it.

    Attributes:
        train: the samples, with the labels and pixels the devices have.
        parts: the samples of each device, sorted int64 positions in ``train``.
        groups: int64 [N], what samples are counted by: their true classes, or what the partition distinguished where
            there are none.
        names: of the groups; none where samples are not distinguished.
        flips: per device, how many of its labels are wrong.
        notes: sentences for the user.
    """

    train: Dataset
    parts: tuple[Part, ...]
    groups: NDArray[np.int64]
    names: tuple[str, ...]
    flips: tuple[int, ...]
    notes: tuple[str, ...] = ()


def share_out(settings: DataSettings, train: Dataset, devices: int, seed: int) -> Shared:
    """Share the training part out as ``[data]`` sets it, from the stream ``partition``; then change labels and images.

    Args:
        settings: of ``[data]``.
        train: N samples.
        devices: how many devices K share them.
        seed: of the run.

    Raises:
        DataError: they cannot be shared out so.
    """
    request = PartitionRequest(settings, train, devices, generator(seed, "partition"))
    division = PARTITIONS[settings.partition](request)
    parts = tuple(division.parts)
    _expect_partition(settings, parts, len(train), devices)
    groups, names = train.labels, train.classes
    if division.groups is not None and not names:
        groups, names = division.groups, division.names
    held, flips = flipped(settings, train, parts, seed)
    held = noisy(settings, shifted(settings, held, parts), parts, seed)
    return Shared(held, parts, groups, names, flips, (division.note,) if division.note else ())


def _expect_partition(settings: DataSettings, parts: tuple[Part, ...], samples: int, devices: int) -> None:
    """Raise DataError where parts, of a partition of one's own say, are none."""
    whole = len(parts) == devices and all(np.all(np.diff(part) > 0) for part in parts)
    if not whole or not np.array_equal(np.sort(np.concatenate(parts)), np.arange(samples)):
        raise DataError(
            f"data.partition = {settings.partition} gave {len(parts)} parts of {sum(map(len, parts))} samples; it must "
            f"give {devices} sorted ones that hold each of {samples} samples once"
        )
    if min(map(len, parts)) < settings.minimum:
        raise DataError(
            f"data.partition = {settings.partition} gave a device {min(map(len, parts))} samples, fewer than "
            f"data.minimum ({settings.minimum})"
        )
