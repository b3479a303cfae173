"""``file``: a partition of one's own, a list of rows per device in ``data.indices``.

Rows are those of the source, counted from 0 as they are stored (images of a folder by path): of its training part
where it comes in parts. What sflam itself holds out or leaves out (a share for testing, blank texts) may be listed and
is skipped, so one file serves any seed. Every sample that is left to train on must be listed once.

    [[0, 1, 4], [2, 3]]                    JSON: a list per device
    {"0": [0, 1, 4], "1": [2, 3]}          or by device
    partition.json                         of a run folder: the partition of that run
    np.savez(path, [0, 1, 4], [2, 3])      npz: an array per device, arr_0, arr_1, ...
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.mapped import read_arrays
from sflam.data.partitions.contract import Division, PartitionRequest, expect_enough
from sflam.errors import DataError
from sflam.files import from_json

Rows = NDArray[np.int64]


def divide(request: PartitionRequest) -> Division:
    """Return the parts that the file lists.

    Raises:
        DataError: the file cannot be read, lists another number of devices, a row the source does not have, a row
            twice, or not all rows; or leaves a device below the minimum.
    """
    path, train = Path(request.settings.indices).expanduser(), request.train
    origin = train.origin
    rows = np.arange(len(train)) if origin is None else origin.rows
    stored = len(train) if origin is None else origin.stored
    listed = read_indices(path)
    if len(listed) != request.devices:
        raise DataError(
            f"{path}: lists {len(listed)} devices, but fleet.devices is {request.devices}; make them equal"
        )
    owners = np.full(stored, -1, dtype=np.int64)
    for device, own in enumerate(listed):
        wrong = own[(own < 0) | (own >= stored)]
        if len(wrong):
            raise DataError(
                f"{path}: device {device} lists row {wrong[0]}, but {train.name} has the rows 0 to {stored - 1}; rows "
                "are those of the source's training part, counted from 0"
            )
        values, counts = np.unique(own, return_counts=True)
        if (twice := values[counts > 1]).size:
            raise DataError(f"{path}: device {device} lists row {twice[0]} twice; list every row once")
        if (taken := own[owners[own] >= 0]).size:
            raise DataError(
                f"{path}: row {taken[0]} is on device {owners[taken[0]]} and on device {device}; list every row once"
            )
        owners[own] = device
    if (missing := rows[owners[rows] < 0]).size:
        raise DataError(
            f"{path}: {len(missing)} of {len(rows)} training samples are on no device, row {missing[0]} first; list "
            "every row"
        )
    expect_enough(len(train), request.devices, request.settings.minimum)
    parts = [np.flatnonzero(owners[rows] == device) for device in range(request.devices)]
    least = min(range(request.devices), key=lambda device: len(parts[device]))
    if len(parts[least]) < request.settings.minimum:
        raise DataError(
            f"{path}: device {least} has {len(parts[least])} training samples (held-out rows do not count), fewer than "
            f"data.minimum ({request.settings.minimum}); give it more, or lower data.minimum"
        )
    return Division(parts)


def read_indices(path: Path) -> list[Rows]:
    """Return the rows that a JSON or npz file lists for each device; raises DataError where it does not."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; data.indices names a .json or .npz file of rows per device")
    try:
        lists = _npz(path) if path.suffix.lower() == ".npz" else _json(path)
        return [_rows(own, device) for device, own in enumerate(lists)]
    except (OSError, EOFError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: holds no partition ({' '.join(str(error).split())}); write a list of rows per device, as JSON or "
            "with numpy.savez"
        ) from error


def _json(path: Path) -> list[Any]:
    values = from_json(path.read_text(encoding="utf-8"))
    if isinstance(values, dict) and isinstance(values.get("devices"), list):
        return [device["rows"] for device in values["devices"] if isinstance(device, dict)]
    if isinstance(values, dict):
        return _in_order(values)
    if not isinstance(values, list):
        raise ValueError(f"it holds {type(values).__name__}")
    return values


def _npz(path: Path) -> list[Any]:
    return _in_order(read_arrays(path))


def _in_order(values: dict[str, Any]) -> list[Any]:
    """Return the values by the number at the end of their names, which must be 0, 1, 2, ..."""
    found = {int(match[0]): value for name, value in values.items() if (match := re.search(r"\d+$", name))}
    if len(found) != len(values) or sorted(found) != list(range(len(found))):
        raise ValueError("its names do not end in 0, 1, 2, ..., one per device")
    return [found[device] for device in range(len(found))]


def _rows(values: Any, device: int) -> Rows:
    if isinstance(values, list) and not all(type(value) is int for value in values):
        raise ValueError(f"device {device} does not list whole numbers")
    rows = np.array(values, dtype=np.int64 if values == [] else None) if isinstance(values, list) else values
    if not (isinstance(rows, np.ndarray) and rows.ndim == 1 and (rows.dtype.kind in "iu" or not rows.size)):
        raise ValueError(f"device {device} does not list whole numbers")
    if rows.size and rows.max() > np.iinfo(np.int64).max:
        raise ValueError(f"device {device} lists {rows.max()}")
    return rows.astype(np.int64)
