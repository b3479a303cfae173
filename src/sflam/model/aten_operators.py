"""How aten operators become kinds of operation, each in a line or a few.

A function is given the lowering, torch's fake result, and the operator's arguments, tensors being names of values and
symbolic sizes :class:`Size`; it returns the name of the result, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sflam.errors import GraphError
from sflam.graph.graph import Operand
from sflam.graph.size import Shape, Size, count_of
from sflam.model.aten_views import Lower, expand, own_axis
from sflam.model.lowering import Lowering, numbers_of

LARGEST = float(torch.finfo(torch.float32).max)
LEAST = 1 - 2**31


def _number(value: Any) -> Any:
    """Return a number that JSON has: infinities become the largest number of float32."""
    if isinstance(value, float) and abs(value) > LARGEST:
        return LARGEST if value > 0 else -LARGEST
    if isinstance(value, float) and value != value:
        raise GraphError("a constant is NaN")
    return value


def _operands(low: Lowering, operands: Sequence[Any], numbers: str) -> list[Operand]:
    """Return operands of one kind of number; a size becomes a value."""
    found: list[Operand] = []
    for each in operands:
        if isinstance(each, Size) and each.constant is not None:
            each = each.constant
        if isinstance(each, Size):
            found.append(low.build("count", size=each, numbers=numbers))
        elif isinstance(each, str):
            found.append(low.build.cast(each, numbers))  # type: ignore[arg-type]
        else:
            found.append(float(_number(each)) if numbers == "float" else each)
    return found


def cells(kind: str, count: int = 2, **attributes: Any) -> Lower:
    """An elementwise operator; operands take on the kind of the result."""

    def lower(low: Lowering, value: Tensor, *args: Any, **options: Any) -> str:
        if options.get("alpha", 1) != 1 or len(args) > count or options.keys() - {"alpha"}:
            raise GraphError(f"options {args[count:]} {options}")
        return low.build(kind, *_operands(low, args, numbers_of(value.dtype)), **attributes)

    return lower


def compares(kind: str) -> Lower:
    """A comparison; operands take on the wider of their kinds."""

    def lower(low: Lowering, value: Tensor, a: Any, b: Any) -> str:
        kinds = [low.build.values[x].numbers if isinstance(x, str) else _kind(x) for x in (a, b)]
        widest = max(kinds, key=("bool", "int", "float").index)
        return low.build(kind, *_operands(low, (a, b), widest))

    return lower


def _kind(number: Any) -> str:
    return "bool" if isinstance(number, bool) else "float" if isinstance(number, float) else "int"


def logic(kind: str) -> Lower:
    """An operator of bools."""
    return lambda low, value, *args: low.build(kind, *_operands(low, args, "bool"))


def bitwise(kind: str) -> Lower:
    def lower(low: Lowering, value: Tensor, *args: Any) -> str:
        if value.dtype != torch.bool:
            raise GraphError("only bools are combined bit by bit")
        return low.build(kind, *args)

    return lower


def bmm(low: Lowering, value: Tensor, a: str, b: str) -> str:
    build = low.build
    if not (build.shape(a)[0].is_one and build.shape(b)[0].is_one):
        return build("matmul", a, b)
    product = build("matmul", build.reshape(a, build.shape(a)[1:]), build.reshape(b, build.shape(b)[1:]))
    return build.reshape(product, low.shape(value))


def addmm(low: Lowering, value: Tensor, x: str, a: str, b: str, **options: Any) -> str:
    if any(number != 1 for number in options.values()):
        raise GraphError(f"options {options}")
    return low.build("add", x, low.build("matmul", a, b))


def reduce(kind: str) -> Lower:
    def lower(
        low: Lowering, value: Tensor, x: str, axes: Any = None, keep: bool = False, dtype: Any = None
    ) -> str:
        every = range(len(low.build.shape(x)))
        listed = [axes] if isinstance(axes, int) else axes or every
        own = tuple(sorted(own_axis(low, x, axis) for axis in listed))
        x = low.build.cast(x, "bool" if kind in ("any", "all") else numbers_of(value.dtype))
        return low.build(kind, x, axes=own, keep=keep) if own else x

    return lower


def along(kind: str, inputs: int = 1) -> Lower:
    def lower(low: Lowering, value: Tensor, *args: Any) -> str:
        axis = own_axis(low, args[0], args[inputs])
        return low.build(kind, *args[:inputs], axis=axis)

    return lower


def cumsum(low: Lowering, value: Tensor, x: str, axis: int, **_: Any) -> str:
    return low.build("cumsum", low.build.cast(x, numbers_of(value.dtype)), axis=own_axis(low, x, axis))


def argmax(low: Lowering, value: Tensor, x: str, axis: int | None = None, keep: bool = False) -> str:
    """Return the first index of the largest: the largest of the negated indices where it stands."""
    if axis is None:
        raise GraphError("an argmax over all axes")
    build, own = low.build, own_axis(low, x, axis)
    x = build.cast(x, "int") if build.values[x].numbers == "bool" else x
    shape = build.shape(x)
    index = build.reshape(
        build("arange", stop=shape[own]), (shape[own], *(Size.of(1) for _ in shape[own + 1 :]))
    )
    largest = build("eq", x, build("max", x, axes=(own,), keep=True))
    return build(
        "neg", build("max", build("where", largest, build("neg", index), LEAST), axes=(own,), keep=keep)
    )


def layer_norm(low: Lowering, value: Any, x: str, shape: Any, w: Any, b: Any, eps: float) -> tuple[str, ...]:
    if len(shape) != 1:
        raise GraphError("a norm over more than the last axis")
    own = (low.build.shape(x)[-1],)
    w = w or low.build("fill", shape=own, value=1.0, numbers="float")
    b = b or low.build("fill", shape=own, value=0.0, numbers="float")
    return low.build.all("layer_norm", x, w, b, eps=eps)


def layer_norm_grad(
    low: Lowering,
    value: Any,
    grad: str,
    x: str,
    shape: Any,
    mean: str,
    rstd: str,
    w: Any,
    b: Any,
    wanted: Any,
) -> tuple[str | None, ...]:
    if any(wanted[1:]):
        raise GraphError("a norm whose weights are trained")
    w = w or low.build("fill", shape=(low.build.shape(x)[-1],), value=1.0, numbers="float")
    return low.build("layer_norm_grad", grad, x, mean, rstd, w), None, None


def gelu(low: Lowering, value: Tensor, x: str, approximate: str = "none") -> str:
    return low.build("gelu", x, approximate=approximate)


def gelu_grad(low: Lowering, value: Tensor, grad: str, x: str, approximate: str = "none") -> str:
    return low.build("gelu_grad", grad, x, approximate=approximate)


def threshold_grad(low: Lowering, value: Tensor, grad: str, x: str, threshold: float) -> str:
    return low.build("where", low.build("le", x, float(threshold)), 0.0, grad)


def tanh_grad(low: Lowering, value: Tensor, grad: str, out: str) -> str:
    return low.build("mul", grad, low.build("sub", 1.0, low.build("mul", out, out)))


def sigmoid_grad(low: Lowering, value: Tensor, grad: str, out: str) -> str:
    return low.build("mul", low.build("mul", grad, out), low.build("sub", 1.0, out))


def pow(low: Lowering, value: Tensor, x: str, exponent: float) -> str:
    if exponent in (2, 3):
        square = low.build("mul", x, x)
        return square if exponent == 2 else low.build("mul", square, x)
    if exponent == 1:
        return x
    return low.build("pow", low.build.cast(x, "float"), float(exponent))


def where(low: Lowering, value: Tensor, condition: str, a: Any, b: Any) -> str:
    return low.build("where", condition, *_operands(low, (a, b), numbers_of(value.dtype)))


def masked_fill(low: Lowering, value: Tensor, x: str, mask: str, filler: Any) -> str:
    return low.build("where", mask, *_operands(low, (filler, x), numbers_of(value.dtype)))


def filled(number: float | None) -> Lower:
    """A new tensor of one number; the operator's own last argument where ``number`` is None."""

    def lower(low: Lowering, value: Tensor, *args: Any, **_: Any) -> str:
        numbers = numbers_of(value.dtype)
        found = args[-1] if number is None else number
        if isinstance(found, Size):
            if found.constant is None:
                return expand(low, value, low.build("count", size=found, numbers=numbers))
            found = found.constant
        found = {"float": float, "int": int, "bool": bool}[numbers](_number(found))
        return low.build("fill", shape=low.shape(value), value=found, numbers=numbers)

    return lower


