"""The engine on the graphs of real halves, against the plain interpreter of the kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sflam.device.engine import Engine
from sflam.graph import bundle as roles
from sflam.graph.graph import Graph
from sflam.model.graph_check import random_rows, run_bundle
from tests.model.test_device_graphs import made, slow
from tests.tiny import EVERY_KIND, is_image, is_lm


def by_engine(graph: Graph, given: Any, n: int, *, seed: int, dtype: str, keep: Any) -> dict[str, Any]:
    types = {"float": np.dtype(dtype), "int": np.dtype(np.int64), "bool": np.dtype(bool)}
    inputs = {}
    for name in graph.inputs:
        declared = graph.values[name]
        shape = tuple(size.at(n) for size in declared.shape)  # a frozen tensor's axes may be merged
        inputs[name] = np.asarray(given[name], types[declared.numbers]).reshape(shape)
    found = Engine(graph, dtype).run(inputs, n, seed)
    return {name: array.copy() for name, array in found.items()}


@pytest.mark.parametrize("kind", slow(EVERY_KIND))
def test_the_engine_runs_the_halves_of_every_family(kind: str) -> None:
    bundle, half, tensors = made(kind, 2, dropout=0.1, labels="device")
    held = {name: tensor.numpy() for name, tensor in tensors.items()}
    for n in (1, 3) if is_image(kind) else (1, 13):
        rows = random_rows(bundle, half, n)
        plain = run_bundle(bundle, half, held, rows, n)
        engine = run_bundle(bundle, half, held, rows, n, runs=by_engine)
        assert plain.keys() == engine.keys()
        for name, wanted in plain.items():
            scale = max(float(np.abs(wanted).max()), 1e-6)
            assert float(np.abs(engine[name] - wanted).max()) < 1e-9 * scale, (name, n)


@pytest.mark.parametrize("kind", slow([kind for kind in EVERY_KIND if is_lm(kind)]))
def test_the_head_of_a_language_model_for_some_tokens_at_a_time(kind: str) -> None:
    bundle, half, tensors = made(kind, 2, dropout=0.1, labels="device")
    assert bundle.causal and bundle.head is not None
    graph, binding = bundle.head.graph, bundle.head.binding
    n, rng = 13, np.random.default_rng(0)
    hidden, labels = rng.normal(size=(1, n, bundle.dim)), random_rows(bundle, half, n).labels
    trained = {name: tensor.detach()[0].numpy() for name, tensor in half.segment.stack.tensors.items()}
    engine = Engine(graph, np.float64)

    def run(start: int, stop: int) -> dict[str, np.ndarray]:
        known = {roles.HIDDEN: hidden[:, start:stop], roles.LABELS: labels[:, start:stop]}
        known[roles.SHARE] = np.array(1 / n)
        given = {}
        for name, source in binding.inputs.items():
            held = {roles.FROZEN: tensors, roles.TRAINED: trained}.get(source.role)
            array = np.asarray(known[source.role] if held is None else held[source.name])
            shape = tuple(size.at(stop - start) for size in graph.values[name].shape)
            given[name] = np.ascontiguousarray(array).reshape(shape)
        return {
            binding.outputs[name].role: array
            for name, array in engine.run(given, stop - start, 5, start).items()
        }

    whole, parts = run(0, n), [run(start, min(start + 4, n)) for start in range(0, n, 4)]
    gradient = np.concatenate([part.pop(roles.GRADIENT) for part in parts], axis=1)
    found = {name: sum(part[name] for part in parts) for name in parts[0]} | {roles.GRADIENT: gradient}
    assert found.keys() == whole.keys() and {roles.LOSS, roles.GRADIENT} <= found.keys()
    for name, wanted in whole.items():
        assert float(np.abs(found[name] - wanted).max()) < 1e-9 * float(np.abs(wanted).max()), name
