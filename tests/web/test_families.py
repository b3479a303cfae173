"""The page's engine on the graphs of real halves of every family, against the plain interpreter of the kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sflam.graph.graph import Graph
from sflam.learn.settings import LearnSettings
from sflam.model.graph_check import random_rows, run_bundle
from tests.model.test_device_graphs import made, slow
from tests.tiny import EVERY_KIND, is_image
from tests.web.engine_process import NodeEngine, node_engine
from tests.web.node import needs_node
from tests.web.test_half import ROWS, closed, pair_of, step_of

__all__ = ["closed"]  # a fixture: files of tensors
pytestmark = needs_node
page = pytest.fixture(node_engine, scope="module")


@pytest.mark.parametrize("kind", slow(EVERY_KIND))
def test_the_page_runs_the_halves_of_every_family(page: NodeEngine, kind: str) -> None:
    bundle, half, tensors = made(kind, 2, dropout=0.1, labels="device")
    held = {name: tensor.numpy() for name, tensor in tensors.items()}

    def by_page(graph: Graph, given: Any, n: int, *, seed: int, dtype: str, keep: Any) -> dict[str, Any]:
        shapes = {name: tuple(size.at(n) for size in graph.values[name].shape) for name in graph.inputs}
        inputs = {name: np.asarray(given[name]).reshape(shapes[name]) for name in graph.inputs}
        return page.run(graph, inputs, n, seed=seed)

    for n in (1, 3) if is_image(kind) else (1, 13):
        rows = random_rows(bundle, half, n)
        wanted = run_bundle(bundle, half, held, rows, n)
        found = run_bundle(bundle, half, held, rows, n, runs=by_page)
        assert found.keys() == wanted.keys()
        # a small gradient is the rounding of a large one
        most = max(
            float(np.abs(array).max()) for name, array in wanted.items() if name.startswith("gradient")
        )
        for name, array in wanted.items():
            scale = max(float(np.abs(array).max()), most / 10 if name.startswith("gradient") else 1e-6)
            assert float(np.abs(found[name] - array).max()) < 2e-5 * scale, (name, n)


@pytest.mark.parametrize(
    ("how", "trained"),
    [({"device_half": "frozen"}, False), ({"aggregation": "freeze-a"}, True)],
    ids=["frozen", "freeze-a"],
)
def test_halves_of_which_less_is_trained(
    page: NodeEngine, tmp_path: Path, how: dict[str, str], trained: bool
) -> None:
    learn = LearnSettings(lr=1e-4, optimizer="sgd", clip=0.0, **how)  # type: ignore[arg-type]
    pair = pair_of(page, tmp_path, "vit", learn=learn, **how)
    assert bool(pair.lean.trained) == trained
    for number in range(2):
        pair.take(ROWS)
        hidden = pair.forward(step_of(number))
        pair.backward(step_of(number), hidden if trained else None, pieces=False)
