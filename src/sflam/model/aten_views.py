"""How aten operators that move, cut and join values become kinds of operation; see :mod:`aten_operators`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sflam.errors import GraphError
from sflam.graph.inference import axis_of
from sflam.graph.size import Size
from sflam.model.lowering import Lowering, numbers_of

Lower = Callable[..., Any]
END = torch.iinfo(torch.int64).max


def own_axis(low: Lowering, x: str, axis: int) -> int:
    """Return an axis of a value, counted from 0."""
    rank = len(low.build.shape(x))
    return axis_of(axis + rank if axis < 0 else axis, low.build.shape(x))


def same(low: Lowering, value: Tensor, x: str, *_: Any, **__: Any) -> str:
    return low.build.cast(x, numbers_of(value.dtype))


def shaped(low: Lowering, value: Tensor, x: str, *_: Any) -> str:
    return low.build.reshape(x, low.shape(value))


def expand(low: Lowering, value: Tensor, x: str, *_: Any, **__: Any) -> str:
    shape = low.shape(value)
    return x if low.build.shape(x) == shape else low.build("expand", x, shape=shape)


def permute(low: Lowering, value: Tensor, x: str, axes: Sequence[int]) -> str:
    return low.build("transpose", x, axes=tuple(own_axis(low, x, axis) for axis in axes))


def transpose(low: Lowering, value: Tensor, x: str, a: int, b: int) -> str:
    axes = list(range(len(low.build.shape(x))))
    a, b = own_axis(low, x, a), own_axis(low, x, b)
    axes[a], axes[b] = b, a
    return low.build("transpose", x, axes=tuple(axes))


def t(low: Lowering, value: Tensor, x: str) -> str:
    return transpose(low, value, x, 0, 1) if len(low.build.shape(x)) == 2 else x


def _bound(low: Lowering, bound: Any, size: Size, default: Size) -> Size:
    """Return one end of a slice, counted from the start and inside where both are numbers."""
    if bound is None or bound == END:
        return default
    found = low.size(bound)
    constant, most = found.constant, size.constant
    if constant is not None and constant < 0:
        found = size + constant
    if most is not None and found.constant is not None:
        return Size.of(min(max(found.constant, 0), most))
    return found


def slice(
    low: Lowering, value: Tensor, x: str, axis: int = 0, start: Any = None, stop: Any = None, step: int = 1
) -> str:
    axis = own_axis(low, x, axis)
    size = low.build.shape(x)[axis]
    begin, end = _bound(low, start, size, Size.of(0)), _bound(low, stop, size, size)
    if begin == Size.of(0) and end == size and step == 1:
        return x
    return low.build("slice", x, axis=axis, start=begin, stop=end, step=int(step))


def slice_grad(
    low: Lowering, value: Tensor, grad: str, sizes: Any, axis: int, start: Any, stop: Any, step: int
) -> str:
    shape = low.shape(value)
    axis = axis_of(axis + len(shape) if axis < 0 else axis, shape)
    begin, end = _bound(low, start, shape[axis], Size.of(0)), _bound(low, stop, shape[axis], shape[axis])
    if step != 1:
        raise GraphError("the gradient of a slice by steps")
    if begin == Size.of(0) and end == shape[axis]:
        return grad
    return low.build("pad", grad, axis=axis, before=begin, after=shape[axis] - end)


def select(low: Lowering, value: Tensor, x: str, axis: int, index: Any) -> str:
    axis = own_axis(low, x, axis)
    begin = _bound(low, index, low.build.shape(x)[axis], Size.of(0))
    one = low.build("slice", x, axis=axis, start=begin, stop=begin + 1, step=1)
    return low.build.reshape(one, low.shape(value))


def select_grad(low: Lowering, value: Tensor, grad: str, sizes: Any, axis: int, index: Any) -> str:
    shape = low.shape(value)
    axis = axis_of(axis + len(shape) if axis < 0 else axis, shape)
    begin = _bound(low, index, shape[axis], Size.of(0))
    own = low.build.reshape(grad, (*shape[:axis], Size.of(1), *shape[axis + 1 :]))
    return low.build("pad", own, axis=axis, before=begin, after=shape[axis] - begin - 1)


def split(low: Lowering, value: Sequence[Tensor], x: str, _: Any, axis: int = 0) -> tuple[str, ...]:
    axis, at, parts = own_axis(low, x, axis), Size.of(0), []
    for part in value:
        end = at + low.shape(part)[axis]
        parts.append(low.build("slice", x, axis=axis, start=at, stop=end, step=1))
        at = end
    return tuple(parts)


def unbind(low: Lowering, value: Sequence[Tensor], x: str, axis: int = 0) -> tuple[str, ...]:
    return tuple(select(low, part, x, axis, index) for index, part in enumerate(value))


def cat(low: Lowering, value: Tensor, parts: Sequence[str], axis: int = 0) -> str:
    axis = own_axis(low, parts[0], axis)
    own = [low.build.cast(part, numbers_of(value.dtype)) for part in parts]
    return own[0] if len(own) == 1 else low.build("concat", *own, axis=axis)


def stack(low: Lowering, value: Tensor, parts: Sequence[str], axis: int = 0) -> str:
    shape = low.shape(value)
    axis = axis_of(axis + len(shape) if axis < 0 else axis, shape)
    one = (*shape[:axis], Size.of(1), *shape[axis + 1 :])
    return cat(low, value, [low.build.reshape(part, one) for part in parts], axis)


def copied(low: Lowering, value: Tensor, x: str, source: str, *_: Any) -> str:
    """What is written over all of a value."""
    return expand(low, value, low.build.cast(source, numbers_of(value.dtype)))
