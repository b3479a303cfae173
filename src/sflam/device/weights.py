"""The segment file: a safetensors header read strictly, and tensors that are read when they are needed.

A server wrote the file, so its header is not trusted: whatever is wrong with it gives one WireError.
An int8 tensor ``name`` [o, ...] has its scales beside it, ``name.scale`` float32 [o]: row k is worth int8 * scale[k].
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sflam.device.frozen import Frozen, Stored
from sflam.errors import WireError

STORED: Mapping[str, Stored] = {
    "F64": Stored("float64"),
    "F32": Stored("float32"),
    "F16": Stored("float16"),
    "BF16": Stored("uint16", bfloat=True),
    "I8": Stored("int8"),
    "I64": Stored("int64"),
    "I32": Stored("int32"),
    "BOOL": Stored("bool"),
}
MOST_HEADER = 16 << 20  # bytes; a header holds about 100 bytes a tensor
MOST_AXES = 8
SCALE = ".scale"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies.

    Attributes:
        stored: how its numbers are written.
        shape: its sizes.
        start: its first byte in the file.
        nbytes: its bytes.
    """

    stored: Stored
    shape: tuple[int, ...]
    start: int
    nbytes: int


class Weights:
    """The tensors of one segment file, which stays open until :meth:`close`.

    ``keep`` maps the file, so that pages once read stay resident while the system has room; without it every use
    reads the slice it needs into a buffer and nothing stays: less memory, a few per cent more time.

    Raises:
        WireError: the file is no safetensors file, or its header contradicts itself or the file.
    """

    def __init__(self, path: Path, *, keep: bool) -> None:
        self.path = path
        self._file: BinaryIO = open(path, "rb", buffering=0)
        self._map: mmap.mmap | None = None
        try:
            self.entries = read_header(self._file, path.name)
            if keep and any(entry.nbytes for entry in self.entries.values()):
                self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise

    @property
    def keep(self) -> bool:
        """Whether pages are kept."""
        return self._map is not None

    def frozen(
        self, name: str, shape: tuple[int, ...] | None = None, dtype: npt.DTypeLike = np.float32
    ) -> Frozen:
        """Return a tensor, with ``shape`` where the graph merges its axes, in numbers of ``dtype``.

        Raises:
            WireError: no such tensor, another number of elements, or int8 without fitting scales.
        """
        entry = self._entry(name)
        shape = entry.shape if shape is None else shape
        if math.prod(shape) != math.prod(entry.shape):
            raise WireError(
                f"tensor {name} of {self.path.name} has the shape {list(entry.shape)}, the graph asks for "
                f"{list(shape)}; fetch the segment file and the graphs of one job"
            )
        scales = self._scales(name, entry, shape) if entry.stored.dtype == "int8" else None
        return Frozen(self._file, self._map, entry.start, entry.stored, shape, np.dtype(dtype), scales)

    def __enter__(self) -> Weights:
        """Return it; leaving the context closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the file; the map goes with the last tensor that points into it."""
        self._map = None
        self._file.close()

    def _entry(self, name: str) -> TensorEntry:
        if name not in self.entries:
            raise WireError(
                f"{self.path.name} has no tensor {name}; fetch the segment file of this job again"
            )
        return self.entries[name]

    def _scales(self, name: str, entry: TensorEntry, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        found = self._entry(name + SCALE)
        if not shape or found.stored.dtype != "float32" or not found.shape == entry.shape[:1] == shape[:1]:
            raise WireError(
                f"the scales of int8 tensor {name} {list(entry.shape)} in {self.path.name} are {found.stored.dtype} "
                f"{list(found.shape)}; they must be float32, one per row"
            )
        scales = np.empty(found.shape, np.float32)
        Frozen(self._file, None, found.start, found.stored, found.shape, np.dtype(np.float32), None).read(
            scales
        )
        return scales


def read_header(file: BinaryIO, name: str) -> dict[str, TensorEntry]:
    """Return name -> where it lies of the tensors of a safetensors file.

    Raises:
        WireError: any disagreement with the format, with itself, or with the size of the file.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or not 2 <= length <= min(MOST_HEADER, size - 8):
        raise WireError(
            f"{name} ({size} bytes) is no safetensors file: its header claims {length} bytes, at most "
            f"{max(0, min(MOST_HEADER, size - 8))} are possible; fetch it again"
        )
    try:
        found = json.loads(file.read(length), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise WireError(
            f"the header of {name} is no JSON ({str(error)[:80]}); fetch the file again"
        ) from None
    if not isinstance(found, dict):
        raise WireError(f"the header of {name} is a {type(found).__name__}; it must be an object")
    found.pop("__metadata__", None)
    entries = {key: _entry(key, value, 8 + length, name) for key, value in found.items()}
    end = 8 + length
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start != end:
            raise WireError(
                f"tensor {key[:60]} of {name} starts at byte {entry.start}, the one before ends at {end}; "
                "tensors may neither overlap nor leave gaps"
            )
        end += entry.nbytes
    if end != size:
        raise WireError(f"the tensors of {name} end at byte {end}, the file at {size}; fetch it again")
    return entries


def _entry(key: str, found: Any, data: int, name: str) -> TensorEntry:
    what = f"tensor {key[:60]} of {name}"
    if not isinstance(found, dict) or set(found) != {"dtype", "shape", "data_offsets"}:
        raise WireError(f"{what} must say dtype, shape and data_offsets and nothing else")
    dtype, shape, offsets = found["dtype"], found["shape"], found["data_offsets"]
    if not isinstance(dtype, str) or dtype not in STORED:
        raise WireError(f"{what} has the dtype {str(dtype)[:20]}; known are {', '.join(STORED)}")
    if not _are_sizes(shape) or len(shape) > MOST_AXES:
        raise WireError(
            f"{what} has the shape {str(shape)[:60]}; it must be at most {MOST_AXES} whole numbers >= 0"
        )
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise WireError(f"{what} has the data_offsets {str(offsets)[:60]}; they must be [first byte, end]")
    stored = STORED[dtype]
    nbytes = math.prod(shape) * stored.itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise WireError(
            f"{what} takes {nbytes} bytes by its shape, {offsets[1] - offsets[0]} by its data_offsets"
        )
    return TensorEntry(stored, tuple(shape), data + offsets[0], nbytes)


def _are_sizes(found: Any) -> bool:
    return isinstance(found, list) and all(type(size) is int and 0 <= size < 1 << 48 for size in found)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found
