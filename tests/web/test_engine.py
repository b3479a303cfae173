"""The page's engine against plain NumPy: every kind of operation, and random graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import KINDS, made
from sflam.graph.size import N, Size, shape_of
from sflam.model.interpreter import run_graph
from tests.device.building import Builder
from tests.device.random_graphs import graphs
from tests.web.engine_process import NodeEngine, PageError, node_engine
from tests.web.node import needs_node

pytestmark = needs_node
engine = pytest.fixture(node_engine, scope="module")


def agree(found: dict[str, Any], wanted: dict[str, Any], tolerance: float = 2e-6) -> None:
    for name, array in wanted.items():
        assert found[name].shape == array.shape
        scale = max(1.0, float(np.abs(array[np.isfinite(array)]).max(initial=0)) if array.size else 0)
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(
                found[name].astype(np.float64) / scale,
                array.astype(np.float64) / scale,
                rtol=0,
                atol=tolerance,
            )


def f(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def i(*shape: int, below: int = 4) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, below, size=shape)


def b(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).random(shape) < 0.5


PAIRS = [
    (f(3, 5), f(3, 5)),
    (f(3, 5), f(5)),
    (f(2, 1, 5), f(3, 1)),
    (f(4), 0.5),
    (2.0, f(2, 3)),
    (f(0, 3), f(3)),
]
LONG = np.linspace(-30, 30, 4001)
ABOVE = {"log", "sqrt", "rsqrt", "reciprocal"}


def cases() -> list[Any]:
    """(kind, operands, attributes) for every kind."""
    found: list[Any] = []
    for kind in ("add", "sub", "mul", "maximum", "minimum", "div"):
        found += [(kind, pair, {}) for pair in PAIRS]
    for kind in ("add", "mul", "maximum", "floor_divide", "remainder"):
        found += [(kind, (i(3, 4) - 2, i(4) + 1), {}), (kind, (i(3, 4), 3), {})]
    found += [(kind, (f(3, 4) * 9, f(4) + 3), {}) for kind in ("floor_divide", "remainder")]
    found += [("pow", (np.abs(f(3, 4)), e), {}) for e in (2, 0.5, -0.5, 3, f(4))] + [
        ("pow", (10000.0, f(5)), {})
    ]
    for kind in (
        "neg",
        "abs",
        "exp",
        "log",
        "expm1",
        "log1p",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "tanh",
        "sigmoid",
    ):
        found += [(kind, ((np.abs(f(3, 7)) + 0.1) if kind in ABOVE else f(3, 7) / 3,), {})]
    found += [("neg", (i(3),), {}), ("abs", (i(5) - 2,), {})]
    for kind in ("tanh", "sigmoid", "erf", "sin", "cos", "floor", "relu", "silu"):
        found.append((kind, (LONG,), {}))
    for form in ("none", "tanh"):
        found += [
            ("gelu", (LONG,), {"approximate": form}),
            ("gelu_grad", (f(4001), LONG), {"approximate": form}),
        ]
    found.append(("silu_grad", (f(4001), LONG), {}))
    for kind in ("eq", "ne", "lt", "le", "gt", "ge"):
        found += [(kind, (i(3, 4), i(4)), {}), (kind, (f(3, 4), 0.0), {})]
    found += [(kind, (b(3, 4), b(4)), {}) for kind in ("and", "or", "eq", "ne")] + [("not", (b(7),), {})]
    found += [
        ("where", (b(3, 4), f(4), f(3, 1)), {}),
        ("where", (b(5), 0.0, -1e9), {}),
        ("where", (b(5), i(5), 7), {}),
    ]
    for to in ("float", "int", "bool"):
        found += [("cast", (each,), {"to": to}) for each in (f(3, 3) * 3, i(4) - 1, b(4))]
    for axis in (0, 1, 2):
        for kind in ("softmax", "log_softmax"):
            found += [
                (kind, (f(3, 4, 5),), {"axis": axis}),
                (kind + "_grad", (f(3, 4, 5), f(3, 4, 5)), {"axis": axis}),
            ]
        found += [
            ("concat", (f(3, 4, 5), f(3, 4, 5)), {"axis": axis}),
            ("cumsum", (f(3, 4, 5),), {"axis": axis}),
        ]
        found += [("pad", (f(3, 4, 5),), {"axis": axis, "before": Size.of(2), "after": Size.of(1)})]
        found += [
            (
                "take_along",
                (f(3, 4, 5), i(*(2 if a == axis else s for a, s in enumerate((3, 4, 5))), below=3)),
                {"axis": axis},
            )
        ]
        for kind in ("sum", "mean", "max"):
            found += [
                (kind, (f(3, 4, 5),), {"axes": axes, "keep": keep})
                for keep in (True, False)
                for axes in ((axis,), (0, 1, 2), (axis, (axis + 1) % 3))
            ]
    found += [(kind, (b(3, 4),), {"axes": (1,), "keep": False}) for kind in ("any", "all")]
    found += [("sum", (i(3, 4),), {"axes": (0,), "keep": True}), ("cumsum", (i(3, 4),), {"axis": 1})]
    found += [("layer_norm", (f(3, 4, 8), f(8), f(8)), {"eps": 1e-6})]
    found += [("layer_norm_grad", (f(3, 8), f(3, 8), f(3, 1), np.abs(f(3, 1)), f(8)), {})]
    for rows, inner, columns in (
        (1, 1, 1),
        (5, 7, 9),
        (17, 300, 8),
        (260, 40, 270),
        (3, 2, 600),
        (0, 3, 4),
        (6, 0, 5),
    ):
        found += [
            ("matmul", (f(rows, inner), f(inner, columns)), {}),
            ("addmm", (f(rows, columns), f(rows, inner), f(inner, columns)), {}),
            ("linear", (f(rows, inner), f(columns, inner), f(columns)), {"transposed": False}),
            ("linear", (f(1, rows, inner), f(inner, columns)), {"transposed": True}),
        ]
    found += [("matmul", (f(2, 3, 4, 5), f(3, 5, 6)), {}), ("matmul", (f(2, 1, 4, 5), f(1, 3, 5, 6)), {})]
    found += [("matmul", (f(4, 5), f(3, 5, 2)), {}), ("addmm", (f(3, 4, 2), f(4, 5), f(3, 5, 2)), {})]
    found += [
        ("reshape", (f(3, 4),), {"shape": shape_of(2, 6)}),
        ("transpose", (f(2, 3, 4),), {"axes": (2, 0, 1)}),
    ]
    found += [("expand", (f(3, 1),), {"shape": shape_of(2, 3, 4)})]
    found += [
        ("slice", (f(3, 9),), {"axis": 1, "start": Size.of(1), "stop": Size.of(8), "step": s}) for s in (1, 3)
    ]
    found += [
        ("take", (f(6, 3), i(2, 4)), {}),
        ("take", (i(6), i(3)), {}),
        ("one_hot", (i(3, 2) - 1,), {"size": Size.of(3)}),
    ]
    for numbers, value in (("float", 0.25), ("int", 3), ("bool", True)):
        found.append(("fill", (), {"shape": shape_of(N, 2), "value": value, "numbers": numbers}))
    found += [("arange", (), {"stop": N + 2}), ("count", (), {"size": N * 3, "numbers": "int"})]
    found += [("count", (), {"size": N, "numbers": "float"})]
    for p in (0.0, 0.1, 0.5):
        found.append(("dropout_mask", (), {"shape": shape_of(N, 50), "p": p, "stream": 3}))
    return [*found, ("uniform", (), {"shape": shape_of(N, 9), "stream": 0})]


def one(kind: str, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> tuple[Graph, dict[str, Any]]:
    values, operands = {}, []
    inputs = {f"x{at}": array for at, array in enumerate(arrays) if isinstance(array, np.ndarray)}
    for at, array in enumerate(arrays):
        operands.append(f"x{at}" if f"x{at}" in inputs else array)
        if f"x{at}" in inputs:
            numbers: Any = {"f": "float", "i": "int", "b": "bool"}[array.dtype.kind]
            values[f"x{at}"] = Value(shape_of(*array.shape), numbers)
    given = [values[each] if isinstance(each, str) else each for each in operands]
    found = made(kind, given, attributes)
    names = tuple(f"y{at}" for at in range(len(found)))
    values |= dict(zip(names, found, strict=True))
    return Graph(tuple(inputs), names, values, (Operation(kind, tuple(operands), names, attributes),)), inputs


@pytest.mark.parametrize("plain", [False, True], ids=["simd", "plain"])
def test_every_kind_is_numpys(engine: NodeEngine, plain: bool) -> None:
    seen = set()
    for kind, arrays, attributes in cases():
        graph, inputs = one(kind, arrays, attributes)
        inputs = {name: x.astype(np.float32) if x.dtype.kind == "f" else x for name, x in inputs.items()}
        wanted = run_graph(graph, inputs, 4, seed=5, dtype="float64")
        try:
            agree(engine.run(graph, inputs, 4, seed=5, plain=plain), wanted)
        except AssertionError as error:
            raise AssertionError(
                f"{kind} of {[getattr(x, 'shape', x) for x in arrays]}, {attributes}"
            ) from error
        seen.add(kind)
    assert seen == set(KINDS)


def test_masks_are_bit_equal_and_counted_from_the_first_row(engine: NodeEngine) -> None:
    builder = Builder()
    graph = builder.graph(builder.add("dropout_mask", shape=(N, 37), p=0.3, stream=7))
    seed = (1 << 62) + 12345
    [whole] = run_graph(graph, {}, 100, seed=seed).values()
    [found] = engine.run(graph, {}, 60, seed=seed, first=40).values()
    np.testing.assert_array_equal(found, whole[40:])
    assert 0.2 < (found == 0).mean() < 0.4


@settings(
    max_examples=200,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(graph=graphs(), n=st.integers(1, 7), plain=st.booleans())
def test_random_graphs(engine: NodeEngine, graph: Graph, n: int, plain: bool) -> None:
    rng = np.random.default_rng(n)
    inputs = {
        name: rng.uniform(-1, 1, tuple(size.at(n) for size in graph.values[name].shape)).astype(np.float32)
        for name in graph.inputs
    }
    with np.errstate(all="ignore"):
        wanted = run_graph(graph, inputs, n, dtype="float64")
    if any(float(np.abs(array).max(initial=0)) > 1e3 for array in wanted.values()):
        return  # products of products: float32 has no digits left to compare
    agree(engine.run(graph, inputs, n, plain=plain), wanted, 1e-4)


def test_an_id_beyond_the_table_is_refused(engine: NodeEngine) -> None:
    graph, _ = one("take", (f(6, 3), i(2)), {})
    with pytest.raises(PageError, match="WireError: the id 6 was looked up in a table of 6"):
        engine.run(graph, {"x0": f(6, 3), "x1": np.array([0, 6])}, 1)


def test_memory_is_refused_before_it_is_taken(engine: NodeEngine) -> None:
    builder = Builder()
    graph = builder.graph(builder.add("fill", shape=(N, N, N), value=1.0, numbers="float"))
    with pytest.raises(PageError, match="GraphError: the value v0 takes 4000000000000 bytes"):
        engine.run(graph, {}, 10_000)
