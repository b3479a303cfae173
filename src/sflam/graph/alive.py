"""Bytes alive while a graph runs: what a device's memory must hold beside its frozen weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sflam.graph.graph import Graph, Operation
from sflam.graph.operations import KINDS
from sflam.graph.size import count_of

FLOAT_BYTES = 4
IN_PLACE = {"addmm", "softmax", "softmax_grad", "log_softmax", "layer_norm", "layer_norm_grad"}
"""Kinds, beside the elementwise ones, that an engine can compute into the memory of an operand row by row."""


def owners(graph: Graph) -> dict[str, str]:
    """Return value -> the value whose memory it lives in: itself, unless it is a view."""
    found = {name: name for name in graph.inputs}
    for operation in graph.operations:
        view = KINDS[operation.kind].view
        for name in operation.outputs:
            found[name] = found[operation.names[0]] if view else name
    return found


def last_uses(
    operations: Sequence[Operation], owner: Mapping[str, str], outputs: Sequence[str]
) -> list[set[str]]:
    """Return, for each operation, the owners whose memory is free after it; outputs of the graph stay."""
    kept = {owner[name] for name in outputs}
    seen = set(kept)
    found: list[set[str]] = []
    for operation in reversed(operations):
        used = {owner[name] for name in (*operation.names, *operation.outputs)}
        found.append(used - seen)
        seen |= used
    return found[::-1]


def sizes_of(graph: Graph, n: int, float_bytes: int = FLOAT_BYTES) -> dict[str, int]:
    """Return value -> its bytes; weights and views have none of their own."""
    owner = owners(graph)
    each = {"float": float_bytes, "int": 8, "bool": 1}
    return {
        name: 0
        if name in graph.weights or owner[name] != name
        else count_of(value.shape).at(n) * each[value.numbers]
        for name, value in graph.values.items()
    }


def alive(
    graph: Graph, n: int, *, float_bytes: int = FLOAT_BYTES, order: Sequence[Operation] | None = None
) -> list[int]:
    """Return the bytes alive during each operation, inputs that are not weights included.

    A result computed number by number or row by row takes the place of an operand of its size that dies there.
    """
    operations = graph.operations if order is None else order
    owner, size = owners(graph), sizes_of(graph, n, float_bytes)
    freed = last_uses(operations, owner, graph.outputs)
    now = sum(size[name] for name in graph.inputs)
    found = []
    for operation, dead in zip(operations, freed, strict=True):
        new = sum(size[name] for name in operation.outputs)
        replaced = 0
        if KINDS[operation.kind].cells or operation.kind in IN_PLACE:
            gone = [owner[n] for n in operation.names if owner[n] in dead and owner[n] not in graph.inputs]
            replaced = max(
                (size[name] for name in gone if size[name] == size[operation.outputs[0]]), default=0
            )
        found.append(now + new - replaced)
        now += new - sum(size[name] for name in dead)
    return found


def peak_bytes(graph: Graph, n: int, *, float_bytes: int = FLOAT_BYTES) -> int:
    """Return the most bytes alive in a run of size ``n``, frozen weights not counted."""
    inputs = sum(size for name, size in sizes_of(graph, n, float_bytes).items() if name in graph.inputs)
    return max(alive(graph, n, float_bytes=float_bytes), default=inputs)
