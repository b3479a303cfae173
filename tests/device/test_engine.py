"""The engine against plain NumPy on random graphs; its memory against what it announced."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sflam.device.engine import Arena, Engine
from sflam.device.weights import Weights
from sflam.errors import GraphError
from sflam.graph.graph import Graph
from sflam.graph.size import N, Size
from sflam.model.interpreter import run_graph
from tests.device.building import Builder
from tests.device.random_graphs import graphs


def drawn(graph: Graph, n: int, dtype: Any, seed: int = 0) -> dict[str, Any]:
    """Return inputs."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(-1, 1, tuple(size.at(n) for size in graph.values[name].shape)).astype(dtype)
        for name in graph.inputs
    }


def agree(graph: Graph, found: dict[str, Any], inputs: dict[str, Any], n: int, tolerance: float) -> None:
    """Fail unless the engine's outputs are those of plain NumPy in float64."""
    expected = run_graph(graph, inputs, n, dtype="float64")
    assert list(found) == list(graph.outputs)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        scale = max(1.0, float(np.abs(array).max(initial=0)))
        with np.errstate(all="ignore"):  # of what has overflowed on both sides
            np.testing.assert_allclose(found[name] / scale, array / scale, rtol=0, atol=tolerance)


@settings(
    max_examples=250,
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(graph=graphs(), sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3))
@np.errstate(all="ignore")  # what overflows does so on both sides
def test_random_graphs(graph: Graph, sizes: list[int], cut: bool) -> None:
    engine = Engine(graph, np.float64)
    for n in sizes:
        inputs = drawn(graph, n, np.float64)
        before = {name: array.copy() for name, array in inputs.items()}
        found = engine.run(inputs, n)
        agree(graph, found, inputs, n, 1e-9)
        again = engine.run(inputs, n)
        for name, array in found.items():
            np.testing.assert_array_equal(again[name], array)
            assert not np.shares_memory(again[name], array)
        for name, array in before.items():
            np.testing.assert_array_equal(inputs[name], array)


def test_attention_by_sigmoids_in_more_than_a_block(cut: bool) -> None:
    """Number by number over the heads at once: the working memory is that of a block of heads, not of a few rows."""
    builder = Builder()
    x = builder.given(2, N, 4)
    scores = builder.add("matmul", x, builder.add("transpose", x, axes=(0, 2, 1)))
    graph = builder.graph(builder.add("mul", builder.add("sigmoid", scores), scores))
    engine = Engine(graph, np.float64)
    for n in (1, 6, 200):  # 200 x 200 numbers of 8 bytes are more than the kernels' blocks
        inputs = drawn(graph, n, np.float64)
        agree(graph, engine.run(inputs, n), inputs, n, 1e-12)


