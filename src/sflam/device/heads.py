"""Attention a few heads at a time: operations over the same leading axes become one stage.

The scores of all heads, [heads, T, T], never exist at once; those of one block of heads stay in the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sflam.device.kernels.cells import CELLS
from sflam.device.kernels.scratch import Block, blocks
from sflam.graph.graph import Operation, Value
from sflam.graph.operations import KINDS
from sflam.graph.size import Shape

HEAD_BYTES = 256 << 10  # of the largest value of a block of heads; one head at least
ROWS = {"softmax", "softmax_grad"}


def lead_of(shape: Shape) -> Shape:
    """Return the leading axes of matrices, without those that are 1."""
    return tuple(size for size in shape[:-2] if not size.is_one)


def is_member(operation: Operation, lead: Shape, values: Mapping[str, Value], own: set[str]) -> bool:
    """Return whether an operation can run for a block of ``lead``; ``own`` are the values made within the stage."""
    out = values[operation.outputs[0]].shape
    if len(out) < 3 or lead_of(out) != lead:
        return False
    kind = operation.kind
    if kind in ROWS:
        if operation.attributes["axis"] != len(out) - 1:
            return False
    elif kind in CELLS:
        if CELLS[kind].slots > 1:
            return False
    elif kind not in ("matmul", "dropout_mask"):
        return False
    return all(_fits(values[name].shape, out, name in own) for name in operation.names)


def is_alias(operation: Operation, values: Mapping[str, Value]) -> bool:
    """Return whether a view keeps the matrices of its operand, or turns each."""
    old, new = values[operation.names[0]].shape, values[operation.outputs[0]].shape
    if len(old) < 3 or len(new) < 3 or lead_of(old) != lead_of(new):
        return False
    if operation.kind == "reshape":
        return old[-2:] == new[-2:]
    if operation.kind == "transpose":
        axes, rank = operation.attributes["axes"], len(old)
        return axes == (*range(rank - 2), rank - 1, rank - 2)
    return False


def cuts(lead: tuple[int, ...], matrix_bytes: int) -> tuple[Block, ...]:
    """Return the blocks of the leading axes, in order."""
    return blocks(lead, matrix_bytes, limit=HEAD_BYTES) or ()


def part(operand: Shape, out: Shape, block: Block) -> tuple[slice | int, ...]:
    """Return the index of what an operand of the shape gives to a block of a result of the shape ``out``."""
    lead = out[:-2]
    inside = iter(block)
    cut = [0 if size.is_one else next(inside) for size in lead]
    own = operand[:-2]
    index: list[slice | int] = []
    for at, size in enumerate(own):
        there = at + len(lead) - len(own)
        index.append(0 if lead[there].is_one else slice(None) if size.is_one else cut[there])
    return tuple(index)


def split(run: Sequence[Operation]) -> bool:
    """Return whether a run of members gains nothing as one stage."""
    return sum(not KINDS[each.kind].view for each in run) < 2


def _fits(operand: Shape, out: Shape, own: bool) -> bool:
    if own:
        return lead_of(operand) == lead_of(out)
    if len(operand) < 3:
        return True
    if len(operand) > len(out):
        return False
    lead = out[len(out) - len(operand) : -2]
    return all(size.is_one or size == there for size, there in zip(operand[:-2], lead, strict=True))
