"""The engines of a device half: one per graph, all in one arena, and one block's graphs bound to its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.device.engine import Arena, Engine
from sflam.device.weights import Weights
from sflam.graph.bundle import Binding, Bundle, Source
from sflam.graph.graph import Graph

Array = NDArray[Any]

DROPOUT = "dropout_mask"


@dataclass(frozen=True)
class BlockEngines:
    """The engines of one kind of block; ``joint`` is None where nothing below the cut is trained."""

    forward: Engine
    joint: Engine | None


class Engines:
    """An engine per graph of a bundle.

    Args:
        bundle: the graphs.
        dropout: False runs them without: what a frozen half keeps is drawn once, so it has none.
    """

    def __init__(self, bundle: Bundle, *, dropout: bool = True) -> None:
        self.bundle, self.dtype = bundle, np.dtype(bundle.dtype)
        self.arena = Arena()
        self._dropout = dropout
        self.embed = self._engine(bundle.embed.graph)
        self.kinds = [
            BlockEngines(self._engine(kind.forward), None if kind.joint is None else self._engine(kind.joint))
            for kind in bundle.kinds
        ]
        self.head = None if bundle.head is None else self._engine(bundle.head.graph)

    @property
    def every(self) -> list[Engine]:
        """All of them."""
        blocks = [engine for kind in self.kinds for engine in (kind.forward, kind.joint)]
        return [engine for engine in (self.embed, *blocks, self.head) if engine is not None]

    def bytes(self, n: int, *, joint: bool = True, head: bool = True) -> int:
        """Return the most bytes that a run of any of them takes: the arena that all share, and what it returns.

        Args:
            n: as of the graphs.
            joint: count forward and backward together as well.
            head: count head and loss as well.
        """
        left_out = [] if head else [self.head]
        left_out += [] if joint else [kind.joint for kind in self.kinds]
        found = [engine.bytes(n) for engine in self.every if engine not in left_out]
        return max(one.arena for one in found) + max(one.results for one in found)

    def _engine(self, graph: Graph) -> Engine:
        return Engine(graph if self._dropout else without_dropout(graph), self.dtype, self.arena)


class BoundGraph:
    """One graph with its engine and its frozen tensors.

    Args:
        engine: runs it.
        binding: what its inputs and outputs are.
        weights: the tensors of the segment file.
    """

    def __init__(self, engine: Engine, binding: Binding, weights: Weights) -> None:
        graph = engine.graph
        self.engine, self.outputs = engine, {name: binding.outputs[name] for name in graph.outputs}
        self.given = {name: binding.inputs[name] for name in graph.inputs if name not in graph.weights}
        numbers = {"float": engine.dtype, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
        self.frozen = {
            name: weights.frozen(
                binding.inputs[name].name,
                tuple(size.at(0) for size in graph.values[name].shape),
                numbers[graph.values[name].numbers],
            )
            for name in graph.inputs
            if name in graph.weights
        }

    def __call__(self, given: Mapping[Source, Array], n: int, seed: int, first: int) -> dict[Source, Array]:
        """Return what its outputs are; see :meth:`sflam.device.engine.Engine.run`."""
        inputs = {name: given[source] for name, source in self.given.items()}
        found = self.engine.run({**self.frozen, **inputs}, n, seed, first)
        return {source: found[name] for name, source in self.outputs.items()}


def without_dropout(graph: Graph) -> Graph:
    """Return a graph whose dropout keeps everything."""
    operations = tuple(
        replace(each, attributes={**each.attributes, "p": 0.0}) if each.kind == DROPOUT else each
        for each in graph.operations
    )
    return replace(graph, operations=operations)