def arange(low: Lowering, value: Tensor, *bounds: Any, **_: Any) -> str:
    start, stop = (Size.of(0), low.size(bounds[0])) if len(bounds) == 1 else map(low.size, bounds[:2])
    if len(bounds) > 2 and bounds[2] != 1:
        raise GraphError("a range by steps")
    found = low.build("arange", stop=stop - start)
    if start != Size.of(0):
        found = low.build("add", found, *_operands(low, [start], "int"))
    return low.build.cast(found, numbers_of(value.dtype))


def embedding(low: Lowering, value: Tensor, table: str, ids: str, *_: Any) -> str:
    return low.build("take", table, ids)


def index_select(low: Lowering, value: Tensor, x: str, axis: int, ids: str) -> str:
    if own_axis(low, x, axis) != 0:
        raise GraphError("rows are taken along the first axis only")
    return low.build("take", x, ids)


def index(low: Lowering, value: Tensor, x: str, ids: Sequence[Any]) -> str:
    """Entries by one id per leading axis: rows of a table whose leading axes are merged."""
    shape, build = low.build.shape(x), low.build
    table = build.reshape(x, (count_of(shape[: len(ids)]), *shape[len(ids) :]))
    return build("take", table, _merged(low, shape, ids))


def index_add(
    low: Lowering, value: Tensor, x: str, ids: Sequence[Any], added: str, accumulate: bool = False
) -> str:
    """Add to entries by one id per leading axis, as :func:`index` takes them: a product with their unit vectors."""
    shape, build = low.build.shape(x), low.build
    rows, inner = count_of(shape[: len(ids)]), shape[len(ids) :]
    flat = _merged(low, shape, ids)
    if not accumulate or len(build.shape(flat)) != 1:
        raise GraphError("entries are added to by one list of ids, not set")
    places = build("transpose", build("one_hot", flat, size=rows), axes=(1, 0))
    sums = build("matmul", places, build.reshape(added, (*build.shape(flat), count_of(inner))))
    return build("add", x, build.reshape(sums, shape))


