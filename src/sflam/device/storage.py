"""Which values share memory, and from which stage to which each piece of memory is needed.

``plan`` knows nothing of n; :mod:`sflam.device.placement` turns it into offsets for one n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sflam.device.kernels.cells import CELLS
from sflam.device.kernels.table import KERNELS
from sflam.device.layout import Strided, fresh, view_of
from sflam.device.stages import Stage, kept, stages_of
from sflam.graph.graph import Graph, Operation
from sflam.graph.operations import KINDS
from sflam.graph.size import Size, count_of

GIVEN, READ, ARENA, RESULT = "given", "read", "arena", "result"
BYTES = {"int": 8, "bool": 1}


@dataclass
class Storage:
    """One piece of memory.

    Attributes:
        where: given by the caller, a frozen tensor read into the arena, the arena, or an array of the result.
        name: of the input or the output it is.
        count: numbers.
        numbers: their kind.
        first: stage that writes it.
        last: last stage that uses it.
    """

    where: str
    name: str
    count: Size
    numbers: str
    first: int
    last: int

    def nbytes(self, n: int, itemsize: int) -> int:
        """Return its bytes, ``itemsize`` being those of the engine's float."""
        return self.count.at(n) * BYTES.get(self.numbers, itemsize)


@dataclass(frozen=True)
class StoragePlan:
    """A graph ready to be placed.

    Attributes:
        stages: views left out, except those that must be copied.
        layouts: where each value lies; a value that only its own chain uses has none.
        storages: by number.
        streamed: weights that are read as they are used, and lie nowhere.
        copied: outputs that are copied from where they lie.
    """

    stages: tuple[Stage, ...]
    layouts: Mapping[str, Strided]
    storages: Sequence[Storage]
    streamed: frozenset[str]
    copied: tuple[str, ...]


def plan(graph: Graph) -> StoragePlan:
    """Return how a graph lies in memory."""
    stages = stages_of(graph)
    uses = _uses(graph)
    streamed = _streamed(graph)
    layouts: dict[str, Strided] = {}
    storages: list[Storage] = []

    def new(name: str, where: str, at: int) -> None:
        value = graph.values[name]
        layouts[name] = fresh(len(storages), value.numbers, value.shape)
        storages.append(Storage(where, name, count_of(value.shape), value.numbers, at, at))

    for name in graph.inputs:
        if name not in streamed:
            new(name, READ if name in graph.weights else GIVEN, -1)
    run: list[Stage] = []
    for stage in stages:
        if stage.is_view:
            operation = stage.operations[0]
            view = view_of(operation, layouts[operation.names[0]])
            if view is not None:
                layouts[operation.outputs[0]] = view
                continue
        run.append(stage)
        for name in kept(stage, uses) if stage.is_chain or stage.heads else stage.made:
            new(name, ARENA, len(run) - 1)
        for operation in stage.operations if stage.heads else ():
            if KINDS[operation.kind].view and (source := layouts.get(operation.names[0])):
                turned = view_of(operation, source)
                assert turned is not None, "what is kept has no gaps"
                layouts[operation.outputs[0]] = turned
    _set_lives(graph, run, layouts, storages)
    _reuse(run, layouts, storages)
    copied = _results(graph, layouts, storages)
    return StoragePlan(tuple(run), layouts, storages, streamed, copied)


def _uses(graph: Graph) -> dict[str, int]:
    uses = dict.fromkeys(graph.outputs, 1)
    for operation in graph.operations:
        for name in operation.names:
            uses[name] = uses.get(name, 0) + 1
    return uses


def _streamed(graph: Graph) -> frozenset[str]:
    """Return the weights whose every use reads them from the file by itself."""
    by_itself = set(graph.weights) - set(graph.outputs)
    for operation in graph.operations:
        direct = KERNELS[operation.kind].frozen if operation.kind in KERNELS else ()
        by_itself -= {operand for at, operand in enumerate(operation.inputs) if at not in direct}
    return frozenset(by_itself)


def _set_lives(
    graph: Graph, stages: Sequence[Stage], layouts: Mapping[str, Strided], storages: list[Storage]
) -> None:
    for at, stage in enumerate(stages):
        for name in stage.used:
            if name in layouts:
                storage = storages[layouts[name].storage]
                storage.last = max(storage.last, at)
                if storage.where == READ and storage.first < 0:
                    storage.first = at  # read just before its first use
    for name in graph.outputs:
        if name in layouts:
            storages[layouts[name].storage].last = len(stages)


def _reuse(stages: Sequence[Stage], layouts: dict[str, Strided], storages: list[Storage]) -> None:
    """Let a result take the memory of an operand that is used no more."""
    for at, stage in enumerate(stages):
        taken: set[int] = set()
        for place, operation in enumerate(stage.operations):
            result = operation.outputs[0]
            if (
                KINDS[operation.kind].view
                or result not in layouts
                or storages[layouts[result].storage].first != at
            ):
                continue
            for operand in _over(operation):
                found = layouts.get(operand)
                if found is None or found.storage in taken:
                    continue
                if _may_take(layouts[result], found, at, storages) and _is_last(stage, place, found, layouts):
                    _merge(layouts, storages, layouts[result].storage, found.storage)
                    taken.add(found.storage)
                    break


def _over(operation: Operation) -> list[str]:
    """Return the operands whose memory the first output may take."""
    if operation.kind in CELLS:
        places = tuple(range(len(operation.inputs)))
    else:
        places = KERNELS[operation.kind].over if operation.kind in KERNELS else ()
    return [name for place in places if isinstance(name := operation.inputs[place], str)]


def _may_take(result: Strided, operand: Strided, at: int, storages: Sequence[Storage]) -> bool:
    storage = storages[operand.storage]
    return (
        operand.storage != result.storage
        and storage.where in (ARENA, READ)
        and storage.last == at
        and operand.whole
        and (operand.shape, operand.numbers) == (result.shape, result.numbers)
        and (storage.count, storage.numbers) == (storages[result.storage].count, result.numbers)
    )


def _is_last(stage: Stage, place: int, operand: Strided, layouts: Mapping[str, Strided]) -> bool:
    """Return whether the stage reads the operand's memory in its very layout, and not after this operation."""
    for later, operation in enumerate(stage.operations):
        for name in operation.names:
            found = layouts.get(name)
            if found is not None and found.storage == operand.storage and (found != operand or later > place):
                return False
    return True


def _merge(layouts: dict[str, Strided], storages: list[Storage], result: int, operand: int) -> None:
    """Put every value of the result's storage into the operand's."""
    storages[operand].last = storages[result].last
    for name, layout in layouts.items():
        if layout.storage == result:
            layouts[name] = Strided(operand, layout.numbers, layout.offset, layout.shape, layout.strides)
    storages[result].count = Size(())
    storages[result].last = storages[result].first


def _results(graph: Graph, layouts: Mapping[str, Strided], storages: Sequence[Storage]) -> tuple[str, ...]:
    """Turn the storages of outputs into arrays of the result; return the outputs that are copied instead."""
    copied = []
    for name in graph.outputs:
        layout = layouts[name]
        storage = storages[layout.storage]
        if storage.where == ARENA and layout.whole and layout.shape == _shape_of(graph, name):
            storage.where, storage.name = RESULT, name
        else:
            copied.append(name)
    return tuple(copied)


def _shape_of(graph: Graph, name: str) -> tuple[Size, ...]:
    return graph.values[name].shape
