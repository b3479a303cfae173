"""Attention as torch records it, forward and backward: no number changes, scores of all heads never exist at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sflam.device.engine import Engine
from sflam.device.rewriting import rewritten
from sflam.device.stages import stages_of
from sflam.device.storage import plan
from sflam.graph.graph import Graph
from sflam.graph.operations import check
from sflam.graph.size import N, Size, count_of
from sflam.model.interpreter import run_graph
from tests.device.building import Builder

HEADS, WIDTH = 3, 4


def attention(*, text: bool, tokens: int = 5, dropout: bool = False, mask: bool = False) -> Graph:
    """Return the gradients of attention: of its queries, keys and values, as ``make_fx`` writes it."""
    builder = Builder()
    add = builder.add
    rows, length = (Size.of(1), N) if text else (N, Size.of(tokens))
    flat, lead = count_of((rows, length)), count_of((rows, Size.of(HEADS)))
    inner = HEADS * WIDTH
    x, gradient = builder.given(rows, length, inner), builder.given(rows, length, inner)
    norm, *_ = add(
        "layer_norm", x, builder.given(inner, weight=True), builder.given(inner, weight=True), eps=1e-5
    )
    line = add("reshape", norm, shape=(flat, inner))

    def project(axes: tuple[int, ...]) -> tuple[str, str]:
        value = add("linear", line, builder.given(inner, inner, weight=True), transposed=False)
        split = add("transpose", add("reshape", value, shape=(rows, length, HEADS, WIDTH)), axes=axes)
        shape = builder.values[split].shape
        return value, add("reshape", split, shape=(lead, *shape[2:]))

    _, q = project((0, 2, 1, 3))
    _, k = project((0, 2, 3, 1))
    scores = add("reshape", add("matmul", q, k), shape=(rows, HEADS, length, length))
    scaled = add("mul", scores, 0.5)
    if mask:
        scaled = add("add", scaled, builder.given(1, 1, length, length))
    weights = add("softmax", scaled, axis=3)
    shape = builder.values[weights].shape
    drawn = add("dropout_mask", shape=shape, p=0.4, stream=2) if dropout else None
    dropped = add("mul", weights, drawn) if dropout else weights
    merged = add("reshape", dropped, shape=(lead, length, length))
    _, v = project((0, 2, 1, 3))
    mixed = add("reshape", add("matmul", merged, v), shape=(rows, HEADS, length, WIDTH))
    joined = add("reshape", add("transpose", mixed, axes=(0, 2, 1, 3)), shape=(flat, inner))
    out = joined
    for _ in range(12):  # what stands between forward and backward
        out = add("tanh", add("linear", out, builder.given(inner, inner, weight=True), transposed=False))
    arriving = add("mul", gradient, add("reshape", out, shape=(rows, length, inner)))
    split = add("transpose", add("reshape", arriving, shape=(rows, length, HEADS, WIDTH)), axes=(0, 2, 1, 3))
    d_mixed = add("reshape", split, shape=(lead, length, WIDTH))
    d_v = add("matmul", add("transpose", merged, axes=(0, 2, 1)), d_mixed)
    d_merged = add("matmul", d_mixed, add("transpose", v, axes=(0, 2, 1)))
    d_weights = add("reshape", d_merged, shape=shape)
    if drawn is not None:
        d_weights = add("mul", d_weights, drawn)
    d_scaled = add("mul", add("softmax_grad", d_weights, weights, axis=3), 0.5)
    d_scores = add("reshape", d_scaled, shape=(lead, length, length))
    d_k = add("matmul", add("transpose", q, axes=(0, 2, 1)), d_scores)
    d_q = add("matmul", d_scores, add("transpose", k, axes=(0, 2, 1)))
    d_norm = add("linear", joined, builder.given(inner, inner, weight=True), transposed=True)
    again = add("matmul", add("transpose", line, axes=(1, 0)), d_norm)
    return builder.graph(d_q, d_k, d_v, again)


@pytest.mark.parametrize("text", [True, False], ids=["text", "images"])
@pytest.mark.parametrize("dropout", [True, False], ids=["dropout", "plain"])
@pytest.mark.parametrize("mask", [True, False], ids=["mask", "all"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_numbers(text: bool, dropout: bool, mask: bool, dtype: str, cut: bool) -> None:
    graph = attention(text=text, dropout=dropout, mask=mask)
    engine = Engine(graph, dtype)
    check(rewritten(graph))
    for n in (1, 2, 7):
        rng = np.random.default_rng(n)
        inputs: dict[str, Any] = {
            name: (0.4 * rng.standard_normal([size.at(n) for size in graph.values[name].shape])).astype(dtype)
            for name in graph.inputs
        }
        found = engine.run(inputs, n, seed=5)
        for name, array in run_graph(graph, inputs, n, seed=5, dtype="float64").items():
            tolerance = (1e-5 if dtype == "float32" else 1e-12) * np.abs(array).max()
            np.testing.assert_allclose(found[name], array, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dropout", [True, False], ids=["dropout", "plain"])
def test_scores_of_all_heads_never_exist_at_once(dropout: bool) -> None:
    graph = attention(text=True, dropout=dropout)
    forward, backward = [stage for stage in stages_of(rewritten(graph)) if stage.heads]
    for stage in (forward, backward):
        assert {"matmul", "softmax", "mul"} <= {operation.kind for operation in stage.operations}
    assert "softmax_grad" in {operation.kind for operation in backward.operations}
    scores, values = (HEADS * 1024 * 1024 * 4, 1024 * HEADS * WIDTH * 4)
    assert Engine(graph).bytes(1024).alive < 2 * scores + 8 * values  # of one head: up to 5 of 3


def test_images_are_split_without_copies() -> None:
    graph = rewritten(attention(text=False))
    copies = [stage.operations[0] for stage in plan(graph).stages if stage.is_view]
    assert [graph.values[each.outputs[0]].shape for each in copies] == [(N * 5, Size.of(HEADS * WIDTH))]


def test_a_late_use_of_a_norm_is_computed_again() -> None:
    graph = attention(text=True)
    norms = [each for each in rewritten(graph).operations if each.kind == "layer_norm"]
    assert len(norms) == 2