def block(width: int, hidden: int, heads: int) -> Graph:
    """Return attention and a perceptron with residuals, forward."""
    builder = Builder()
    x = builder.given(1, N, width)
    add = builder.add

    def vector(size: int) -> str:
        return builder.given(size, weight=True)

    def project(value: str, out: int) -> str:
        inner = builder.values[value].shape[-1]
        return str(
            add("linear", value, builder.given(out, inner, weight=True), vector(out), transposed=False)
        )

    def split(value: str) -> str:
        return str(add("reshape", value, shape=(Size.of(1), N, Size.of(heads), Size.of(width // heads))))

    first, *_ = add("layer_norm", x, vector(width), vector(width), eps=1e-6)
    q, k, v = (split(project(first, width)) for _ in range(3))
    scores = add("matmul", add("transpose", q, axes=(0, 2, 1, 3)), add("transpose", k, axes=(0, 2, 3, 1)))
    weights = add("softmax", add("mul", scores, (width // heads) ** -0.5), axis=3)
    mixed = add(
        "transpose", add("matmul", weights, add("transpose", v, axes=(0, 2, 1, 3))), axes=(0, 2, 1, 3)
    )
    middle = add("add", x, project(add("reshape", mixed, shape=(Size.of(1), N, Size.of(width))), width))
    second, *_ = add("layer_norm", middle, vector(width), vector(width), eps=1e-6)
    out = project(add("gelu", project(second, hidden), approximate="none"), width)
    return builder.graph(add("add", middle, out))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("keep", [None, True, False], ids=["arrays", "kept", "read"])
def test_a_block_from_a_file(
    tmp_path: Path, cut: bool, keep: bool | None, dtype: Any, tolerance: float
) -> None:
    graph = block(16, 24, 4)
    engine = Engine(graph, dtype)
    for n in (1, 3, 11):
        inputs = drawn(graph, n, dtype)
        used: dict[str, Any] = dict(inputs)
        if keep is not None:
            save_file({name: torch.from_numpy(inputs[name]) for name in graph.weights}, tmp_path / "w")
            with Weights(tmp_path / "w", keep=keep) as weights:
                used |= {name: weights.frozen(name, dtype=dtype) for name in graph.weights}
                found = engine.run(used, n)
        else:
            found = engine.run(used, n)
        agree(graph, found, inputs, n, tolerance)


def test_peak_is_what_was_announced(tmp_path: Path) -> None:
    """The margin: Python's own objects, and what NumPy allocates inside a call, below 200 kB together."""
    graph = block(256, 1024, 8)
    engine = Engine(graph)
    inputs: dict[str, Any] = drawn(graph, 100, np.float32)
    save_file({name: torch.from_numpy(inputs[name]) for name in graph.weights}, tmp_path / "w")
    with Weights(tmp_path / "w", keep=False) as weights:
        used = inputs | {name: weights.frozen(name) for name in graph.weights}
        del inputs
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        found = engine.run(used, 100)
        taken = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
    announced = engine.bytes(100)
    total = announced.arena + announced.results
    assert found and announced.results == 100 * 256 * 4
    assert total <= taken + engine.arena.nbytes <= total + 200_000  # pages of the arena are not traced
    assert announced.alive <= announced.arena <= 1.1 * announced.alive


def test_arenas_are_shared_and_grow() -> None:
    graph = block(16, 24, 4)
    arena = Arena()
    engines = [Engine(graph, np.float32, arena), Engine(graph, np.float64, arena)]
    for n in (2, 9, 2, 30, 9):
        for engine in engines:
            inputs = drawn(graph, n, engine.dtype, seed=n)
            agree(graph, engine.run(inputs, n), inputs, n, 1e-5)
        arena.give_back()
    assert arena.nbytes == engines[1].bytes(30).arena


def masks(shape: tuple[Any, ...], p: float, streams: tuple[int, ...]) -> Graph:
    """Return a graph of dropout masks."""
    builder = Builder()
    sizes = tuple(map(Size.of, shape))
    return builder.graph(*(builder.add("dropout_mask", shape=sizes, p=p, stream=s) for s in streams))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_masks_are_the_defined_ones(p: float, dtype: str, cut: bool) -> None:
    graph = masks((N, 4, 51), p, (0, 3))
    found = Engine(graph, dtype).run({}, 5, seed=7)
    for name, array in run_graph(graph, {}, 5, seed=7, dtype=dtype).items():
        np.testing.assert_array_equal(found[name], array)


def test_dropout_masks_do_not_hang_on_groups() -> None:
    graph = masks((N, 3, 5), 0.3, (4,))
    [whole] = Engine(graph).run({}, 12, seed=1).values()
    parts = [
        next(iter(Engine(graph).run({}, size, seed=1, first=at).values()))
        for at, size in ((0, 5), (5, 4), (9, 3))
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_wrong_inputs_are_refused() -> None:
    engine = Engine(block(16, 24, 4))
    inputs = drawn(engine.graph, 3, np.float32)
    name = engine.graph.inputs[0]
    with pytest.raises(GraphError, match=f"input {name} is missing"):
        engine.run({key: array for key, array in inputs.items() if key != name}, 3)
    with pytest.raises(GraphError, match=r"is float32 \[1, 3, 16\]; for n = 4 .* \[1, 4, 16\]"):
        engine.run(inputs, 4)
    with pytest.raises(GraphError, match="is float64"):
        engine.run(inputs | {name: inputs[name].astype(np.float64)}, 3)
