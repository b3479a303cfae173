"""Rewrites of a graph that change no number, for less memory: attention without copies, kept scores computed anew.

Both are for the backward pass, where torch flattens [n, heads] into one axis (a copy) and keeps the attention
weights [heads, T, T], by far the largest values of a long text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from sflam.device.kernels.cells import CELLS
from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import KINDS
from sflam.graph.size import Shape, count_of

TYPICAL = 128  # n at which values are compared
CHEAP = {"softmax", "dropout_mask", "matmul", "layer_norm", *CELLS}
"""What may be computed a second time instead of being kept."""


def rewritten(graph: Graph) -> Graph:
    """Return the graph as the engine runs it."""
    return _later(_pruned(_recomputed(_pruned(_unmerged(graph)))))


def _unmerged(graph: Graph) -> Graph:
    """Return the graph with batched products over [a, b, ...] instead of over [a b, ...], where that was a copy."""
    values = dict(graph.values)
    made: dict[str, Operation] = {}
    operations: list[Operation] = []
    same: dict[str, str] = {}

    def lifted(name: str) -> str | None:
        """Return a value with more leading axes than ``name``, which has the same matrices in the same order."""
        operation = made.get(name)
        if operation is None or len(values[name].shape) < 3:
            return None
        source = operation.names[0] if operation.names else ""
        if operation.kind == "reshape":
            old, new = values[source].shape, values[name].shape
            return source if len(old) > len(new) and old[-2:] == new[-2:] else None
        if operation.kind == "transpose" and _swaps(operation.attributes["axes"]):
            inner = lifted(source)
            if inner is None:
                return None
            shape = values[inner].shape
            axes = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
            fresh = f"{name}^{len(values)}"
            add(
                Operation("transpose", (inner,), (fresh,), {"axes": axes}),
                (*shape[:-2], shape[-1], shape[-2]),
            )
            return fresh
        return None

    def add(operation: Operation, shape: Shape) -> None:
        values[operation.outputs[0]] = Value(shape)
        made[operation.outputs[0]] = operation
        operations.append(operation)

    for found in graph.operations:
        operation = _renamed(found, same, {})
        inner = made.get(operation.names[0]) if operation.kind == "reshape" else None
        if inner is not None and inner.kind == "reshape" and operation.outputs[0] not in graph.outputs:
            if values[inner.names[0]].shape == values[operation.outputs[0]].shape:  # there and back
                same[operation.outputs[0]] = inner.names[0]
                continue
        if operation.kind == "matmul" and len(operation.names) == 2:
            a, b = (lifted(name) for name in operation.names)
            if a is not None and b is not None and values[a].shape[:-2] == values[b].shape[:-2]:
                [name] = operation.outputs
                wide, shape = f"{name}^", values[name].shape
                add(Operation("matmul", (a, b), (wide,)), (*values[a].shape[:-1], values[b].shape[-1]))
                add(Operation("reshape", (wide,), (name,), {"shape": shape}), shape)
                continue
        made.update(dict.fromkeys(operation.outputs, operation))
        operations.append(operation)
    return Graph(graph.inputs, graph.outputs, values, tuple(operations), graph.weights)


def _swaps(axes: object) -> bool:
    assert isinstance(axes, tuple)
    rank = len(axes)
    return rank > 2 and axes == (*range(rank - 2), rank - 1, rank - 2)


def _recomputed(graph: Graph) -> Graph:
    """Return the graph with large kept values computed a second time where they are used again much later."""
    for position, operation in reversed(list(enumerate(graph.operations))):
        if operation.kind in ("softmax", "layer_norm") or (
            operation.kind in ("mul", "dropout_mask")
            and len(count_of(graph.values[operation.outputs[0]].shape).coefficients) > 2  # tokens by tokens
        ):
            graph = _again(graph, position)
    return graph


def _again(graph: Graph, position: int) -> Graph:
    """Return the graph with the result of one operation made again before its late uses, from what is alive there.

    What it comes from and is not alive is made again as well, if it is cheap and needs no second product.
    """
    operations = graph.operations
    result = operations[position].outputs[0]
    views = _views(operations, result)
    uses = [at for at, each in enumerate(operations) if set(each.names) & views and not KINDS[each.kind].view]
    far = len(operations) // 8
    late = next((at for before, at in pairwise(uses) if at - before > far), None)
    if late is None or views & set(graph.outputs):
        return graph
    made = {name: at for at, each in enumerate(operations) for name in each.outputs}
    cost = count_of(graph.values[result].shape).at(TYPICAL)
    needed: set[int] = set()
    ahead = [result]
    while ahead:
        name = ahead.pop()
        at = made.get(name)
        if at is None or at in needed:
            continue
        if at != position:
            used = _views(operations, name)
            alive = any(used & set(each.names) for each in operations[late:])
            if alive or count_of(graph.values[name].shape).at(TYPICAL) * 16 < cost:
                continue
        if operations[at].kind not in CHEAP and not KINDS[operations[at].kind].view:
            return graph
        needed.add(at)
        ahead += operations[at].names
    if sum(operations[at].kind == "matmul" for at in needed) > 1:
        return graph
    needed |= {
        at for at, each in enumerate(operations) if KINDS[each.kind].view and set(each.outputs) <= views
    }
    names = {name: f"{name}~{position}" for at in needed for name in operations[at].outputs}
    again = [_renamed(operations[at], names, names) for at in sorted(needed)]
    after = [_renamed(each, {old: names[old] for old in views}, {}) for each in operations[late:]]
    values = {**graph.values, **{new: graph.values[old] for old, new in names.items()}}
    return Graph(graph.inputs, graph.outputs, values, (*operations[:late], *again, *after), graph.weights)


def _later(graph: Graph) -> Graph:
    """Return the graph with operations that take more memory than they free moved to just before their first use."""
    operations = list(graph.operations)
    for position in range(len(operations) - 1, -1, -1):
        operation = operations[position]
        if KINDS[operation.kind].view:
            continue
        ahead = operations[position + 1 :]
        views = set().union(*(_views(ahead, name) for name in operation.outputs))
        target = next(
            (at for at, each in enumerate(ahead) if set(each.names) & views and not KINDS[each.kind].view),
            None,
        )
        if not target or _frees(graph, operations, position) >= sum(
            _size(graph, name) for name in operation.outputs
        ):
            continue
        moved = [each for each in ahead[:target] if set(each.names) & views]
        stays = [each for each in ahead[:target] if not set(each.names) & views]
        operations[position:] = [*stays, operation, *moved, *ahead[target:]]
    return Graph(graph.inputs, graph.outputs, graph.values, tuple(operations), graph.weights)


def _frees(graph: Graph, operations: Sequence[Operation], position: int) -> int:
    """Return how many numbers are used for the last time by an operation."""
    total = 0
    for name in set(operations[position].names):
        owner = _owner(operations[:position], name)
        views = _views(operations, owner)
        used = any(views & set(each.names) for each in operations[position + 1 :])
        if owner not in graph.inputs and not used and not views & set(graph.outputs):
            total += _size(graph, owner)
    return total


def _owner(operations: Sequence[Operation], name: str) -> str:
    for operation in reversed(operations):
        if name in operation.outputs and KINDS[operation.kind].view:
            name = operation.names[0]
    return name


def _size(graph: Graph, name: str) -> int:
    return count_of(graph.values[name].shape).at(TYPICAL)


def _views(operations: Sequence[Operation], name: str) -> set[str]:
    """Return a value and all views of it."""
    found = {name}
    for operation in operations:
        if KINDS[operation.kind].view and operation.names[0] in found:
            found |= set(operation.outputs)
    return found


def _renamed(operation: Operation, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Operation:
    given = tuple(inputs.get(each, each) if isinstance(each, str) else each for each in operation.inputs)
    made = tuple(outputs.get(each, each) for each in operation.outputs)
    return Operation(operation.kind, given, made, operation.attributes)


def _pruned(graph: Graph) -> Graph:
    """Return the graph without operations that nothing uses."""
    wanted = set(graph.outputs)
    kept: list[Operation] = []
    for operation in reversed(graph.operations):
        if wanted & set(operation.outputs):
            kept.append(operation)
            wanted |= set(operation.names)
    names: Iterable[str] = {*graph.inputs, *(name for each in kept for name in each.outputs)}
    values = {name: graph.values[name] for name in names}
    return Graph(graph.inputs, graph.outputs, values, tuple(reversed(kept)), graph.weights)
