"""The reference of the kinds against torch, and against what the table infers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import KINDS, made
from sflam.graph.size import N, Size, shape_of
from sflam.model.interpreter import COMPUTED, run_graph

DRAW = np.random.default_rng(0)


def f(*shape: int) -> Any:
    return DRAW.normal(size=shape)


def i(*shape: int, below: int = 5) -> Any:
    return DRAW.integers(0, below, size=shape)


def b(*shape: int) -> Any:
    return DRAW.random(shape) < 0.5


def one(kind: str, arrays: tuple[Any, ...], attributes: dict[str, Any], n: int = 4) -> dict[str, Any]:
    """The outputs of one operation, run as a graph whose sizes are numbers."""
    values, inputs, operands = {}, {}, []
    for at, array in enumerate(arrays):
        if isinstance(array, float | int):
            operands.append(array)
            continue
        numbers = {"f": "float", "i": "int", "b": "bool"}[array.dtype.kind]
        values[f"x{at}"] = Value(shape_of(*array.shape), numbers)  # type: ignore[arg-type]
        inputs[f"x{at}"] = array
        operands.append(f"x{at}")
    given = [values[each] if isinstance(each, str) else each for each in operands]
    found = made(kind, given, attributes)
    names = tuple(f"y{at}" for at in range(len(found)))
    values |= dict(zip(names, found, strict=True))
    operation = Operation(kind, tuple(operands), names, attributes)
    graph = Graph(tuple(inputs), names, values, (operation,))
    return run_graph(graph, inputs, n, dtype="float64")


def grad_of(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """The derivative of a torch function, as (gradient, x) -> gradient."""

    def backward(grad: Any, x: Any) -> Any:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(function(x), x, grad)[0]

    return backward


def out_grad_of(function: Callable[[Any], Any], inverse: Callable[[Any], Any]) -> Callable[..., Any]:
    """The derivative of a torch function given its output."""
    return lambda grad, out: grad_of(function)(grad, inverse(out))


def norm_grad(grad: Any, x: Any, mean: Any, rstd: Any, w: Any) -> Any:
    return grad_of(lambda x: F.layer_norm(x, w.shape, w, torch.zeros_like(w), 1e-5))(grad, x)


X = f(3, 1, 4)
POSITIVE = abs(f(3, 4)) + 0.1
MEAN = X.mean(-1, keepdims=True)
RSTD = 1 / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
S = Size.of

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], Callable[..., Any]]] = [
    *((kind, (f(3, 1, 4), f(2, 4)), {}, function) for kind, function in (
        ("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("div", torch.div),
        ("maximum", torch.maximum), ("minimum", torch.minimum), ("floor_divide", torch.floor_divide),
        ("remainder", torch.remainder),
    )),
    ("add", (i(3, 4), 2), {}, torch.add),
    ("mul", (f(3, 4), 2.5), {}, torch.mul),
    ("sub", (1.0, f(3, 4)), {}, lambda a, b: a - b),
    ("pow", (POSITIVE, 2.5), {}, torch.pow),
    *((kind, (f(3, 4),), {}, function) for kind, function in (
        ("neg", torch.neg), ("abs", torch.abs), ("exp", torch.exp), ("expm1", torch.expm1), ("tanh", torch.tanh),
        ("sigmoid", torch.sigmoid), ("erf", torch.erf), ("sin", torch.sin), ("cos", torch.cos), ("relu", torch.relu),
        ("silu", F.silu), ("floor", torch.floor),
    )),
    *((kind, (POSITIVE,), {}, function) for kind, function in (
        ("log", torch.log), ("log1p", torch.log1p), ("sqrt", torch.sqrt), ("rsqrt", torch.rsqrt),
        ("reciprocal", torch.reciprocal),
    )),
    ("silu_grad", (f(3, 4), f(3, 4)), {}, grad_of(F.silu)),
    *((kind, (*more, f(3, 4)), {"approximate": how}, wrap(lambda x, how=how: F.gelu(x, approximate=how)))
      for how in ("none", "tanh")
      for kind, more, wrap in (("gelu", (), lambda g: g), ("gelu_grad", (f(3, 4),), grad_of))),
    *((kind, (i(3, 1, 4), i(2, 4)), {}, getattr(torch, kind)) for kind in ("eq", "ne", "lt", "le", "gt", "ge")),
    ("and", (b(3, 4), b(4)), {}, torch.logical_and),
    ("or", (b(3, 4), b(4)), {}, torch.logical_or),
    ("not", (b(3, 4),), {}, torch.logical_not),
    ("where", (b(3, 4), f(4), -2.0), {}, lambda c, x, y: torch.where(c, x, y)),
    ("cast", (b(3, 4),), {"to": "float"}, lambda x: x.double()),
    ("cast", (f(3, 4) * 3,), {"to": "int"}, lambda x: x.long()),
    ("softmax", (f(3, 4, 2),), {"axis": 1}, lambda x: x.softmax(1)),
    ("softmax_grad", (f(3, 4), F.softmax(torch.from_numpy(f(3, 4)), -1).numpy()), {"axis": 1},
     out_grad_of(lambda x: x.softmax(1), torch.log)),
    ("log_softmax", (f(3, 4, 2),), {"axis": 1}, lambda x: x.log_softmax(1)),
    ("log_softmax_grad", (f(3, 4), F.log_softmax(torch.from_numpy(f(3, 4)), -1).numpy()), {"axis": 1},
     out_grad_of(lambda x: x.log_softmax(1), lambda out: out)),
    ("layer_norm", (X, f(4), f(4)), {"eps": 1e-5}, lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-5)),
    ("layer_norm_grad", (f(3, 1, 4), X, MEAN, RSTD, f(4)), {}, norm_grad),
    ("sum", (f(3, 4, 2),), {"axes": (0, 2), "keep": False}, lambda x: x.sum((0, 2))),
    ("mean", (f(3, 4, 2),), {"axes": (1,), "keep": True}, lambda x: x.mean(1, keepdim=True)),
    ("max", (f(3, 4, 2),), {"axes": (1, 2), "keep": False}, lambda x: x.amax((1, 2))),
    ("any", (b(3, 4),), {"axes": (1,), "keep": False}, lambda x: x.any(1)),
    ("all", (b(3, 4),), {"axes": (1,), "keep": False}, lambda x: x.all(1)),
    ("cumsum", (i(3, 4),), {"axis": 1}, lambda x: x.cumsum(1)),
    ("matmul", (f(2, 3, 4), f(1, 4, 5)), {}, torch.matmul),
    ("addmm", (f(3, 5), f(3, 4), f(4, 5)), {}, torch.addmm),
    ("linear", (f(2, 3, 4), f(5, 4), f(5)), {"transposed": False}, F.linear),
    ("linear", (f(2, 3, 4), f(5, 4)), {"transposed": False}, F.linear),
    ("linear", (f(2, 3, 4), f(4, 5), f(5)), {"transposed": True}, lambda x, w, b: x @ w + b),
    ("reshape", (f(3, 4),), {"shape": shape_of(2, 6)}, lambda x: x.reshape(2, 6)),
    ("transpose", (f(2, 3, 4),), {"axes": (2, 0, 1)}, lambda x: x.permute(2, 0, 1)),
    ("expand", (f(3, 1),), {"shape": shape_of(2, 3, 4)}, lambda x: x.expand(2, 3, 4)),
    ("slice", (f(3, 9),), {"axis": 1, "start": S(1), "stop": S(8), "step": 3}, lambda x: x[:, 1:8:3]),
    ("slice", (f(3, 4),), {"axis": 1, "start": S(1), "stop": N, "step": 1}, lambda x: x[:, 1:4]),
    ("concat", (f(3, 1), f(3, 2), f(3, 3)), {"axis": 1}, lambda *x: torch.cat(x, 1)),
    ("pad", (f(3, 4),), {"axis": 1, "before": S(1), "after": S(2)}, lambda x: F.pad(x, (1, 2))),
    ("take", (f(5, 2), i(3, 4)), {}, lambda table, ids: table[ids]),
    ("take_along", (f(3, 5), i(3, 1)), {"axis": 1}, lambda x, ids: x.gather(1, ids)),
    ("one_hot", (i(3, 2),), {"size": S(5)}, lambda ids: F.one_hot(ids, 5).double()),
    ("fill", (), {"shape": shape_of(2, N), "value": -1.5, "numbers": "float"},
     lambda: torch.full((2, 4), -1.5).double()),
    ("arange", (), {"stop": N}, lambda: torch.arange(4)),
    ("count", (), {"size": N - 1, "numbers": "float"}, lambda: torch.tensor(3.0).double()),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "arrays", "attributes", "torchs"), CASES, ids=[case[0] for case in CASES])
def test_a_kind_computes_what_torch_does(
    kind: str, arrays: tuple[Any, ...], attributes: dict[str, Any], torchs: Callable[..., Any]
) -> None:
    tensors = [each if isinstance(each, float | int) else torch.from_numpy(each) for each in arrays]
    found = one(kind, arrays, attributes)["y0"]
    wanted = torchs(*tensors).numpy()
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


def test_every_kind_is_compared_and_computed() -> None:
    assert {case[0] for case in CASES} | {"dropout_mask", "uniform"} == set(KINDS) == set(COMPUTED)


def test_layer_norm_gives_its_mean_and_spread() -> None:
    found = one("layer_norm", (X, f(4), f(4)), {"eps": 1e-5})
    np.testing.assert_allclose(found["y1"], MEAN)
    np.testing.assert_allclose(found["y2"], RSTD)


def test_a_mask_drops_its_share_and_hangs_on_seed_and_stream_alone() -> None:
    def mask(stream: int, seed: int, kind: str = "dropout_mask") -> Any:
        attributes: dict[str, Any] = {"shape": shape_of(200, 300), "stream": stream}
        attributes |= {"p": 0.3} if kind == "dropout_mask" else {}
        operation = Operation(kind, (), ("m",), attributes)
        graph = Graph((), ("m",), {"m": Value(shape_of(200, 300))}, (operation,))
        return run_graph(graph, {}, 1, seed=seed)["m"]

    first = mask(0, 7)
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(float((first == 0).mean()) - 0.3) < 0.01
    assert (first == mask(0, 7)).all()
    for other in (mask(1, 7), mask(0, 8)):
        assert abs(float(((first == 0) == (other == 0)).mean()) - 0.58) < 0.01  # as if independent
    assert abs(float(np.corrcoef((first[:-1] == 0).ravel(), (first[1:] == 0).ravel())[0, 1])) < 0.02
    uniform = mask(0, 7, "uniform")
    assert ((uniform < 0.3) == (first == 0)).mean() > 0.9999
    assert abs(float(uniform.mean()) - 0.5) < 0.01


def test_the_protocol_page_lists_the_kinds() -> None:
    from scripts.kinds import PAGE, page

    text = PAGE.read_text(encoding="utf-8")
    assert text == page(text), "run python scripts/kinds.py"
