"""``column``: the natural partition, by a column of the source: writers, hospitals, speakers. Groups stay whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sflam.data.partitions.contract import Division, Part, PartitionRequest, expect_enough, parts_of
from sflam.errors import DataError

REDRAWS = 20
"""Tries for a deal that keeps the minimum, before groups are dealt by their sizes."""


def divide(request: PartitionRequest) -> Division:
    """Return the groups of ``data.column``, each whole on one device.

    With as many groups as devices, device k has the k-th group in order (of numbers, or else of the alphabet). More
    groups than devices are dealt out at random, as many to each device but for one. Where that leaves a device below
    the minimum, it is dealt again, and at last by size: the largest group to the device that has least.

    Source: S. Caldas et al., "LEAF: A Benchmark for Federated Settings", arXiv:1812.01097, 2018, for devices that are
    the writers of the data.

    Raises:
        DataError: the source has no such column, a value is missing, there are fewer groups than devices, or no deal of
            whole groups gives every device the minimum.
    """
    train, column, devices = request.train, request.settings.column, request.devices
    values = None if train.origin is None else train.origin.groups
    if values is None or train.origin is None:
        raise DataError(
            f'data.partition = "column" needs a source with columns, and {train.name} has none; give a table, an .npz '
            "file, or a folder of images with metadata.csv"
        )
    if (values == "").any():
        row = int(train.origin.rows[np.flatnonzero(values == "")[0]])
        raise DataError(
            f"row {row} of {train.name} has no value in column {column!r}, which says whose it is; remove such rows"
        )
    names, groups = numbered_groups(values)
    if len(names) < devices:
        raise DataError(
            f"column {column!r} of {train.name} has {len(names)} groups in the training part, too few for {devices} "
            f'devices: a group is never divided; set fleet.devices to at most {len(names)}, or choose "dirichlet" or '
            '"iid"'
        )
    expect_enough(len(train), devices, request.settings.minimum)
    sizes = np.bincount(groups, minlength=len(names))
    owners = _dealt(sizes, devices, request.settings.minimum, request.rng)
    parts = owned(owners[groups], devices)
    least = min(map(len, parts))
    if least < request.settings.minimum:
        raise DataError(
            f"the {len(names)} groups of column {column!r} leave a device with {least} training samples, fewer than "
            f"data.minimum ({request.settings.minimum}); lower it, or use fewer devices"
        )
    note = f"the {len(names)} groups of column {column!r} were dealt out whole to {devices} devices"
    return Division(parts, note=note if len(names) > devices else "")


def numbered_groups(values: NDArray[np.str_]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct values in order, of numbers where all are whole numbers, and the place of each value."""
    names, groups = np.unique(values, return_inverse=True)
    try:
        order = np.argsort([int(name) for name in names], kind="stable")
    except ValueError:
        order = np.arange(len(names))
    places = np.empty(len(names), dtype=np.int64)
    places[order] = np.arange(len(names))
    return [str(names[place]) for place in order], places[groups.reshape(-1)]


def owned(owners: NDArray[np.int64], devices: int) -> list[Part]:
    """Return the samples of each device."""
    return parts_of(owners, np.bincount(owners, minlength=devices))


def _dealt(
    sizes: NDArray[np.int64], devices: int, minimum: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the device of each group."""
    if len(sizes) == devices:
        return np.arange(devices)
    owners = np.empty(len(sizes), dtype=np.int64)
    for _ in range(REDRAWS):
        owners[rng.permutation(len(sizes))] = np.arange(len(sizes)) % devices
        if np.bincount(owners, sizes, minlength=devices).min() >= minimum:
            return owners
    held = np.zeros(devices, dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        owners[group] = held.argmin()
        held[owners[group]] += sizes[group]
    return owners
