"""The partition of a run: written when it starts, and found again, or refused, when it is resumed."""

from __future__ import annotations

import numpy as np

from sflam.data.partition import Shared
from sflam.errors import RunError
from sflam.records.partition import (
    DeviceSamples,
    PartitionRecord,
    difference,
    read_partition,
    write_partition,
)
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import Assembly


def partition_of(assembly: Assembly) -> PartitionRecord:
    """Return which device of a run holds which rows of the source, and how many of each class."""
    return record_of(assembly.shared, assembly.job.data.partition)


def record_of(shared: Shared, partition: str) -> PartitionRecord:
    """Return which device holds which rows of the source, and how many of each class.

    Args:
        shared: the training samples as the devices hold them.
        partition: ``data.partition``.
    """
    train = shared.train
    rows = np.arange(len(train)) if train.origin is None else train.origin.rows
    groups = shared.groups if shared.names else np.zeros(len(train), dtype=np.int64)
    width = max(1, len(shared.names))
    devices = tuple(
        DeviceSamples(
            rows=tuple(rows[part].tolist()),
            counts=tuple(np.bincount(groups[part], minlength=width).tolist()),
            flips=flips,
        )
        for part, flips in zip(shared.parts, shared.flips, strict=True)
    )
    return PartitionRecord(partition=partition, names=shared.names, devices=devices)


def keep_partition(run: RunFolder, assembly: Assembly) -> None:
    """Write the partition of a run, unless its folder holds it already.

    Raises:
        RunError: the folder holds another one, so the data has changed since.
    """
    if not run.partition.exists():
        write_partition(run.partition, partition_of(assembly))
    expect_partition(run, assembly)


def expect_partition(run: RunFolder, assembly: Assembly) -> None:
    """Raise RunError where the folder holds another partition than the data now gives: the data has changed since.

    Runs that were written before partitions were kept have none to compare with.
    """
    if run.partition.exists():
        expect_record(run, partition_of(assembly))


def expect_record(run: RunFolder, now: PartitionRecord) -> None:
    """Raise RunError where the folder of a run holds another partition than ``now``, or none that can be read."""
    if reason := difference(read_partition(run.partition), now):
        raise RunError(
            f"the data of {run.path} has changed since the run began: {reason}; put the data back as it was, or start "
            "a new run"
        )
