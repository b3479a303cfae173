"""Offsets of all that a run needs in one piece of memory, for one n: the peak is known before anything runs.

What is alive together must not overlap. The largest is placed first, each in the tightest gap that is free for as
long as it lives (greedy by size: Pisarchyk, Lee, "Efficient memory management for deep neural net inference",
arXiv:2001.03288).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sflam.device.head_calls import room_bytes
from sflam.device.kernels.cells import CELLS
from sflam.device.kernels.scratch import aligned, block_bytes
from sflam.device.kernels.table import KERNELS, Form
from sflam.device.layout import Strided
from sflam.device.storage import ARENA, BYTES, READ, RESULT, StoragePlan
from sflam.graph.graph import Graph, Operation
from sflam.graph.size import Size


@dataclass(frozen=True)
class Offsets:
    """Where everything lies.

    Attributes:
        storages: first byte per storage; 0 for those outside the arena.
        rooms: (first byte, bytes) of the working memory per stage.
        arena: bytes of the arena.
        alive: the most bytes alive at once in the arena; the rest is lost in gaps.
        results: bytes of the arrays that are returned.
    """

    storages: tuple[int, ...]
    rooms: tuple[tuple[int, int], ...]
    arena: int
    alive: int
    results: int


def place(graph: Graph, plan: StoragePlan, n: int, itemsize: int) -> Offsets:
    """Return the offsets for n."""
    lives: list[tuple[int, int, int]] = []  # bytes, first and last stage
    for storage in plan.storages:
        inside = storage.where in (ARENA, READ) and storage.first >= 0
        lives.append((aligned(storage.nbytes(n, itemsize)) if inside else 0, storage.first, storage.last))
    for at in range(len(plan.stages)):
        lives.append((aligned(room_of(graph, plan, at, n, itemsize)), at, at))
    offsets = _offsets(lives)
    count = len(plan.storages)
    alive = [0] * (len(plan.stages) + 2)
    for nbytes, first, last in lives:
        if nbytes:
            alive[first] += nbytes
            alive[last + 1] -= nbytes
    most = total = 0
    for change in alive:
        total += change
        most = max(most, total)
    named = [s for s in plan.storages if s.where == RESULT]
    copied = sum(
        math.prod(size.at(n) for size in graph.values[name].shape) * width(graph, name, itemsize)
        for name in plan.copied
    )
    return Offsets(
        storages=tuple(offsets[:count]),
        rooms=tuple((offsets[count + at], lives[count + at][0]) for at in range(len(plan.stages))),
        arena=max((offset + life[0] for offset, life in zip(offsets, lives, strict=True)), default=0),
        alive=most,
        results=copied + sum(storage.nbytes(n, itemsize) for storage in named),
    )


def room_of(graph: Graph, plan: StoragePlan, at: int, n: int, itemsize: int) -> int:
    """Return the bytes of working memory of a stage."""
    stage = plan.stages[at]
    if stage.heads:
        return room_bytes(graph, plan, stage, n, itemsize)
    if stage.is_chain:
        block = chain_block(graph, stage.operations, n, itemsize)
        scratch = max(CELLS[operation.kind].slots for operation in stage.operations)
        return (scratch + chain_slots(stage.operations, plan)[1]) * block
    operation = stage.operations[0]
    if operation.kind not in KERNELS:
        return 0
    outs = [_form(graph, plan, name, n, itemsize) for name in operation.outputs]
    operands = [
        _form(graph, plan, operand, n, itemsize) if isinstance(operand, str) else operand
        for operand in operation.inputs
    ]
    return KERNELS[operation.kind].room(outs, operands, attributes_at(operation, n))


def chain_block(graph: Graph, operations: Sequence[Operation], n: int, itemsize: int) -> int:
    """Return the bytes of a buffer that holds a block of any value of a chain."""
    shape = tuple(size.at(n) for size in graph.values[operations[0].outputs[0]].shape)
    return aligned(block_bytes(shape, widest(graph, operations, itemsize)))


def chain_slots(operations: Sequence[Operation], plan: StoragePlan) -> tuple[dict[str, int], int]:
    """Return the buffer of each value that lives in the chain alone, and how many buffers there are."""
    last = {name: at for at, operation in enumerate(operations) for name in operation.names}
    slots: dict[str, int] = {}
    free: list[int] = []
    count = 0
    for at, operation in enumerate(operations):
        [name] = operation.outputs
        if name not in plan.layouts:
            if not free:
                free.append(count)
                count += 1
            slots[name] = free.pop()
        for used in {*operation.names, name}:
            if used in slots and last.get(used, at) == at:
                free.append(slots[used])
    return slots, count


def widest(graph: Graph, operations: Sequence[Operation], itemsize: int) -> int:
    """Return the bytes of the widest number that a chain makes."""
    return max(width(graph, operation.outputs[0], itemsize) for operation in operations)


def width(graph: Graph, name: str, itemsize: int) -> int:
    """Return the bytes of a number of a value."""
    return BYTES.get(graph.values[name].numbers, itemsize)


def attributes_at(operation: Operation, n: int) -> dict[str, object]:
    """Return the attributes with sizes as numbers."""
    return {name: _number(value, n) for name, value in operation.attributes.items()}


def _number(value: object, n: int) -> object:
    if isinstance(value, Size):
        return value.at(n)
    if isinstance(value, tuple):
        return tuple(_number(each, n) for each in value)
    return value


def _form(graph: Graph, plan: StoragePlan, name: str, n: int, itemsize: int) -> Form:
    wide = width(graph, name, itemsize)
    shape = tuple(size.at(n) for size in graph.values[name].shape)
    layout: Strided | None = plan.layouts.get(name)
    if layout is None:
        return Form(shape, (), wide, frozen=name in plan.streamed)
    return Form(shape, tuple(stride.at(n) * wide for stride in layout.strides), wide)


def _offsets(lives: Sequence[tuple[int, int, int]]) -> list[int]:
    offsets = [0] * len(lives)
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first, last; by offset
    for at in sorted(range(len(lives)), key=lambda at: -lives[at][0]):
        nbytes, first, last = lives[at]
        if not nbytes:
            break
        best, tightest, end = -1, math.inf, 0
        for offset, after, since, until in placed:
            if since > last or until < first:
                continue
            if nbytes <= offset - end < tightest:
                best, tightest = end, offset - end
            end = max(end, after)
        offsets[at] = end if best < 0 else best
        placed.append((offsets[at], offsets[at] + nbytes, first, last))
        placed.sort()
    return offsets
