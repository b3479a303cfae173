"""The order of operations that keeps least alive: greedily, what frees most comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sflam.graph.alive import alive, owners, sizes_of
from sflam.graph.graph import Graph, Operation
from sflam.graph.operations import KINDS

N_OF_SCHEDULE = 64
"""The size for which an order is chosen."""
SMALL = (0.0, 0.02, 0.1, 0.3)
"""Shares of the largest value that count as little to add, tried one after the other."""


def scheduled(graph: Graph, n: int = N_OF_SCHEDULE) -> Graph:
    """Return the graph in whichever of a few orders has the smallest peak at size ``n``; its own where none has.

    What takes no inputs (dropout masks above all) is made again for every use, instead of being kept between them.
    """
    graph = _made_again(graph)
    lazy = _lazy(graph)
    largest = max(sizes_of(graph, n).values(), default=0)
    greedy = [_greedy(graph, lazy, n, share * largest) for share in SMALL]
    orders = [lazy, *greedy, _late(graph)]
    best = min(orders, key=lambda order: max(alive(graph, n, order=order), default=0))
    return replace(graph, operations=tuple(best))


def _made_again(graph: Graph) -> Graph:
    """Return the graph with an operation without inputs for each use of what it makes."""
    sources = {o.outputs[0]: o for o in graph.operations if not o.names and o.outputs[0] not in graph.outputs}
    values = {name: value for name, value in graph.values.items() if name not in sources}
    operations: list[Operation] = []
    for operation in graph.operations:
        if operation.outputs[0] in sources:
            continue
        inputs = list(operation.inputs)
        for at, name in enumerate(inputs):
            if isinstance(name, str) and name in sources:
                inputs[at] = f"{name}.{len(operations)}"
                values[str(inputs[at])] = graph.values[name]
                operations.append(replace(sources[name], outputs=(str(inputs[at]),)))
        operations.append(replace(operation, inputs=tuple(inputs)))
    return replace(graph, values=values, operations=tuple(operations))


def _lazy(graph: Graph) -> list[Operation]:
    """Return the graph's own order, but for views and what takes no inputs: those right before their first use."""
    waiting: dict[str, Operation] = {}
    order: list[Operation] = []

    def take(name: str) -> None:
        operation = waiting.pop(name, None)
        if operation is not None:
            for inner in operation.names:
                take(inner)
            order.append(operation)

    for operation in graph.operations:
        if KINDS[operation.kind].view or not operation.names:
            waiting[operation.outputs[0]] = operation
            continue
        for name in operation.names:
            take(name)
        order.append(operation)
    for name in graph.outputs:
        take(name)
    return order


def _greedy(graph: Graph, order: Sequence[Operation], n: int, small: float) -> list[Operation]:
    """Follow ``order``, but run views, and what adds at most ``small`` bytes more than it frees, as soon as it can."""
    owner, size = owners(graph), sizes_of(graph, n)
    left = Counter(owner[name] for name in graph.outputs)
    for operation in order:
        left.update({owner[each] for each in operation.names})
    ready = set(graph.inputs)
    waiting, found = list(order), []

    def growth(operation: Operation) -> int:
        used = {owner[each] for each in operation.names}
        freed = sum(size[name] for name in used if left[name] == 1 and name not in graph.inputs)
        return sum(size[name] for name in operation.outputs) - freed

    while waiting:
        able = [at for at, each in enumerate(waiting) if each.names and ready.issuperset(each.names)]
        views = (at for at in able if KINDS[waiting[at].kind].view)
        at = next(views, -1)
        if at < 0:
            least, at = min(((growth(waiting[at]), at) for at in able), default=(0, 0))
            at = at if least <= small else 0
        operation = waiting.pop(at)
        left.subtract({owner[each] for each in operation.names})
        ready |= set(operation.outputs)
        found.append(operation)
    return found


def _late(graph: Graph) -> list[Operation]:
    """Every operation as late as it can be: right before the first that needs it, in the graph's own order."""
    maker = {name: operation for operation in graph.operations for name in operation.outputs}
    done: set[int] = set()
    order: list[Operation] = []

    def visit(operation: Operation) -> None:
        stack = [(operation, False)]
        while stack:
            each, ripe = stack.pop()
            if id(each) in done:
                continue
            if ripe:
                done.add(id(each))
                order.append(each)
                continue
            stack.append((each, True))
            stack += [(maker[name], False) for name in reversed(each.names) if name in maker]

    for name in graph.outputs:
        if name in maker:
            visit(maker[name])
    return order
