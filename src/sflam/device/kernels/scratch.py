"""Working memory of the kernels, and the blocks they cut an array into so that it stays in the cache."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Block = tuple[slice, ...]
Shape = tuple[int, ...]

BLOCK_BYTES = 128 << 10  # an operand, a result and a buffer or two of this size stay in a second-level cache
ALIGN = 64  # bytes; a cache line, and the widest vector


class Scratch:
    """Buffers of one size in one piece of memory, by number."""

    def __init__(self, room: Array, each: int) -> None:
        self._room, self._each = room, each

    def array(self, slot: int, shape: Shape, dtype: npt.DTypeLike) -> Array:
        """Return uninitialised contiguous memory; a later call for the same slot hands out the same memory."""
        return np.ndarray(shape, dtype, self._room, slot * self._each)


def aligned(nbytes: int) -> int:
    """Return the next multiple of ``ALIGN``."""
    return -(-nbytes // ALIGN) * ALIGN


def blocks(shape: Shape, itemsize: int, whole: int = 0, limit: int | None = None) -> tuple[Block, ...]:
    """Return the blocks of an array, in order, each at most ``limit`` bytes, ``BLOCK_BYTES`` by default.

    The last ``whole`` axes are never cut, so that a block holds whole rows, one at least.
    """
    return _blocks(shape, itemsize, whole, BLOCK_BYTES if limit is None else limit)


def block_bytes(shape: Shape, itemsize: int, whole: int = 0) -> int:
    """Return the bytes of the largest block, the first."""
    size = math.prod(shape) * itemsize
    free = len(shape) - whole
    if size <= BLOCK_BYTES or free <= 0:
        return size
    axis, step = _cut(shape, itemsize, free, BLOCK_BYTES)
    return step * math.prod(shape[axis + 1 :]) * itemsize


def block_of(operand: Shape, block: Block) -> Block:
    """Return the part of a broadcast operand that a block of the result needs."""
    return tuple(
        slice(None) if size == 1 else cut
        for size, cut in zip(operand, block[len(block) - len(operand) :], strict=True)
    )


@lru_cache(maxsize=64)
def _blocks(shape: Shape, itemsize: int, whole: int, limit: int) -> tuple[Block, ...]:
    size = math.prod(shape) * itemsize
    free = len(shape) - whole
    if size <= limit or free <= 0:
        return ((slice(None),) * len(shape),) if size else ()
    axis, step = _cut(shape, itemsize, free, limit)
    rest = (slice(None),) * (len(shape) - axis - 1)
    return tuple(
        (*(slice(i, i + 1) for i in lead), slice(start, min(start + step, shape[axis])), *rest)
        for lead in np.ndindex(shape[:axis])
        for start in range(0, shape[axis], step)
    )


def _cut(shape: Shape, itemsize: int, free: int, limit: int) -> tuple[int, int]:
    """Return which axis is cut, the ones before it into single items, and how many items a block has along it."""
    below = math.prod(shape) * itemsize  # bytes of one item along the axes seen so far
    for axis in range(free):
        below //= shape[axis]
        if below <= limit or axis == free - 1:
            return axis, min(shape[axis], max(1, limit // below))
    raise AssertionError("an array of more than its limit has an axis to cut")
