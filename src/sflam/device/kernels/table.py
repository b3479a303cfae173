"""Every kind of operation that is neither a view nor a cell: how it is computed, and what it needs beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sflam.device.kernels import moving, products, rows
from sflam.device.kernels.scratch import Array, Scratch, aligned, block_bytes


@dataclass(frozen=True)
class Form:
    """What is known of an array before it exists: shape, strides in bytes, bytes of a number, and whether frozen."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    frozen: bool = False


@dataclass(frozen=True)
class Draw:
    """What dropout masks hang on: the run's seed, and how many rows of the mini-batch came before this run's."""

    seed: int = 0
    first: int = 0
    n: int = 1


@dataclass(frozen=True)
class Call:
    """One operation with its arrays.

    Attributes:
        outs: to be written, contiguous.
        operands: arrays, frozen matrices or numbers.
        attributes: those of the graph, sizes as numbers.
        room: working memory, as many bytes as :attr:`Kernel.room` asks for.
        draw: for dropout.
    """

    outs: Sequence[Array]
    operands: Sequence[Any]
    attributes: Mapping[str, Any]
    room: Array
    draw: Draw


Room = Callable[[Sequence[Form], Sequence[Any], Mapping[str, Any]], int]
"""Outputs, operands (forms or numbers) and attributes -> bytes."""


@dataclass(frozen=True)
class Kernel:
    """How one kind is computed.

    Attributes:
        run: computes it.
        over: operands whose memory the first output may take, where they have its shape and are used no more.
        room: bytes of working memory.
        frozen: operands that may be read from the file as they are used.
    """

    run: Callable[[Call], None]
    over: tuple[int, ...] = ()
    room: Room = lambda outs, operands, attributes: 0
    frozen: tuple[int, ...] = ()


def _by_rows(function: Callable[..., None], slots: int, over: tuple[int, ...]) -> Kernel:
    """Return the kernel of a function of :mod:`rows`."""

    def each(out: Form, attributes: Mapping[str, Any]) -> int:
        axis = attributes.get("axis", -1) % len(out.shape)
        shape = (*out.shape[:axis], *out.shape[axis + 1 :], out.shape[axis])
        return aligned(block_bytes(shape, out.itemsize, whole=1))

    def room(outs: Sequence[Form], operands: Sequence[Any], attributes: Mapping[str, Any]) -> int:
        return slots * each(outs[0], attributes)

    def run(call: Call) -> None:
        out = call.outs[0]
        scratch = Scratch(call.room, each(Form(out.shape, out.strides, out.itemsize), call.attributes))
        function(*call.outs, *call.operands, scratch, **call.attributes)

    return Kernel(run, over, room)


def _linear(call: Call) -> None:
    x, w, *bias = call.operands
    products.linear(
        call.outs[0], x, w, bias[0] if bias else None, call.room, transposed=call.attributes["transposed"]
    )


def _linear_room(outs: Sequence[Form], operands: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    w = operands[1]
    if not w.frozen:
        return 0
    return products.linear_room(outs[0].shape, w.shape, w.itemsize, transposed=attributes["transposed"])


def _matmul_room(outs: Sequence[Form], operands: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    a, b = operands
    return products.matmul_room((a.shape, a.strides), (b.shape, b.strides), a.itemsize)


def _addmm_room(outs: Sequence[Form], operands: Sequence[Any], attributes: Mapping[str, Any]) -> int:
    return products.addmm_room(outs[0].shape, operands[2].shape, outs[0].itemsize)


def _matmul(call: Call) -> None:
    a, b = call.operands
    products.matmul(call.outs[0], a, b, call.room)


def _addmm(call: Call) -> None:
    x, a, b = call.operands
    products.addmm(call.outs[0], x, a, b, call.room)


def _take(call: Call) -> None:
    table, ids = call.operands
    moving.take(call.outs[0], table, ids)


def _reduce(kind: str) -> Kernel:
    def run(call: Call) -> None:
        axes, keep = tuple(call.attributes["axes"]), call.attributes["keep"]
        moving.reduce(kind, call.outs[0], call.operands[0], axes=axes, keep=keep)

    return Kernel(run)


def _cumsum(call: Call) -> None:
    np.cumsum(call.operands[0], axis=call.attributes["axis"], out=call.outs[0])


def _fill(call: Call) -> None:
    call.outs[0][...] = call.attributes["value"]


def _arange(call: Call) -> None:
    call.outs[0][...] = np.arange(call.attributes["stop"])


def _count(call: Call) -> None:
    call.outs[0][...] = call.attributes["size"]


def _drawn(function: Callable[..., None]) -> Kernel:
    def run(call: Call) -> None:
        out, draw = call.outs[0], call.draw
        given = {name: value for name, value in call.attributes.items() if name != "shape"}
        function(out, seed=draw.seed, first=draw.first * (out.size // draw.n), **given)

    return Kernel(run)


KERNELS: Mapping[str, Kernel] = {
    "softmax": _by_rows(rows.softmax, 1, (0,)),
    "softmax_grad": _by_rows(rows.softmax_grad, 2, (0, 1)),
    "log_softmax": _by_rows(rows.log_softmax, 2, (0,)),
    "log_softmax_grad": _by_rows(rows.log_softmax_grad, 2, (0, 1)),
    "layer_norm": _by_rows(rows.layer_norm, 1, (0,)),
    "layer_norm_grad": _by_rows(rows.layer_norm_grad, 4, (0, 1)),
    "sum": _reduce("sum"),
    "mean": _reduce("mean"),
    "max": _reduce("max"),
    "any": _reduce("any"),
    "all": _reduce("all"),
    "cumsum": Kernel(_cumsum),
    "matmul": Kernel(_matmul, room=_matmul_room),
    "addmm": Kernel(_addmm, over=(0,), room=_addmm_room),
    "linear": Kernel(_linear, room=_linear_room, frozen=(1,)),
    "concat": Kernel(lambda call: moving.concat(call.outs[0], *call.operands, axis=call.attributes["axis"])),
    "pad": Kernel(
        lambda call: moving.pad(
            call.outs[0], call.operands[0], axis=call.attributes["axis"], before=call.attributes["before"]
        )
    ),
    "take": Kernel(_take, frozen=(0,)),
    "take_along": Kernel(
        lambda call: moving.take_along(call.outs[0], *call.operands, axis=call.attributes["axis"])
    ),
    "one_hot": Kernel(lambda call: moving.one_hot(call.outs[0], call.operands[0])),
    "fill": Kernel(_fill),
    "arange": Kernel(_arange),
    "count": Kernel(_count),
    "dropout_mask": _drawn(moving.dropout_mask),
    "uniform": _drawn(moving.uniform),
}
"""Kind -> kernel."""
