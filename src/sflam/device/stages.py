"""The operations of a graph as stages: cells of one shape that follow one another become one stage.

Such a chain runs block by block, so that what only it uses never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sflam.device.kernels.cells import CELLS
from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import KINDS

LONGEST = 24  # operations in a chain


@dataclass(frozen=True)
class Stage:
    """Operations that run together: one of any kind, or cells of one shape."""

    operations: tuple[Operation, ...]

    @property
    def is_chain(self) -> bool:
        """Whether it runs block by block."""
        return self.operations[0].kind in CELLS

    @property
    def is_view(self) -> bool:
        """Whether it is a view, perhaps."""
        return KINDS[self.operations[0].kind].view

    @property
    def made(self) -> tuple[str, ...]:
        """The values it makes, in order."""
        return tuple(name for operation in self.operations for name in operation.outputs)

    @property
    def used(self) -> tuple[str, ...]:
        """The values it is given, each once, in the order of their first use."""
        own = set(self.made)
        names = (name for operation in self.operations for name in operation.names)
        return tuple(dict.fromkeys(name for name in names if name not in own))


def stages_of(graph: Graph) -> list[Stage]:
    """Return the stages, in an order in which every value is made before it is used."""
    stages: list[Stage] = []
    chain: list[Operation] = []
    later: list[Stage] = []  # views of what the chain makes

    def close() -> None:
        if chain:
            stages.append(Stage(tuple(chain)))
        stages.extend(later)
        chain.clear()
        later.clear()

    for operation in graph.operations:
        made = {name for each in chain for name in each.outputs}
        viewed = {name for stage in later for name in stage.made}
        if KINDS[operation.kind].view:
            if made & set(operation.names) or viewed & set(operation.names):
                later.append(Stage((operation,)))
            else:
                stages.append(Stage((operation,)))
        elif operation.kind in CELLS:
            if chain and not _joins(operation, chain, viewed, graph.values):
                close()
            chain.append(operation)
        else:
            close()
            stages.append(Stage((operation,)))
    close()
    return stages


def _joins(
    operation: Operation, chain: Sequence[Operation], viewed: set[str], values: Mapping[str, Value]
) -> bool:
    """Return whether a cell may run in the blocks of the chain."""
    same = values[operation.outputs[0]].shape == values[chain[0].outputs[0]].shape
    return same and len(chain) < LONGEST and not viewed & set(operation.names)


def kept(stage: Stage, uses: Mapping[str, int]) -> tuple[str, ...]:
    """Return the values a stage makes that are used outside it; ``uses`` counts all uses, outputs included."""
    inside: dict[str, int] = {}
    for operation in stage.operations:
        for name in operation.names:
            inside[name] = inside.get(name, 0) + 1
    return tuple(name for name in stage.made if uses.get(name, 0) > inside.get(name, 0))
