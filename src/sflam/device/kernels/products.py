"""Products of matrices: batched, with frozen matrices read in slices, and of low rank added in place.

Every function takes the working memory it needs as ``room``, a byte array of the size its ``*_room`` gives.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sflam.device.frozen import Frozen, slice_rows
from sflam.device.kernels.scratch import Array

PART_BYTES = 256 << 10  # a partial product waits for its addition in the cache
NARROW = 256  # an inner size below which a product is bound by memory, and a contiguous operand pays

Shape = tuple[int, ...]


def is_blas_ready(shape: Shape, strides: Shape, itemsize: int) -> bool:
    """Return whether NumPy hands a matrix [..., rows, columns] to BLAS as it lies, transposed or not."""
    (rows, columns), (down, across) = shape[-2:], strides[-2:]
    straight = across == itemsize and down % itemsize == 0 and down >= columns * itemsize
    turned = down == itemsize and across % itemsize == 0 and across >= rows * itemsize
    return straight or turned or not math.prod(shape)


def matmul(out: Array, a: Array, b: Array, room: Array) -> None:
    """a @ b, over the leading axes broadcast; an operand that BLAS cannot read as it lies is copied into ``room``."""
    a, room = _ready(a, room)
    b, room = _ready(b, room)
    np.matmul(a, b, out=out)


def matmul_room(a: tuple[Shape, Shape], b: tuple[Shape, Shape], itemsize: int) -> int:
    """Return the bytes of the copies :func:`matmul` makes of operands with these shapes and strides."""
    return sum(
        math.prod(shape) * itemsize
        for shape, strides in (a, b)
        if not is_blas_ready(shape, strides, itemsize)
    )


def addmm(out: Array, x: Array, a: Array, b: Array, room: Array) -> None:
    """x + a @ b, a block of rows at a time; ``out`` may be ``x``."""
    if b.shape[-2] <= NARROW and b.ndim == 2 and b.strides[-1] != b.itemsize:
        turned = np.ndarray(b.shape, b.dtype, room)
        np.copyto(turned, b)
        room, b = room[turned.nbytes :], turned
    rows, columns = out.shape[-2:]
    step = _rows(columns, rows, out.itemsize)
    part = np.ndarray((step, columns), out.dtype, room)
    for lead in np.ndindex(out.shape[:-2]):
        o, of, left, right = out[lead], x[lead], _at(a, lead), _at(b, lead)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            product = np.matmul(left[start:stop], right, out=part[: stop - start])
            np.add(of[start:stop], product, out=o[start:stop])


def addmm_room(out: Shape, b: Shape, itemsize: int) -> int:
    """Return the bytes :func:`addmm` works in."""
    turned = math.prod(b) * itemsize if b[-2] <= NARROW and len(b) == 2 else 0
    return turned + _rows(out[-1], out[-2], itemsize) * out[-1] * itemsize


def linear(
    out: Array, x: Array, w: Array | Frozen, b: Array | None, room: Array, *, transposed: bool
) -> None:
    """x @ w.T + b, or x @ w + b where transposed; ``room`` holds a slice of a frozen ``w``."""
    x = as_matrix(x)
    flat = out.reshape(*x.shape[:-1], out.shape[-1])
    if isinstance(w, Frozen):
        whole = w.whole
        if whole is None:
            (_sliced_transposed if transposed else _sliced)(flat, x, w, room)
        else:
            np.matmul(x, whole if transposed else whole.T, out=flat)
    else:
        np.matmul(x, w if transposed else w.T, out=flat)
    if b is not None:
        flat += b


def linear_room(out: Shape, w: Shape, itemsize: int, *, transposed: bool) -> int:
    """Return the bytes :func:`linear` works in where ``w`` is read from the file."""
    part = _columns(math.prod(out[:-1]), out[-1], itemsize) if transposed else 0
    return slice_rows(w[0], w[1] * itemsize) * w[1] * itemsize + math.prod(out[:-1]) * part * itemsize


def as_matrix(x: Array) -> Array:
    """Return [rows, columns] of [..., columns] where that is a view; else ``x``, which BLAS takes batch by batch."""
    rows = x.shape[:-1]
    if x.ndim == 2:
        return x
    if x.flags.c_contiguous:
        return x.reshape(math.prod(rows), x.shape[-1])
    long = [axis for axis, size in enumerate(rows) if size != 1]
    return x if len(long) > 1 else x[tuple(slice(None) if axis in long else 0 for axis in range(len(rows)))]


def _ready(operand: Array, room: Array) -> tuple[Array, Array]:
    if is_blas_ready(operand.shape, operand.strides, operand.itemsize):
        return operand, room
    copied: Array = np.ndarray(operand.shape, operand.dtype, room)
    np.copyto(copied, operand)
    return copied, room[copied.nbytes :]


def _sliced(out: Array, x: Array, w: Frozen, room: Array) -> None:
    step = slice_rows(w.shape[0], w.shape[1] * w.dtype.itemsize)
    buffer: Array = np.ndarray((step, w.shape[1]), w.dtype, room)
    for start in range(0, w.shape[0], step):
        stop = min(start + step, w.shape[0])
        np.matmul(x, w.rows(start, stop, buffer).T, out=out[..., start:stop])


def _sliced_transposed(out: Array, x: Array, w: Frozen, room: Array) -> None:
    """Sum x[:, slice] @ w[slice] over the slices; the partial products of some columns at a time wait in the room."""
    step, columns = slice_rows(w.shape[0], w.shape[1] * w.dtype.itemsize), w.shape[1]
    buffer: Array = np.ndarray((step, columns), w.dtype, room)
    room = room[buffer.nbytes :]
    count = math.prod(out.shape[:-1])
    width = _columns(count, columns, w.dtype.itemsize)
    for start in range(0, w.shape[0], step):
        stop = min(start + step, w.shape[0])
        left, right = x[..., start:stop], w.rows(start, stop, buffer)
        if not start:
            np.matmul(left, right, out=out)
            continue
        for first in range(0, columns, width):
            last = min(first + width, columns)
            part: Array = np.ndarray((*out.shape[:-1], last - first), out.dtype, room)
            np.matmul(left, right[:, first:last], out=part)
            into = out[..., first:last]
            np.add(into, part, out=into)


def _rows(columns: int, rows: int, itemsize: int) -> int:
    return max(1, min(rows, PART_BYTES // max(1, columns * itemsize)))


def _columns(rows: int, columns: int, itemsize: int) -> int:
    return max(1, min(columns, max(64, PART_BYTES // max(1, rows * itemsize))))


def _at(operand: Array, lead: tuple[int, ...]) -> Any:
    """Return the matrix of a batch at ``lead``, broadcast."""
    own = lead[len(lead) - (operand.ndim - 2) :]
    return operand[tuple(0 if size == 1 else i for i, size in zip(own, operand.shape, strict=False))]
