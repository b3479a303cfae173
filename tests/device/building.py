"""Graphs written by hand, and random ones: shapes are inferred, so that only what matters is said."""

from __future__ import annotations

from typing import Any

from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import check, made
from sflam.graph.size import Size, shape_of


class Builder:
    """Collects operations; names are v0, v1, ..."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.inputs: list[str] = []
        self.weights: set[str] = set()
        self.operations: list[Operation] = []

    def given(self, *shape: Size | int, numbers: Any = "float", weight: bool = False) -> str:
        """Return a new input."""
        name = f"in{len(self.inputs)}"
        self.inputs.append(name)
        self.values[name] = Value(shape_of(*shape), numbers)
        if weight:
            self.weights.add(name)
        return name

    def add(self, kind: str, *operands: Any, **attributes: Any) -> Any:
        """Return the name, or names, of what an operation makes."""
        if "shape" in attributes:
            attributes["shape"] = shape_of(*attributes["shape"])
        given = [self.values[each] if isinstance(each, str) else each for each in operands]
        found = made(kind, given, attributes)
        names = tuple(f"v{len(self.values) + at}" for at in range(len(found)))
        self.values.update(zip(names, found, strict=True))
        self.operations.append(Operation(kind, operands, names, attributes))
        return names[0] if len(names) == 1 else names

    def graph(self, *outputs: str) -> Graph:
        """Return the checked graph."""
        built = Graph(
            tuple(self.inputs), outputs, self.values, tuple(self.operations), frozenset(self.weights)
        )
        check(built)
        return built
