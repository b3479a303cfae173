"""Arrays of an uncompressed ``.npz`` file, mapped: pages come when they are used, and can be given back."""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from sflam.errors import DataError

Array = NDArray[Any]
Pieces = tuple[np.dtype[Any], tuple[int, ...], Iterator[Array]]
"""An array by its type, its shape and the pieces of its first axis, in order."""

LOCAL_HEADER = 30
"""Bytes of a member's own header in a zip file, before its name and extra field, whose lengths end it."""
PAGES = 1 << 22
"""Bytes of a mapped array that are looked at before they are given back."""


def mapped_arrays(path: Path) -> dict[str, Array] | None:
    """Return name -> array of a file that ``numpy.savez`` wrote; None where a member is compressed.

    Raises:
        ValueError: a member is no array, or an array of Python objects.
        OSError: the file cannot be read, or ends early.
        zipfile.BadZipFile: it is no zip file.
    """
    found: dict[str, Array] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
                return None
            file.seek(member.header_offset)
            header = file.read(LOCAL_HEADER)
            # The extra field of the local header may differ from the directory's.
            name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            file.seek(member.header_offset + LOCAL_HEADER + name + extra)
            shape, fortran, dtype = _array_header(file)
            if dtype.hasobject:
                raise ValueError(f"{member.filename} holds Python objects")
            found[member.filename.removesuffix(".npy")] = _mapped(path, file.tell(), shape, fortran, dtype)
    return found


def read_arrays(path: Path) -> dict[str, Array]:
    """Return name -> array of any ``.npz``, in memory: no more is allocated than the archive holds.

    Raises:
        ValueError: an array of Python objects, or of another size than it says, or more than the memory holds.
        OSError: the file cannot be read.
        zipfile.BadZipFile: it is no zip file, or damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".npy"):
                continue
            with archive.open(member) as file:
                shape, _, dtype = _array_header(file)
                held = member.file_size - file.tell()
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
                raise ValueError(f"{member.filename} claims to be {dtype} {list(shape)}, in {held} bytes")
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except MemoryError:
        raise ValueError("it does not fit the memory") from None


def write_arrays(path: Path, arrays: Mapping[str, Array | Pieces]) -> None:
    """Write an uncompressed ``.npz``, without holding more of an array than is given at once.

    Raises:
        OSError: the disk refuses.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, given in arrays.items():
            dtype, shape, pieces = (
                given if isinstance(given, tuple) else (given.dtype, given.shape, iter([given]))
            )
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                described = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                npy.write_array_header_2_0(member, described)
                for piece in pieces:
                    member.write(np.ascontiguousarray(piece, dtype).tobytes())


def extremes(array: Array) -> tuple[Any, Any]:
    """Return the least and the largest value of an array that is not empty; pages of a mapped one are given back."""
    rows = max(1, PAGES // max(1, array.nbytes // len(array)))
    parts = []
    for start in range(0, len(array), rows):
        part = array[start : start + rows]
        parts.append((part.min(), part.max()))
        give_back(array)
    return min(low for low, _ in parts), max(high for _, high in parts)


def give_back(array: Array) -> None:
    """Let the system take the pages of a mapped array that is only read; any other array is left as it is."""
    found = _map_of(array)
    if found is not None and hasattr(mmap, "MADV_DONTNEED"):
        found._mmap.madvise(mmap.MADV_DONTNEED)


def rows_of(array: Array, indices: NDArray[np.int64]) -> Array:
    """Return the rows of an array [N, ...] at ``indices`` [B]; those of a mapped one are read from its file.

    A map would make megabytes around a row resident: the system maps the whole of what it has read ahead.

    Raises:
        IndexError: there is no such row.
        DataError: the file has become shorter.
    """
    found = _map_of(array)
    if found is None or found.filename is None or not array.flags.c_contiguous:
        return np.array(array[indices])
    rows = np.empty((len(indices), *array.shape[1:]), array.dtype)
    first = found.offset + array.__array_interface__["data"][0] - found.__array_interface__["data"][0]
    with open(found.filename, "rb", buffering=0) as file:
        for row, index in zip(rows, indices.tolist(), strict=True):
            at = range(len(array))[index]
            file.seek(first + at * row.nbytes)
            if row.nbytes and file.readinto(row.reshape(-1).view(np.uint8).data) != row.nbytes:
                raise DataError(f"{found.filename} has become shorter; start again with the whole file")
    return rows


def _map_of(array: Array) -> Any:
    """Return the map of a whole file that an array lies in; None for one in memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        inner: Any = base.base
        if isinstance(inner, mmap.mmap):
            return base
        base = inner
    return None


def _array_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(file)


def _mapped(path: Path, offset: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> Array:
    """Return the array at ``offset``; an empty one, or a single value, is not mapped."""
    if not shape or 0 in shape:
        with path.open("rb") as file:
            file.seek(offset)
            return np.fromfile(file, dtype, 1 if not shape else 0).reshape(shape)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")
