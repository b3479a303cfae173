"""Every kind of operation against torch, in float32 and float64, whole and in blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sflam.device.engine import Engine
from sflam.device.kernels.cells import CELLS
from sflam.device.kernels.table import KERNELS
from sflam.graph.operations import KINDS
from tests.device.building import Builder

aten: Any = torch.ops.aten
SHAPE = (3, 5, 8)


@dataclass(frozen=True)
class Example:
    """One operation: shapes of its inputs ("+" positive, "i" ids below 5), attributes, and torch's words for it."""

    kind: str
    shapes: tuple[Any, ...]
    torch: Callable[..., Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""


def _gelu_grad(mode: str) -> Callable[..., Any]:
    return lambda g, x: aten.gelu_backward(g, x, approximate=mode)


def _layer_norm(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return tuple(aten.native_layer_norm(x, [8], w, b, 1e-5))


def _layer_norm_grad(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
    _, mean, rstd = aten.native_layer_norm(x, [8], w, torch.zeros_like(w), 1e-5)
    return aten.native_layer_norm_backward(g, x, [8], mean, rstd, w, None, [True, False, False])[0]


SAME = (SHAPE, SHAPE)
EXAMPLES = [
    *(
        Example(kind, (SHAPE, shape), getattr(torch, name), name=f"{kind}-{shape}")
        for kind, name in [("add", "add"), ("sub", "sub"), ("mul", "mul"), ("div", "div")]
        for shape in (SHAPE, (8,), (5, 1), (3, 1, 1), ())
    ),
    *(
        Example(kind, SAME, getattr(torch, kind))
        for kind in ("maximum", "minimum", "remainder", "floor_divide")
    ),
    *(
        Example(kind, (SHAPE,), getattr(torch, kind))
        for kind in ("neg", "abs", "exp", "expm1", "tanh", "sigmoid", "erf", "sin", "cos", "floor", "relu")
    ),
    *(Example(k, ("+",), getattr(torch, k)) for k in ("log", "log1p", "sqrt", "rsqrt", "reciprocal")),
    Example("pow", ("+", SHAPE), torch.pow),
    *(Example("pow", ("+", e), torch.pow, name=f"pow-{e}") for e in (2, 3, 0.5, -0.5, 1.7)),
    Example("silu", (SHAPE,), F.silu),
    Example("silu_grad", SAME, aten.silu_backward),
    *(
        Example("gelu", (SHAPE,), lambda x, m=m: F.gelu(x, approximate=m), {"approximate": m})
        for m in ("none", "tanh")
    ),
    *(Example("gelu_grad", SAME, _gelu_grad(m), {"approximate": m}) for m in ("none", "tanh")),
    *(Example(k, SAME, getattr(torch, k)) for k in ("eq", "ne", "lt", "le", "gt", "ge")),
    *(Example("softmax", (SHAPE,), lambda x, a=a: F.softmax(x, a), {"axis": a}) for a in range(3)),
    *(Example("log_softmax", (SHAPE,), lambda x, a=a: F.log_softmax(x, a), {"axis": a}) for a in range(3)),
    *(
        Example(
            "softmax_grad", SAME, lambda g, y, a=a: aten._softmax_backward_data(g, y, a, y.dtype), {"axis": a}
        )
        for a in range(3)
    ),
    *(
        Example(
            "log_softmax_grad",
            SAME,
            lambda g, y, a=a: aten._log_softmax_backward_data(g, y, a, y.dtype),
            {"axis": a},
        )
        for a in range(3)
    ),
    Example("layer_norm", (SHAPE, (8,), (8,)), _layer_norm, {"eps": 1e-5}),
    *(
        Example(
            k, (SHAPE,), lambda x, k=k, a=a, e=e: getattr(torch, _REDUCE[k])(x, a, e), {"axes": a, "keep": e}
        )
        for k in ("sum", "mean", "max")
        for a in ((0,), (2,), (0, 1))
        for e in (True, False)
    ),
    Example("cumsum", (SHAPE,), lambda x: x.cumsum(1), {"axis": 1}),
    Example("matmul", (SHAPE, (3, 8, 4)), torch.matmul),
    Example("matmul", (SHAPE, (8, 4)), torch.matmul, name="matmul-broadcast"),
    Example("addmm", ((5, 7), (5, 8), (8, 7)), torch.addmm),
    Example("addmm", ((3, 5, 7), (3, 5, 8), (8, 7)), lambda x, a, b: x + a @ b, name="addmm-batched"),
    Example("linear", (SHAPE, (4, 8), (4,)), F.linear, {"transposed": False}),
    Example("linear", (SHAPE, (4, 8)), F.linear, {"transposed": False}, name="linear-plain"),
    Example("linear", (SHAPE, (8, 4)), torch.matmul, {"transposed": True}, name="linear-transposed"),
    *(Example("concat", SAME, lambda a, b, x=x: torch.cat([a, b], x), {"axis": x}) for x in range(3)),
    *(
        Example(
            "pad",
            (SHAPE,),
            lambda x, a=a: F.pad(x, [v for at in (2, 1, 0) for v in ((1, 2) if at == a else (0, 0))]),
            {"axis": a, "before": 1, "after": 2},
        )
        for a in range(3)
    ),
    Example("take", ((5, 8), "i"), lambda t, i: F.embedding(i, t)),
    Example("take_along", (SHAPE, "i"), lambda x, i: x.gather(1, i), {"axis": 1}),
    Example("one_hot", ("i",), lambda i: F.one_hot(i, 6), {"size": 6}),
    Example("arange", (), lambda: torch.arange(6), {"stop": 6}),
    Example("fill", (), lambda: torch.full((2, 3), 1.5), {"shape": (2, 3), "value": 1.5, "numbers": "float"}),
    Example("count", (), lambda: torch.tensor(7.0), {"size": 7, "numbers": "float"}),
]
_REDUCE = {"sum": "sum", "mean": "mean", "max": "amax"}
ELSEWHERE = {"and", "or", "not", "where", "cast", "any", "all", "dropout_mask", "uniform", "layer_norm_grad"}


def draw(shape: Any, dtype: type, rng: np.random.Generator) -> Any:
    """Return an operand."""
    if shape == "i":
        return rng.integers(0, 5, (3, 2, 8))
    if shape == "+":
        return rng.uniform(0.3, 3, SHAPE).astype(dtype)
    return rng.standard_normal(shape).astype(dtype) * 2 if isinstance(shape, tuple) else shape


def run(example: Example, operands: list[Any], dtype: type) -> list[Any]:
    """Return what the engine makes of one operation."""
    builder = Builder()
    names = [
        builder.given(*each.shape, numbers="int" if each.dtype == np.int64 else "float")
        if isinstance(each, np.ndarray)
        else each
        for each in operands
    ]
    made = builder.add(example.kind, *names, **_sizes(example.attributes))
    outputs = made if isinstance(made, tuple) else (made,)
    given = {n: v for n, v in zip(names, operands, strict=True) if isinstance(n, str)}
    found = Engine(builder.graph(*outputs), dtype).run(given, 1)
    return [found[name] for name in outputs]


def _sizes(attributes: dict[str, Any]) -> dict[str, Any]:
    from sflam.graph.size import Size

    sized = {"size", "stop", "before", "after"}
    return {
        k: Size.of(v) if k in sized else tuple(map(Size.of, v)) if k == "shape" else v
        for k, v in attributes.items()
    }


def agree(ours: Any, theirs: Any, dtype: type) -> None:
    """Fail unless two arrays agree to 1e-6 (float32) or 1e-12 (float64) of the largest number."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    tolerance = (1e-6 if dtype == np.float32 else 1e-12) * max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda e: e.name or f"{e.kind}-{list(e.attributes.values())}"
)
def test_same_as_torch(example: Example, dtype: type, cut: bool) -> None:
    rng = np.random.default_rng(3)
    operands = [draw(shape, dtype, rng) for shape in example.shapes]
    if example.kind.endswith("softmax_grad"):
        operands[1] = F.softmax(torch.from_numpy(operands[1]), example.attributes["axis"]).numpy()
    theirs = example.torch(
        *(
            torch.from_numpy(x)
            if isinstance(x, np.ndarray) and x.ndim
            else torch.as_tensor(x)
            if isinstance(x, np.ndarray)
            else x
            for x in operands
        )
    )
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for ours, other in zip(run(example, operands, dtype), theirs, strict=True):
        agree(ours, other, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layer_norm_grad_same_as_torch(dtype: type, cut: bool) -> None:
    rng = np.random.default_rng(3)
    grad, x, w = (draw(shape, dtype, rng) for shape in (SHAPE, SHAPE, (8,)))
    builder = Builder()
    g, inner, weight = builder.given(*SHAPE), builder.given(*SHAPE), builder.given(8)
    _, mean, rstd = builder.add("layer_norm", inner, weight, weight, eps=1e-5)
    out = builder.add("layer_norm_grad", g, inner, mean, rstd, weight)
    found = Engine(builder.graph(out), dtype).run({g: grad, inner: x, weight: w}, 1)[out]
    agree(found, _layer_norm_grad(*map(torch.from_numpy, (grad, x, w))), dtype)


def test_bools_same_as_torch(cut: bool) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(SHAPE).astype(np.float32), rng.standard_normal(SHAPE).astype(np.float32)
    builder = Builder()
    a, b = builder.given(*SHAPE), builder.given(*SHAPE)
    more, less = builder.add("gt", a, b), builder.add("lt", a, 0.0)
    both, either = builder.add("and", more, less), builder.add("or", more, less)
    neither = builder.add("not", either)
    chosen = builder.add("where", neither, a, b)
    number = builder.add("cast", both, to="float")
    whole = builder.add("cast", a, to="int")
    some, every = (builder.add(k, either, axes=(1,), keep=False) for k in ("any", "all"))
    found = Engine(builder.graph(chosen, number, whole, some, every)).run({a: x, b: y}, 1)
    p, q = torch.from_numpy(x), torch.from_numpy(y)
    one, two = (p > q) & (p < 0), (p > q) | (p < 0)
    for name, theirs in [
        (chosen, torch.where(~two, p, q)),
        (number, one.float()),
        (whole, p.long()),
        (some, two.any(1)),
        (every, two.all(1)),
    ]:
        np.testing.assert_array_equal(found[name], theirs.numpy())


def test_every_kind_is_computed_and_compared() -> None:
    views = {kind for kind, row in KINDS.items() if row.view}
    assert set(CELLS) == {kind for kind, row in KINDS.items() if row.cells}
    assert set(CELLS) | set(KERNELS) | views >= set(KINDS)
    assert {each.kind for each in EXAMPLES} | ELSEWHERE | views >= set(KINDS)
