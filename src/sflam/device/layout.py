"""Where the values of a graph lie: which share memory, and which are made in the memory of a value used no more.

A layout is symbolic: offset, shape and strides are sizes of n, counted in numbers, so that it holds for every n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sflam.graph.graph import Operation
from sflam.graph.size import Shape, Size, count_of, shape_of

ONE = Size((1,))
ZERO = Size(())


@dataclass(frozen=True)
class Strided:
    """A part of a storage.

    Attributes:
        storage: number of the storage.
        numbers: kind of its numbers.
        offset: first number.
        shape: sizes.
        strides: numbers from one item to the next, per axis.
    """

    storage: int
    numbers: str
    offset: Size
    shape: Shape
    strides: Shape

    @property
    def whole(self) -> bool:
        """Whether it may stand for its storage: contiguous, from the start."""
        return self.offset == ZERO and self.strides == contiguous(self.shape)


def contiguous(shape: Shape) -> Shape:
    """Return the strides of an array without gaps."""
    out: list[Size] = []
    below = ONE
    for size in reversed(shape):
        out.append(below)
        below = below * size
    return tuple(reversed(out))


def view_of(operation: Operation, x: Strided) -> Strided | None:
    """Return the layout of a view, or None where it must be a copy."""
    attributes: Any = operation.attributes
    if operation.kind == "reshape":
        strides = _reshaped(x, tuple(attributes["shape"]))
        return None if strides is None else _changed(x, tuple(attributes["shape"]), strides)
    if operation.kind == "transpose":
        axes = attributes["axes"]
        return _changed(x, tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))
    if operation.kind == "expand":
        shape = tuple(attributes["shape"])
        new = len(shape) - len(x.shape)
        strides = tuple(
            ZERO if axis < new or x.shape[axis - new] != size else x.strides[axis - new]
            for axis, size in enumerate(shape)
        )
        return _changed(x, shape, strides)
    if operation.kind == "slice":
        axis, start, step = attributes["axis"], Size.of(attributes["start"]), attributes["step"]
        length = Size.of(attributes["stop"]) - start
        if step != 1:
            constant = length.constant
            assert constant is not None
            length = Size.of(-(-constant // step))
        shape = (*x.shape[:axis], length, *x.shape[axis + 1 :])
        strides = (*x.strides[:axis], x.strides[axis] * Size.of(step), *x.strides[axis + 1 :])
        return Strided(x.storage, x.numbers, x.offset + x.strides[axis] * start, shape, strides)
    raise AssertionError(operation.kind)


def _changed(x: Strided, shape: Shape, strides: Shape) -> Strided:
    return Strided(x.storage, x.numbers, x.offset, shape, strides)


def _reshaped(x: Strided, shape: Shape) -> Shape | None:
    """Return the strides of a reshaped view: every run of axes without gaps must be cut anew by itself."""
    runs: list[tuple[Size, Size]] = []  # numbers in the run, stride of its last axis
    before: tuple[Size, Size] | None = None  # size and stride of the axis before
    for size, stride in zip(x.shape, x.strides, strict=True):
        if size.is_one:
            continue
        if before is not None and before[1] == stride * size:
            runs[-1] = (runs[-1][0] * size, stride)
        else:
            runs.append((size, stride))
        before = (size, stride)
    strides: list[Size] = []
    ahead = list(shape)
    for total, stride in runs:
        part: list[Size] = []
        while count_of(part) != total:
            if not ahead:
                return None
            part.append(ahead.pop(0))
        strides += [stride * below for below in contiguous(tuple(part))]
    if not all(size.is_one for size in ahead):
        return None
    return (*strides, *(ONE for _ in ahead))


def fresh(storage: int, numbers: str, shape: Sequence[Size | int]) -> Strided:
    """Return the layout of a value that has a storage to itself."""
    sizes = shape_of(*shape)
    return Strided(storage, numbers, ZERO, sizes, contiguous(sizes))
