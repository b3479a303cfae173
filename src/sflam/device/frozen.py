"""One frozen tensor of the segment file: read where it is used, a slice of rows at a time.

Reading a slice into one buffer costs about 5 % of the product that follows it (measured on ViT-B/16) and leaves
nothing resident; a map with ``madvise`` after every slice costs the same, but the kernel maps 64 kB around every
page it faults in, so a whole map creeps back. Hence: a map where pages are kept, reads where they are not.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sflam.errors import WireError

Array = npt.NDArray[Any]

SLICE_BYTES = 1 << 20


@dataclass(frozen=True)
class Stored:
    """How the numbers of a tensor are written: a NumPy dtype, and whether its 16 bits are a bfloat16."""

    dtype: str
    bfloat: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return np.dtype(self.dtype).itemsize


def slice_rows(rows: int, row_bytes: int) -> int:
    """Return how many rows a slice of at most ``SLICE_BYTES`` has, one at least."""
    return max(1, min(rows, SLICE_BYTES // max(1, row_bytes)))


class Frozen:
    """A tensor of the file; ``dtype`` is what its numbers become when they are read.

    Attributes:
        shape: as the graph has it.
        dtype: of what :meth:`rows` and :meth:`read` give.
        whole: the tensor itself where it lies ready in the map, None where it must be read or converted.
    """

    def __init__(
        self,
        file: BinaryIO,
        mapped: mmap.mmap | None,
        start: int,
        stored: Stored,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        scales: npt.NDArray[np.float32] | None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._file, self._start, self._stored, self._scales = file, start, stored, scales
        self._width: int = math.prod(shape[1:])
        as_is = dtype == stored.dtype and not stored.bfloat and scales is None
        self.whole: Array | None = None
        size: int = math.prod(shape)
        if mapped is not None and as_is and start % dtype.itemsize == 0 and size:
            self.whole = np.ndarray(shape, dtype, mapped, start)
        self._as_is = as_is

    def rows(self, start: int, stop: int, buffer: Array) -> Array:
        """Return rows ``start`` to ``stop`` - 1: a view of the map, or read into ``buffer`` [at least as many, ...]."""
        if self.whole is not None:
            return self.whole[start:stop]
        part = buffer[: stop - start]
        self._read(start, stop, part)
        return part

    def read(self, out: Array) -> None:
        """Write the whole tensor into ``out``, contiguous, a slice at a time where numbers are converted."""
        if self.whole is not None:
            np.copyto(out, self.whole)
        elif not self.shape:
            self._read(0, 1, out.reshape(1))
        else:
            step = slice_rows(self.shape[0], self._width * self.dtype.itemsize)
            for start in range(0, self.shape[0], step):
                stop = min(start + step, self.shape[0])
                self._read(start, stop, out[start:stop])

    def take(self, ids: npt.NDArray[np.int64], out: Array) -> None:
        """Write the rows with these numbers, in any order, into ``out`` [ids, ...]."""
        for place, row in enumerate(ids.tolist()):
            if not 0 <= row < self.shape[0]:
                raise WireError(f"row {row} of a table of {self.shape[0]} rows was asked for")
            if self.whole is not None:
                out[place] = self.whole[row]
            else:
                self._read(row, row + 1, out[place : place + 1])

    def _read(self, start: int, stop: int, out: Array) -> None:
        count = (stop - start) * self._width
        offset = self._start + start * self._width * self._stored.itemsize
        flat = out.reshape(-1)
        if self._as_is:
            self._fill(flat, offset)
            return
        raw = np.empty(count, self._stored.dtype)
        self._fill(raw, offset)
        if self._stored.bfloat:
            wide = raw.astype(np.uint32)
            wide <<= 16
            np.copyto(flat, wide.view(np.float32), casting="same_kind")
        else:
            np.copyto(flat, raw, casting="unsafe")
        if self._scales is not None:
            out *= self._scales[start:stop].reshape(-1, *(1,) * (out.ndim - 1))

    def _fill(self, array: Array, offset: int) -> None:
        view = memoryview(array.view(np.uint8).data) if array.size else memoryview(b"")
        while view:
            if hasattr(os, "preadv"):
                got = os.preadv(self._file.fileno(), [view], offset)
            else:
                self._file.seek(offset)
                got = self._file.readinto(view)  # type: ignore[attr-defined]
            if not got:
                raise WireError("the segment file has become shorter; fetch it again")
            view, offset = view[got:], offset + got
