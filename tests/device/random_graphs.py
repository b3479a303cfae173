"""Random small graphs with one symbolic size, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sflam.errors import GraphError
from sflam.graph.graph import Graph
from sflam.graph.size import N, Size, count_of
from tests.device.building import Builder

FOUR = Size((4,))
UNARY = ("neg", "abs", "tanh", "sigmoid", "erf", "sin", "cos", "relu", "silu")
BINARY = ("add", "sub", "mul", "maximum", "minimum", "silu_grad", "gelu_grad")
SHAPES = [(N, 4), (1, N, 4), (2, N, 4), (N, N), (4,), (N, 1), (4, 4), (2, 1, 4), ()]


@st.composite
def graphs(draw: Any) -> Graph:
    """Draw up to 25 operations over a few inputs; the outputs are any of the values."""
    builder = Builder()
    pool = [builder.given(*draw(st.sampled_from(SHAPES))) for _ in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(1, 25))):
        try:
            made = _operation(draw, builder, pool)
        except GraphError:
            continue  # shapes that do not go together
        pool += [made] if isinstance(made, str) else list(made)
    floats = [name for name in pool if builder.values[name].numbers == "float"]
    outputs = draw(st.lists(st.sampled_from(floats), min_size=1, max_size=4, unique=True))
    return builder.graph(*outputs)


def _operation(draw: Any, builder: Builder, pool: list[str]) -> Any:
    x, y = (draw(st.sampled_from(pool)) for _ in range(2))
    shape = builder.values[x].shape
    axis = draw(st.integers(0, max(0, len(shape) - 1)))
    kind = draw(
        st.sampled_from(
            ["unary", "binary", "binary", "number", "where", "view", "view", "rows", "product", "more"]
        )
    )
    if kind == "unary":
        name = draw(st.sampled_from((*UNARY, "gelu")))
        return builder.add(
            name, x, **({"approximate": draw(st.sampled_from(["none", "tanh"]))} if name == "gelu" else {})
        )
    if kind == "binary":
        name = draw(st.sampled_from(BINARY))
        return builder.add(name, x, y, **({"approximate": "none"} if name == "gelu_grad" else {}))
    if kind == "number":
        return builder.add(
            draw(st.sampled_from(["add", "mul", "maximum"])), x, draw(st.sampled_from([0.5, -1.0, 2]))
        )
    if kind == "where":  # of inputs: a rounding error must not turn a comparison
        a, b = (draw(st.sampled_from(builder.inputs)) for _ in range(2))
        return builder.add("where", builder.add("gt", a, b), draw(st.sampled_from([x, 0.0])), y)
    if kind == "view":
        return _view(draw, builder, x, axis)
    if kind == "rows":
        return _rows(draw, builder, x, y, axis)
    if kind == "product":
        return _product(draw, builder, x, y, pool)
    name = draw(st.sampled_from(["sum", "mean", "max", "concat", "pad", "cumsum"]))
    if name == "concat":
        return builder.add("concat", x, draw(st.sampled_from(pool)), axis=axis)
    if name == "pad":
        return builder.add("pad", x, axis=axis, before=Size.of(draw(st.integers(0, 2))), after=Size.of(1))
    if name == "cumsum":
        return builder.add("cumsum", x, axis=axis)
    shape = builder.values[x].shape
    if shape and shape[axis].at(1) < 1:  # neither mean nor largest of nothing is defined
        name = "sum"
    return builder.add(name, x, axes=(axis,), keep=draw(st.booleans()))


def _view(draw: Any, builder: Builder, x: str, axis: int) -> Any:
    shape = builder.values[x].shape
    name = draw(st.sampled_from(["reshape", "transpose", "expand", "slice"]))
    if name == "transpose":
        return builder.add(name, x, axes=tuple(draw(st.permutations(range(len(shape))))))
    if name == "expand":
        return builder.add(name, x, shape=(Size.of(3), *(N if size.is_one else size for size in shape)))
    if name == "slice":
        stop = shape[axis] if shape else Size(())
        start = Size.of(draw(st.integers(0, 1)) if stop.at(1) > 0 else 0)  # no size below 0 for any n
        return builder.add(name, x, axis=axis, start=start, stop=stop, step=1)
    total = count_of(shape)
    return builder.add(
        name,
        x,
        shape=draw(st.sampled_from([(total,), (1, total), (*shape, 1), _merged(shape, axis), _split(shape)])),
    )


def _merged(shape: tuple[Size, ...], axis: int) -> tuple[Size, ...]:
    return (*shape[:axis], count_of(shape[axis : axis + 2]), *shape[axis + 2 :])


def _split(shape: tuple[Size, ...]) -> tuple[Size | int, ...]:
    if shape and shape[-1] == FOUR:
        return tuple(map(Size.of, (*shape[:-1], 2, 2)))
    return shape


def _rows(draw: Any, builder: Builder, x: str, y: str, axis: int) -> Any:
    name = draw(st.sampled_from(["softmax", "log_softmax", "softmax_grad", "log_softmax_grad", "layer_norm"]))
    if name == "layer_norm":
        width = builder.values[x].shape[-1:]
        w, b = builder.given(*width, weight=True), builder.given(*width)
        out, mean, rstd = builder.add(name, x, w, b, eps=0.1)
        back = builder.add("layer_norm_grad", out, x, mean, rstd, w)
        return [out, mean, back]
    return builder.add(name, x, *([y] if name.endswith("grad") else []), axis=axis)


def _product(draw: Any, builder: Builder, x: str, y: str, pool: list[str]) -> Any:
    shape = builder.values[x].shape
    name = draw(st.sampled_from(["matmul", "self", "linear", "back", "addmm"]))
    if name == "matmul":
        return builder.add("matmul", x, y)
    if name == "self":
        axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        return builder.add("matmul", x, builder.add("transpose", x, axes=axes))
    if name == "addmm":
        rank = draw(st.sampled_from([1, 2]))
        a, b = builder.given(*shape[:-1], rank), builder.given(rank, *shape[-1:])
        return builder.add("addmm", x, a, b)
    inner = shape[-1:]
    back = name == "back"
    w = builder.given(*((*inner, 6) if back else (6, *inner)), weight=True)
    bias = [] if back or draw(st.booleans()) else [builder.given(6, weight=True)]
    return builder.add("linear", x, w, *bias, transposed=back)
