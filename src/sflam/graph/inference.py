"""What an operation makes, from what it is given: one function per form of operation; raises GraphError.

Each takes the operands in order, a :class:`Value` or a number, and the attributes, and returns the values made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sflam.errors import GraphError
from sflam.graph.graph import Numbers, Value
from sflam.graph.size import Shape, Size, count_of

Given = Value | float | int
Infer = Callable[[Sequence[Given], Mapping[str, Any]], list[Value]]

FLOAT: Numbers = "float"
INT: Numbers = "int"
BOOL: Numbers = "bool"
MOST_AXES = 8


def written(shape: Shape) -> str:
    """Return a shape as one writes it."""
    return f"[{', '.join(map(str, shape))}]"


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return NumPy's common shape; sizes that differ for any n are not alike, unless one is 1 for all."""
    rank = max(map(len, shapes))
    out = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis and not shape[axis].is_one}
        if len(sizes) > 1:
            raise GraphError(f"the shapes {', '.join(map(written, shapes))} do not go together")
        out.append(sizes.pop() if sizes else Size((1,)))
    return tuple(out)


def elementwise(kind: Numbers | None, *, of: Sequence[Numbers] = (FLOAT,)) -> Infer:
    """Operands of one kind of number among ``of``, with NumPy broadcasting; ``kind`` None gives that kind back.

    A whole number goes with anything, another number with float alone.
    """

    def infer(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
        return [Value(_together(given), kind or _common(given, of))]

    return infer


def where(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
    """A bool, and two of one kind."""
    expect(given[0], BOOL)
    shape = _together(given)
    return [Value(shape, _common(given[1:], (FLOAT, INT, BOOL), numbers=True))]


def same(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
    """Floats of one shape, the first operand's."""
    first = expect(given[0])
    for other in given[1:]:
        _expect_shape(other, first.shape)
    return [first]


def along(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """As :func:`same`, along one axis."""
    axis_of(attributes["axis"], expect(given[0]).shape)
    return same(given, attributes)


def cast(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """The same numbers of another kind."""
    return [Value(value(given[0]).shape, attributes["to"])]


def layer_norm(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
    """[..., d] and two [d]."""
    x = expect(given[0])
    _expect_axes(x, 1)
    for other in given[1:]:
        _expect_shape(other, x.shape[-1:])
    side = Value((*x.shape[:-1], Size((1,))))
    return [x, side, side]


def layer_norm_grad(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
    """[..., d] twice, two [..., 1], and [d]."""
    grad = expect(given[0])
    _expect_axes(grad, 1)
    shapes = [grad.shape, (*grad.shape[:-1], Size((1,))), (*grad.shape[:-1], Size((1,))), grad.shape[-1:]]
    for other, shape in zip(given[1:], shapes, strict=True):
        _expect_shape(other, shape)
    return [grad]


def reduce(kinds: Sequence[Numbers], result: Numbers | None = None) -> Infer:
    """Over ``axes``, which stay as 1 with ``keep``."""

    def infer(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
        x = expect(given[0], *kinds)
        axes = {axis_of(axis, x.shape) for axis in attributes["axes"]}
        if len(axes) != len(attributes["axes"]) or not axes:
            raise GraphError(f"axes {list(attributes['axes'])} of {written(x.shape)}; name each once")
        shape = tuple(
            Size((1,)) if axis in axes else size
            for axis, size in enumerate(x.shape)
            if attributes["keep"] or axis not in axes
        )
        return [Value(shape, result or x.numbers)]

    return infer


def cumulative(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Along one axis, of the same shape."""
    x = expect(given[0], FLOAT, INT)
    axis_of(attributes["axis"], x.shape)
    return [x]


def matmul(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
    """[..., a, b] and [..., b, c], what stands before broadcast."""
    x, y = expect(given[0]), expect(given[1])
    _expect_axes(x, 2)
    _expect_axes(y, 2)
    if x.shape[-1] != y.shape[-2]:
        raise GraphError(f"{written(x.shape)} cannot be multiplied by {written(y.shape)}")
    return [Value((*broadcast([x.shape[:-2], y.shape[:-2]]), x.shape[-2], y.shape[-1]))]


def addmm(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """[..., a, c] and the operands of a product of that shape."""
    [product] = matmul(given[1:], attributes)
    _expect_shape(given[0], product.shape)
    return [product]


def linear(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """[..., i], [o, i] or transposed [i, o], and perhaps [o]."""
    x, w = expect(given[0]), expect(given[1])
    _expect_axes(x, 1)
    if len(w.shape) != 2:
        raise GraphError(f"a matrix has the shape {written(w.shape)}; it must have two axes")
    inner, outer = w.shape if attributes["transposed"] else w.shape[::-1]
    if x.shape[-1] != inner:
        raise GraphError(f"{written(x.shape)} does not fit a matrix of {written(w.shape)}")
    if len(given) > 2:
        _expect_shape(given[2], (outer,))
    return [Value((*x.shape[:-1], outer))]


def reshape(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """As many numbers, for every n."""
    x, shape = value(given[0]), attributes["shape"]
    if count_of(x.shape) != count_of(shape):
        raise GraphError(f"{written(x.shape)} holds {count_of(x.shape)} numbers, {written(shape)} does not")
    return [Value(shape, x.numbers)]


def transpose(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Every axis once."""
    x, axes = value(given[0]), attributes["axes"]
    if sorted(axes) != list(range(len(x.shape))):
        raise GraphError(f"axes {list(axes)} of {written(x.shape)}; name each once, from 0")
    return [Value(tuple(x.shape[axis] for axis in axes), x.numbers)]


def expand(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Axes of 1 repeated, and new ones before."""
    x, shape = value(given[0]), attributes["shape"]
    if len(shape) < len(x.shape) or broadcast([x.shape, shape]) != shape:
        raise GraphError(f"{written(x.shape)} cannot be expanded to {written(shape)}")
    return [Value(shape, x.numbers)]


def slice_(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """From ``start`` up to ``stop`` along an axis; a ``step`` above 1 only between numbers."""
    x = value(given[0])
    axis = axis_of(attributes["axis"], x.shape)
    start, stop, step = attributes["start"], attributes["stop"], attributes["step"]
    length = stop - start
    if step != 1:
        if step < 1 or length.constant is None:
            raise GraphError(
                f"a slice from {start} to {stop} by {step}; a step above 1 is between numbers only"
            )
        length = Size.of(-(-length.constant // step))
    _expect_within(start, stop, x.shape[axis])
    return [Value((*x.shape[:axis], length, *x.shape[axis + 1 :]), x.numbers)]


def concat(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Side by side along an axis."""
    first = value(given[0])
    axis, total = axis_of(attributes["axis"], first.shape), Size(())
    for other in given:
        x = expect(other, first.numbers)
        if len(x.shape) != len(first.shape) or any(
            a != b for at, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if at != axis
        ):
            raise GraphError(f"{written(first.shape)} and {written(x.shape)} do not stand side by side")
        total = total + x.shape[axis]
    return [Value((*first.shape[:axis], total, *first.shape[axis + 1 :]), first.numbers)]


def pad(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Zeros before and after along an axis."""
    x = value(given[0])
    axis = axis_of(attributes["axis"], x.shape)
    for side in ("before", "after"):
        _expect_within(Size(()), attributes[side], None)
    size = x.shape[axis] + attributes["before"] + attributes["after"]
    return [Value((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.numbers)]


def take(given: Sequence[Given], _: Mapping[str, Any]) -> list[Value]:
    """Rows of a table, by number."""
    table, ids = value(given[0]), expect(given[1], INT)
    _expect_axes(table, 1)
    return [Value((*ids.shape, *table.shape[1:]), table.numbers)]


def take_along(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """One entry along an axis for each id; other axes alike."""
    x, ids = value(given[0]), expect(given[1], INT)
    axis = axis_of(attributes["axis"], x.shape)
    if len(ids.shape) != len(x.shape) or any(
        a != b for at, (a, b) in enumerate(zip(ids.shape, x.shape, strict=True)) if at != axis
    ):
        raise GraphError(f"ids of {written(ids.shape)} do not fit {written(x.shape)} but for axis {axis}")
    return [Value(ids.shape, x.numbers)]


def one_hot(given: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """A new last axis."""
    ids = expect(given[0], INT)
    return [Value((*ids.shape, attributes["size"]))]


def fill(_: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """One number everywhere."""
    return [Value(attributes["shape"], attributes["numbers"])]


def arange(_: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """0, 1, ... stop - 1."""
    return [Value((attributes["stop"],), INT)]


def count(_: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """A size as a number."""
    return [Value((), attributes["numbers"])]


def drawn(_: Sequence[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Floats of a shape."""
    if not 0 <= attributes.get("p", 0) < 1:
        raise GraphError(f"a dropout of {attributes['p']}; it is at least 0 and below 1")
    return [Value(attributes["shape"])]


def value(given: Given) -> Value:
    """Return a value; raises GraphError for a number."""
    if not isinstance(given, Value):
        raise GraphError(f"the number {given} stands where a value must")
    return given


def expect(given: Given, *kinds: Numbers) -> Value:
    """Return a value of one of the kinds of number, float by default."""
    found = value(given)
    if found.numbers not in (kinds or (FLOAT,)):
        raise GraphError(f"a value of {found.numbers} stands where {' or '.join(kinds or (FLOAT,))} must")
    return found


def axis_of(axis: int, shape: Shape) -> int:
    """Return an axis of a shape, counted from 0."""
    if not 0 <= axis < len(shape):
        raise GraphError(f"axis {axis} of {written(shape)}; it must be in 0..{len(shape) - 1}")
    return axis


def _together(given: Sequence[Given]) -> Shape:
    return broadcast([each.shape if isinstance(each, Value) else () for each in given])


def _common(given: Sequence[Given], kinds: Sequence[Numbers], *, numbers: bool = False) -> Numbers:
    """Return the one kind of the values among ``given``; with ``numbers`` there may be none."""
    found = {each.numbers for each in given if isinstance(each, Value)}
    loose = [each for each in given if not isinstance(each, Value)]
    if not found and numbers:
        found = {FLOAT if any(isinstance(each, float) for each in loose) else INT}
    if len(found) != 1 or not found <= set(kinds):
        raise GraphError(f"values of {sorted(found) or 'no kind'} where {' or '.join(kinds)} must stand")
    [kind] = found
    if kind != FLOAT and any(isinstance(each, float) for each in loose):
        raise GraphError(f"a number that is not whole stands beside values of {kind}")
    return kind


def _expect_shape(given: Given, shape: Shape) -> None:
    if expect(given).shape != shape:
        raise GraphError(f"a value of {written(value(given).shape)} stands where {written(shape)} must")


def _expect_axes(given: Value, least: int) -> None:
    if len(given.shape) < least:
        raise GraphError(f"{written(given.shape)} has fewer than {least} axes")


def _expect_within(start: Size, stop: Size, size: Size | None) -> None:
    """Refuse bounds that are numbers and out of order; those that hang on n are checked when it is known."""
    for low, high in [(Size(()), start), (start, stop), *([] if size is None else [(stop, size)])]:
        between = (high - low).constant
        if between is not None and between < 0:
            raise GraphError(f"from {start} to {stop}{'' if size is None else f' of {size}'} is out of order")
