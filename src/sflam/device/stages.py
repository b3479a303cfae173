"""The operations of a graph as stages: cells of one shape that follow one another become one stage.

Such a chain runs block by block, so that what only it uses never leaves the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sflam.device import heads
from sflam.device.kernels.cells import CELLS
from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import KINDS
from sflam.graph.size import Shape

LONGEST = 24  # operations in a chain
AHEAD = 12  # operations looked at for more attention


@dataclass(frozen=True)
class Stage:
    """Operations that run together: one of any kind, cells of one shape, or attention over the same heads."""

    operations: tuple[Operation, ...]
    heads: bool = False

    @property
    def is_chain(self) -> bool:
        """Whether it runs block by block of one shape."""
        return not self.heads and self.operations[0].kind in CELLS

    @property
    def is_view(self) -> bool:
        """Whether it is a view, perhaps."""
        return not self.heads and KINDS[self.operations[0].kind].view

    @property
    def members(self) -> tuple[Operation, ...]:
        """The operations but for views."""
        return tuple(each for each in self.operations if self.is_view or not KINDS[each.kind].view)

    @property
    def made(self) -> tuple[str, ...]:
        """The values its members make, in order."""
        return tuple(name for operation in self.members for name in operation.outputs)

    @property
    def used(self) -> tuple[str, ...]:
        """The values it is given, each once, in the order of their first use."""
        own = {name for operation in self.operations for name in operation.outputs}
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

    for stage in _with_heads(graph):
        operation = stage.operations[0]
        made = {name for each in chain for name in each.outputs}
        viewed = {name for each in later for name in each.made}
        if stage.is_view:
            (later if (made | viewed) & set(operation.names) else stages).append(stage)
        elif stage.is_chain:
            if chain and not _joins(operation, chain, viewed, graph.values):
                close()
            chain.append(operation)
        else:
            close()
            stages.append(stage)
    close()
    return stages


def _with_heads(graph: Graph) -> list[Stage]:
    """Return every operation as a stage, but for attention over heads, which is one."""
    values = graph.values
    stages: list[Stage] = []
    run: list[Operation] = []
    later: list[Stage] = []

    def close() -> None:
        if heads.split(run):
            stages.extend(Stage((each,)) for each in run)
        else:
            stages.append(Stage(tuple(run), heads=True))
        stages.extend(later)
        run.clear()
        later.clear()

    for at, operation in enumerate(graph.operations):
        own = {name for each in run for name in each.outputs}
        viewed = {name for each in later for name in each.made}
        lead = heads.lead_of(values[run[0].outputs[0]].shape) if run else ()
        given = set(operation.names)
        if run and KINDS[operation.kind].view:
            if given & own and heads.is_alias(operation, values):
                run.append(operation)
            else:
                (later if given & (own | viewed) else stages).append(Stage((operation,)))
            continue
        if run and not given & viewed and heads.is_member(operation, lead, values, own):
            run.append(operation)
            continue
        if run and _goes_on(graph, at, lead, own, viewed):
            later.append(Stage((operation,)))
            continue
        close()
        lead = heads.lead_of(values[operation.outputs[0]].shape)
        if operation.kind == "matmul" and heads.is_member(operation, lead, values, set()):
            run.append(operation)
        else:
            stages.append(Stage((operation,)))
    close()
    return stages


def _goes_on(graph: Graph, at: int, lead: Shape, own: set[str], waiting: set[str]) -> bool:
    """Return whether attention goes on a few operations after this one, without what this one makes.

    The sums over groups of queries stand in the middle of a backward pass; they can wait.
    """
    own, waiting = set(own), waiting | set(graph.operations[at].outputs)
    for operation in graph.operations[at + 1 : at + 1 + AHEAD]:
        given = set(operation.names)
        if given & waiting:
            waiting |= set(operation.outputs)
        elif KINDS[operation.kind].view:
            if given & own and heads.is_alias(operation, graph.values):
                own |= set(operation.outputs)
        elif given & own and heads.is_member(operation, lead, graph.values, own):
            return True
    return False


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
    outside = {
        name
        for operation in stage.operations
        for name in operation.outputs
        if uses.get(name, 0) > inside.get(name, 0)
    }
    for operation in reversed(stage.operations):
        if KINDS[operation.kind].view and outside & set(operation.outputs):
            outside |= set(operation.names)
    return tuple(name for name in stage.made if name in outside)