def _merged(low: Lowering, shape: Shape, ids: Sequence[Any]) -> str:
    """Return the ids of rows of a table whose leading axes are merged."""
    build = low.build
    if any(each is None or build.values[each].numbers != "int" for each in ids):
        raise GraphError("entries are taken by numbers along the leading axes only")
    flat: str = ids[0]
    for size, each in zip(shape[1:], ids[1:], strict=False):
        [width] = _operands(low, [size], "int")
        flat = build("add", build("mul", flat, width), each)
    return flat


def gather(low: Lowering, value: Tensor, x: str, axis: int, ids: str) -> str:
    return low.build("take_along", x, ids, axis=own_axis(low, x, axis))


def scatter_add(low: Lowering, value: Tensor, x: str, axis: int, ids: str, added: str) -> str:
    """The backward of one entry taken of each row: a column is added where its row's number says."""
    build = low.build
    shape = build.shape(ids)
    axis = own_axis(low, x, axis)
    if axis != len(shape) - 1 or not shape[axis].is_one or shape[:axis] != build.shape(x)[:axis]:
        raise GraphError("more is added to a row than one entry")
    chosen = build("one_hot", build.reshape(ids, shape[:axis]), size=build.shape(x)[axis])
    return build("add", x, build("mul", chosen, added))


def patches(low: Lowering, value: Tensor, x: str, w: str, b: Any, *options: Any) -> str:
    """A convolution whose stride is its kernel: patches side by side, times a matrix."""
    build = low.build
    (n, channels, height, width), (out, inner, *kernel) = build.shape(x), build.shape(w)
    stride, padding, dilation, transposed, _, groups = options
    sides = [size.constant for size in (height, width, *kernel)]
    if transposed or groups != 1 or any(padding) or any(each != 1 for each in dilation) or inner != channels:
        raise GraphError("a convolution that is not of patches side by side")
    if None in sides or list(stride) != sides[2:] or sides[0] % sides[2] or sides[1] % sides[3]:  # type: ignore[operator]
        raise GraphError("a convolution that is not of patches side by side")
    rows, columns = Size.of(sides[0] // sides[2]), Size.of(sides[1] // sides[3])  # type: ignore[operator]
    cut = build("reshape", x, shape=(n, channels, rows, kernel[0], columns, kernel[1]))
    cut = build("transpose", cut, axes=(0, 2, 4, 1, 3, 5))
    each = channels * kernel[0] * kernel[1]
    cut = build.reshape(cut, (n, rows * columns, each))
    matrix = build.reshape(w, (out, each))
    found = build("linear", cut, matrix, *([b] if b else []), transposed=False)
    return build.reshape(build("transpose", found, axes=(0, 2, 1)), (n, out, rows, columns))


def nll(low: Lowering, value: Any, log_p: str, ids: str, weight: Any, reduction: int, ignored: int) -> Any:
    if weight is not None or reduction != 0:
        raise GraphError("classes with weights, or a mean over targets")
    column = low.build.reshape(ids, (*low.build.shape(ids), Size.of(1)))
    picked = low.build("take_along", log_p, column, axis=1)
    return low.build("neg", low.build.reshape(picked, low.build.shape(ids))), None


def nll_grad(
    low: Lowering, value: Tensor, grad: str, log_p: str, ids: str, weight: Any, reduction: int, *_: Any
) -> str:
    if weight is not None or reduction != 0:
        raise GraphError("classes with weights, or a mean over targets")
    chosen = low.build("one_hot", ids, size=low.build.shape(log_p)[1])
    column = low.build.reshape(low.build("neg", grad), (*low.build.shape(ids), Size.of(1)))
    return low.build("mul", chosen, column)


def dropout(low: Lowering, value: Tensor, x: str, kept: float) -> str:
    return low.build("dropout_mask", shape=low.shape(value), p=1.0 - kept, stream=low.stream())


def uniform(low: Lowering, value: Tensor, *_: Any, **__: Any) -> str:
    return low.build("uniform", shape=low.shape(value), stream=low.stream())


def resized(low: Lowering, value: Tensor, x: str, *_: Any) -> str:
    if low.build.shape(x) != low.shape(value):
        raise GraphError("an image is resized")
    return x


def item(low: Lowering, value: Any, x: tuple[Any, ...], index: int) -> Any:
    return x[index]
