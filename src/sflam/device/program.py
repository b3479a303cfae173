"""A graph bound to one n: arrays made once, and the stages as calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sflam.device.frozen import Frozen
from sflam.device.head_calls import HeadStage
from sflam.device.kernels.cells import CELLS
from sflam.device.kernels.scratch import Array, Scratch, block_of, blocks
from sflam.device.kernels.table import KERNELS, Call, Draw
from sflam.device.layout import Strided
from sflam.device.placement import Offsets, attributes_at, chain_block, chain_slots, widest
from sflam.device.stages import Stage
from sflam.device.storage import ARENA, GIVEN, READ, RESULT, StoragePlan
from sflam.errors import GraphError
from sflam.graph.graph import Graph, Operation

Given = Mapping[str, Array | Frozen]
Values = dict[str, Any]
Run = Callable[[Values, Draw], None]


class Program:
    """All calls of a graph for one n, over one arena."""

    def __init__(
        self, graph: Graph, plan: StoragePlan, offsets: Offsets, n: int, dtype: np.dtype[Any], arena: Array
    ) -> None:
        self._graph, self._plan, self._n, self._dtype = graph, plan, n, dtype
        self._fixed: Values = {}
        self._late: list[tuple[str, Strided]] = []  # views of what a run is given or returns
        for name, layout in plan.layouts.items():
            storage = plan.storages[layout.storage]
            if storage.where in (ARENA, READ):
                if storage.first >= 0:
                    self._fixed[name] = self._array(layout, arena, offsets.storages[layout.storage])
            else:
                self._late.append((name, layout))
        self._calls: list[Run] = []
        reads = [(storage.first, storage.name) for storage in plan.storages if storage.where == READ]
        for at, stage in enumerate(plan.stages):
            self._calls += [_reading(name) for first, name in reads if first == at]
            start, nbytes = offsets.rooms[at]
            room = arena[start : start + nbytes]
            if stage.heads:
                self._calls.append(_heads(HeadStage(graph, plan, stage, n, dtype), room))
            else:
                self._calls.append(self._chain(stage, room) if stage.is_chain else self._single(stage, room))

    def run(self, given: Given, draw: Draw) -> dict[str, Array]:
        """Return the outputs."""
        values: Values = dict(self._fixed)
        values.update({_given(name): given[name] for name in self._graph.weights})
        bases: dict[int, Array] = {}
        for name, layout in self._late:
            base = bases.get(layout.storage)
            if base is None:
                base = bases[layout.storage] = self._base(layout.storage, given)
            values[name] = self._array(layout, base, 0)
        for call in self._calls:
            call(values, draw)
        results = {}
        for name in self._graph.outputs:
            if name in self._plan.copied:
                found = values[name] if name in values else given[name]
                results[name] = found.copy() if isinstance(found, np.ndarray) else _read(found)
            else:
                results[name] = bases[self._plan.layouts[name].storage]
        return results

    def _base(self, storage: int, given: Given) -> Array:
        found = self._plan.storages[storage]
        value = self._graph.values[found.name]
        shape, dtype = tuple(size.at(self._n) for size in value.shape), self._numbers(value.numbers)
        if found.where == RESULT:
            return np.empty(shape, dtype)
        assert found.where == GIVEN
        array = given[found.name]
        if array.shape != shape or array.dtype != dtype or isinstance(array, Frozen):
            raise GraphError(
                f"input {found.name} is {array.dtype} {list(array.shape)}; for n = {self._n} the graph takes {dtype} "
                f"{list(shape)}"
            )
        return np.ascontiguousarray(array).reshape(shape)

    def _array(self, layout: Strided, base: Array, start: int) -> Array:
        dtype = self._numbers(layout.numbers)
        n, wide = self._n, dtype.itemsize
        shape = tuple(size.at(n) for size in layout.shape)
        strides = tuple(stride.at(n) * wide for stride in layout.strides)
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, base, start + layout.offset.at(n) * wide, strides)

    def _numbers(self, numbers: str) -> np.dtype[Any]:
        return {"float": self._dtype, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}[numbers]

    def _single(self, stage: Stage, room: Array) -> Run:
        [operation] = stage.operations
        attributes = attributes_at(operation, self._n)
        outs, operands = operation.outputs, _operands(operation, self._plan)
        if stage.is_view:
            return lambda values, draw: _copy(values, operation)
        run = KERNELS[operation.kind].run

        def call(values: Values, draw: Draw) -> None:
            run(
                Call(
                    [values[name] for name in outs],
                    [values[each] if isinstance(each, str) else each for each in operands],
                    attributes,
                    room,
                    draw,
                )
            )

        return call

    def _chain(self, stage: Stage, room: Array) -> Run:
        graph, plan, n = self._graph, self._plan, self._n
        wide = self._dtype.itemsize
        shape = tuple(size.at(n) for size in graph.values[stage.operations[0].outputs[0]].shape)
        cuts = blocks(shape, widest(graph, stage.operations, wide))
        each = chain_block(graph, stage.operations, n, wide)
        slots, count = chain_slots(stage.operations, plan)
        scratch = Scratch(room[count * each :], each)
        buffers = [(name, self._numbers(graph.values[name].numbers), at * each) for name, at in slots.items()]
        outside = (*stage.used, *(name for name in stage.made if name not in slots))
        cells = [
            (CELLS[op.kind].run, op.outputs[0], op.inputs, attributes_at(op, n)) for op in stage.operations
        ]

        def run(values: Values, size: tuple[int, ...]) -> None:
            for name, dtype, start in buffers:
                values[name] = np.ndarray(size, dtype, room, start)
            for cell, out, operands, attributes in cells:
                cell(
                    values[out],
                    scratch,
                    *[values[each] if isinstance(each, str) else each for each in operands],
                    **attributes,
                )

        def call(values: Values, draw: Draw) -> None:
            if len(cuts) == 1:
                run({name: values[name] for name in outside}, shape)
                return
            parts = [(name, values[name], values[name].shape) for name in outside]
            for block in cuts:
                size = tuple(len(range(*cut.indices(all_))) for cut, all_ in zip(block, shape, strict=True))
                run({name: array[block_of(own, block)] for name, array, own in parts}, size)

        return call


def _heads(stage: HeadStage, room: Array) -> Run:
    return lambda values, draw: stage.run(values, draw, room)


def _given(name: str) -> str:
    """Return the name of a weight as it was given; its plain name is the array it is read into."""
    return f"\0{name}"


def _operands(operation: Operation, plan: StoragePlan) -> Sequence[Any]:
    return [
        _given(each) if isinstance(each, str) and each in plan.streamed else each for each in operation.inputs
    ]


def _reading(name: str) -> Run:
    def read(values: Values, draw: Draw) -> None:
        found, into = values[_given(name)], values[name]
        if isinstance(found, Frozen):
            found.read(into)
        else:
            np.copyto(into, found)

    return read


def _read(found: Frozen) -> Array:
    out: npt.NDArray[Any] = np.empty(found.shape, found.dtype)
    found.read(out)
    return out


def _copy(values: Values, operation: Operation) -> None:
    """Copy what cannot be a view: a reshape of axes that do not lie one after the other."""
    out, x = values[operation.outputs[0]], values[operation.names[0]]
    np.copyto(out.reshape(x.shape), x)
