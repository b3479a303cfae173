"""Long lists of numbers of a record as columns of a binary block, so that a history of many devices stays small.

A block is a safetensors body. A column is named by where its list stands in the record, ``charge.finish``; where some
of its numbers are None, ``charge.finish?`` marks them. Lists of lists of one length are columns of two dimensions.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.files import ANYONE, sync_folder, write_all

INLINE = 64
"""Lists of up to so many numbers stay in the record."""
_INTEGERS = (np.uint8, np.uint16, np.uint32, np.int64)
_SPECIAL = {"nan", "inf", "-inf"}


def packed(values: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return plain JSON values without their long lists, and the block of those; an empty block where none is long."""
    columns: dict[str, NDArray[Any]] = {}
    short = _without(values, "", columns)
    if not columns:
        return short, b""
    import safetensors.numpy  # who plans, and reads no run, is without it

    return short, safetensors.numpy.save(columns)


def unpacked(values: dict[str, Any], block: bytes) -> dict[str, Any]:
    """Put the lists of a block back where they stood; ``values`` are changed.

    Raises:
        ValueError: the block is damaged, or of another record.
    """
    import safetensors.numpy

    try:
        columns = safetensors.numpy.load(block)
        for name, column in columns.items():
            if not name.endswith("?"):
                place, last = _place(values, name)
                place[last] = _listed(column, columns.get(f"{name}?"))
    except (safetensors.SafetensorError, LookupError, TypeError) as error:
        raise ValueError(f"its columns cannot be read ({error})") from error
    return values


def append(path: Path, end: int, block: bytes) -> None:
    """Write a block behind the last one, which ends at ``end``, over what a crash may have left, and wait for the disk.

    Raises OSError.
    """
    new = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), ANYONE)
    try:
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        write_all(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if new:
        sync_folder(path.parent)


def reference(start: int, block: bytes) -> list[int]:
    """Return what a record keeps of its block: where it starts in the file, its length, its CRC-32."""
    return [start, len(block), zlib.crc32(block)]


def block_at(blocks: bytes, where: Sequence[int]) -> bytes:
    """Return the block of a :func:`reference`; raises ValueError where it is not there."""
    start, length, check = where
    block = blocks[start : start + length]
    if start < 0 or len(block) != length or zlib.crc32(block) != check:
        raise ValueError("its block of columns is missing or damaged")
    return block


def _without(value: Any, name: str, columns: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        inner = {
            key: _without(each, f"{name}.{key}" if name else key, columns) for key, each in value.items()
        }
        return {key: each for key, each in inner.items() if each is not columns}
    if not isinstance(value, list):
        return value
    if len(value) > INLINE and (column := _column(value)) is not None:
        columns[name], missing = column
        if missing.any():
            columns[f"{name}?"] = missing
        return columns  # stands for: gone
    if any(isinstance(each, dict) for each in value):
        return [_without(each, f"{name}.{index}", columns) for index, each in enumerate(value)]
    return value


def _column(value: list[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
    """Return a list of numbers as an array, and where there is none; None where it is no column."""
    rows = value if all(isinstance(row, list) for row in value) else [value]
    width = len(rows[0])
    flat = [each for row in rows for each in row]
    if any(len(row) != width for row in rows) or not flat:
        return None
    shape = (len(value), width) if rows is value else (len(value),)
    missing = np.array([each is None for each in flat])
    known = [each for each in flat if each is not None]
    if known and all(type(each) is int for each in known):
        low, high = min(known), max(known)
        kind: Any = next((k for k in _INTEGERS if np.iinfo(k).min <= low and high <= np.iinfo(k).max), None)
    else:
        kind = (
            np.float64
            if all(type(each) is float or (isinstance(each, str) and each in _SPECIAL) for each in known)
            else None
        )
    if kind is None:
        return None
    column = np.array([0 if each is None else each for each in flat], dtype=kind)
    return column.reshape(shape), missing.reshape(shape)


def _listed(column: NDArray[Any], missing: NDArray[Any] | None) -> list[Any]:
    if missing is None:
        found: list[Any] = column.tolist()
        return found
    whole = column.astype(object)
    whole[missing.astype(bool)] = None
    return list(whole.tolist())


def _place(values: dict[str, Any], name: str) -> tuple[Any, Any]:
    """Return what holds the list called ``name``, and its key there."""
    *above, last = name.split(".")
    place: Any = values
    for key in above:
        place = place[int(key)] if isinstance(place, list) else place[key]
    return place, last
