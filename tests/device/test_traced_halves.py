"""The engine on the graphs of real halves, against the plain interpreter of the kinds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sflam.device.engine import Engine
from sflam.graph.graph import Graph
from sflam.model.graph_check import random_rows, run_bundle
from tests.model.test_device_graphs import made, slow
from tests.tiny import EVERY_KIND, is_image


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
