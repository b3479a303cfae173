"""Runs a stage of attention, a block of heads at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sflam.device import heads
from sflam.device.kernels import moving, rows, scratch
from sflam.device.kernels.cells import CELLS
from sflam.device.kernels.scratch import Array, Block, Scratch, aligned
from sflam.device.kernels.table import Draw
from sflam.device.stages import Stage
from sflam.device.storage import StoragePlan
from sflam.graph.graph import Graph, Operation
from sflam.graph.operations import KINDS

DTYPES = {"int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}
SCRATCHES = 2


class HeadStage:
    """One stage for one n: which heads run together, and where what only they use lies.

    Attributes:
        room: bytes of working memory.
    """

    def __init__(self, graph: Graph, plan: StoragePlan, stage: Stage, n: int, dtype: np.dtype[Any]) -> None:
        self._graph, self._plan, self._stage, self._n, self._dtype = graph, plan, stage, n, dtype
        values = graph.values
        first = values[stage.members[0].outputs[0]].shape
        self._lead = tuple(size.at(n) for size in heads.lead_of(first))
        matrices = {
            name: tuple(s.at(n) for s in values[name].shape[-2:])
            for each in stage.operations
            for name in each.outputs
        }
        self._matrices = matrices
        largest = max(math.prod(matrices[name]) * self._type(name).itemsize for name in stage.made)
        self._blocks = heads.cuts(self._lead, largest)
        together = math.prod(_lengths(self._blocks[0], self._lead)) if self._blocks else 0
        self._each = aligned(together * largest)
        self._slots, count = self._assign()
        row = max(shape[1] for shape in matrices.values()) * dtype.itemsize
        numbers = together * max(map(math.prod, matrices.values()))
        # rows are worked on a few at a time; what goes number by number takes a block of heads whole
        at_once = min(numbers * dtype.itemsize, max(scratch.BLOCK_BYTES, row))
        self._scratch = aligned(max(at_once, *(numbers * self._working(each) for each in stage.operations)))
        self._start = count * self._each
        self.room = self._start + SCRATCHES * self._scratch

    def run(self, values: dict[str, Any], draw: Draw, room: Array) -> None:
        """Compute what the stage makes."""
        shapes = self._graph.values
        buffers = Scratch(room[self._start :], self._scratch)
        before = 0
        for block in self._blocks:
            lead = _lengths(block, self._lead)
            local: dict[str, Array] = {}
            for operation in self._stage.operations:
                name = operation.outputs[0]
                if KINDS[operation.kind].view:
                    array = local[operation.names[0]]
                    local[name] = array.swapaxes(-1, -2) if operation.kind == "transpose" else array
                    continue
                out = shapes[name].shape
                if name in self._slots:
                    made: Array = np.ndarray(
                        (*lead, *self._matrices[name]), self._type(name), room, self._slots[name] * self._each
                    )
                else:
                    made = values[name][heads.part(out, out, block)]
                local[name] = made
                operands = [
                    each
                    if not isinstance(each, str)
                    else local[each]
                    if each in local
                    else values[each][heads.part(shapes[each].shape, out, block)]
                    for each in operation.inputs
                ]
                self._compute(operation, made, operands, buffers, draw, before)
            before += math.prod(lead)

    def _compute(
        self,
        operation: Operation,
        out: Array,
        operands: Sequence[Any],
        buffers: Scratch,
        draw: Draw,
        before: int,
    ) -> None:
        kind, attributes = operation.kind, operation.attributes
        if kind == "matmul":
            np.matmul(operands[0], operands[1], out=out)
        elif kind == "softmax":
            rows.softmax(out, operands[0], buffers)
        elif kind == "softmax_grad":
            rows.softmax_grad(out, operands[0], operands[1], buffers)
        elif kind == "dropout_mask":
            p, stream = attributes["p"], attributes["stream"]
            assert isinstance(p, float) and isinstance(stream, int)
            matrix = math.prod(out.shape[-2:])
            whole = math.prod(self._lead) * matrix
            first = draw.first * (whole // draw.n) + before * matrix
            moving.dropout_mask(out, p=p, seed=draw.seed, stream=stream, first=first)
        else:
            CELLS[kind].run(out, buffers, *operands, **attributes)

    def _working(self, operation: Operation) -> int:
        """Return the bytes of working memory for each number that an operation makes."""
        kernel = CELLS.get(operation.kind)
        if kernel is None or not kernel.slots:
            return 0
        return DTYPES["bool"].itemsize if operation.kind == "where" else self._dtype.itemsize

    def _type(self, name: str) -> np.dtype[Any]:
        return DTYPES.get(self._graph.values[name].numbers, self._dtype)

    def _assign(self) -> tuple[dict[str, int], int]:
        """Return the buffer of each value that lives in the stage alone, and how many buffers there are."""
        operations = self._stage.operations
        source: dict[str, str] = {}  # of a view
        last: dict[str, int] = {}
        for at, operation in enumerate(operations):
            [name] = operation.outputs
            source[name] = source[operation.names[0]] if KINDS[operation.kind].view else name
            for used in operation.names:
                if used in source:
                    last[source[used]] = at
        slots: dict[str, int] = {}
        free: list[int] = []
        count = 0
        for at, operation in enumerate(operations):
            [name] = operation.outputs
            gone = [
                used
                for used in dict.fromkeys(source[each] for each in operation.names if each in source)
                if used in slots and last[used] == at
            ]
            if not KINDS[operation.kind].view and name not in self._plan.layouts:
                over = next((used for used in gone if self._may_take(operation, name, used)), None)
                if over is not None:
                    gone.remove(over)
                    slots[name] = slots[over]
                elif free:
                    slots[name] = free.pop()
                else:
                    slots[name], count = count, count + 1
                if name not in last:  # used by nothing
                    free.append(slots[name])
            free += [slots[used] for used in gone if not KINDS[operation.kind].view or used != source[name]]
        return slots, count

    def _may_take(self, operation: Operation, name: str, operand: str) -> bool:
        """Return whether a result may overwrite an operand: place by place, and the operand not turned."""
        return (
            operation.kind != "matmul"
            and operand in operation.names
            and self._matrices[name] == self._matrices[operand]
            and self._type(name) == self._type(operand)
            and not any(each != operand and self._is_view_of(each, operand) for each in operation.names)
        )

    def _is_view_of(self, name: str, operand: str) -> bool:
        for operation in self._stage.operations:
            if KINDS[operation.kind].view and operation.outputs[0] == name:
                return operation.names[0] == operand or self._is_view_of(operation.names[0], operand)
        return False


def _lengths(block: Block, lead: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(len(range(*cut.indices(size))) for cut, size in zip(block, lead, strict=True))


def room_bytes(graph: Graph, plan: StoragePlan, stage: Stage, n: int, itemsize: int) -> int:
    """Return the working memory of a stage."""
    return HeadStage(graph, plan, stage, n, np.dtype(f"f{itemsize}")).room
