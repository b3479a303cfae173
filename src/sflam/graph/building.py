"""A graph in the making: operations are added one by one, and every shape is inferred."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sflam.errors import GraphError
from sflam.graph.graph import Graph, Numbers, Operand, Operation, Value
from sflam.graph.operations import made
from sflam.graph.size import Shape


class Building:
    """Values and operations of one graph; a call adds an operation and returns the name of its first output."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.inputs: list[str] = []
        self.weights: set[str] = set()
        self.operations: list[Operation] = []

    def input(self, name: str, shape: Shape, numbers: Numbers = "float", *, weight: bool = False) -> str:
        """Add an input."""
        if name in self.values:
            raise GraphError(f"the input {name} is named twice")
        self.values[name] = Value(shape, numbers)
        self.inputs.append(name)
        if weight:
            self.weights.add(name)
        return name

    def __call__(self, kind: str, *inputs: Operand, **attributes: Any) -> str:
        """Add an operation; return the name of its first output."""
        return self.all(kind, *inputs, **attributes)[0]

    def all(self, kind: str, *inputs: Operand, **attributes: Any) -> tuple[str, ...]:
        """Add an operation; return the names of its outputs."""
        given = [self.values[each] if isinstance(each, str) else each for each in inputs]
        found = made(kind, given, attributes)
        names = tuple(f"v{len(self.values) + at}" for at in range(len(found)))
        self.values.update(zip(names, found, strict=True))
        self.operations.append(Operation(kind, inputs, names, attributes))
        return names

    def shape(self, name: str) -> Shape:
        """Return the shape of a value."""
        return self.values[name].shape

    def reshape(self, name: str, shape: Shape) -> str:
        """Return the value in another shape."""
        return name if self.shape(name) == shape else self("reshape", name, shape=shape)

    def cast(self, name: str, to: Numbers) -> str:
        """Return the value as another kind of number."""
        return name if self.values[name].numbers == to else self("cast", name, to=to)

    def graph(self, outputs: Iterable[str]) -> Graph:
        """Return what was built."""
        return Graph(
            tuple(self.inputs), tuple(outputs), self.values, tuple(self.operations), frozenset(self.weights)
        )


def pruned(graph: Graph, outputs: Iterable[str]) -> Graph:
    """Return the part of a graph that these of its values hang on."""
    outputs = tuple(outputs)
    needed = set(outputs)
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        if needed & set(operation.outputs):
            kept.append(operation)
            needed |= set(operation.names)
    made_by = [name for operation in reversed(kept) for name in operation.outputs]
    inputs = tuple(name for name in graph.inputs if name in needed)
    values: Mapping[str, Value] = {name: graph.values[name] for name in (*inputs, *made_by)}
    return Graph(inputs, outputs, values, tuple(reversed(kept)), graph.weights & set(inputs))


def renamed(graph: Graph, outputs: Mapping[str, str]) -> Graph:
    """Return the graph with its outputs named anew, old -> new, and what it makes numbered in order."""
    names = {name: name for name in graph.inputs}
    for operation in graph.operations:
        for name in operation.outputs:
            names[name] = outputs.get(name, f"v{len(names)}")
    operations = tuple(
        replace(
            operation,
            inputs=tuple(names[each] if isinstance(each, str) else each for each in operation.inputs),
            outputs=tuple(names[each] for each in operation.outputs),
        )
        for operation in graph.operations
    )
    values = {new: graph.values[old] for old, new in names.items()}
    return Graph(
        graph.inputs, tuple(names[each] for each in graph.outputs), values, operations, graph.weights
    )
