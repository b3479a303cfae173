"""Operations whose every number hangs on the numbers at its own place alone.

``out`` may be any operand of its shape: each function reads an operand for the last time before, or while, it
writes ``out``. Operands broadcast and may be numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sflam.device.kernels import activations
from sflam.device.kernels.scratch import Array, Scratch

Operand = Any
"""An array, or a number."""


@dataclass(frozen=True)
class CellKernel:
    """How one kind is computed: ``run(out, scratch, *operands, **attributes)``, and the buffers it works in."""

    run: Callable[..., Any]
    slots: int = 0


def _ufunc(function: np.ufunc) -> CellKernel:
    return CellKernel(lambda out, scratch, *operands: function(*operands, out=out))


def _power(out: Array, scratch: Scratch, x: Operand, exponent: Operand) -> None:
    if isinstance(exponent, int | float) and not isinstance(x, int | float):
        if exponent == 2:
            np.square(x, out=out)
            return
        if exponent in (0.5, -0.5):
            np.sqrt(x, out=out)
            if exponent < 0:
                np.reciprocal(out, out=out)
            return
    np.power(x, exponent, out=out)


def _rsqrt(out: Array, scratch: Scratch, x: Array) -> None:
    np.reciprocal(np.sqrt(x, out=out), out=out)


def _where(out: Array, scratch: Scratch, condition: Array, a: Operand, b: Operand) -> None:
    if isinstance(a, np.ndarray) and np.may_share_memory(out, a):
        other = np.logical_not(condition, out=scratch.array(0, condition.shape, np.bool_))
        np.copyto(out, a)
        np.copyto(out, b, where=other)
    else:
        np.copyto(out, b)
        np.copyto(out, a, where=condition)


def _cast(out: Array, scratch: Scratch, x: Array, *, to: str) -> None:
    if to == "bool":
        np.not_equal(x, 0, out=out)
    else:
        np.copyto(out, x, casting="unsafe")


def _plain(function: Callable[..., None], slots: int) -> CellKernel:
    """Return a kernel whose own order is out, operands, scratch."""
    return CellKernel(
        lambda out, scratch, *operands, **attributes: function(out, *operands, scratch, **attributes), slots
    )


def _gelu(function: Callable[..., None]) -> CellKernel:
    def run(out: Array, scratch: Scratch, *operands: Array, approximate: str) -> None:
        function(out, *operands, scratch, approximate=approximate == "tanh")

    return CellKernel(run, 3)


CELLS: Mapping[str, CellKernel] = {
    "add": _ufunc(np.add),
    "sub": _ufunc(np.subtract),
    "mul": _ufunc(np.multiply),
    "div": _ufunc(np.divide),
    "floor_divide": _ufunc(np.floor_divide),
    "remainder": _ufunc(np.remainder),
    "pow": CellKernel(_power),
    "maximum": _ufunc(np.maximum),
    "minimum": _ufunc(np.minimum),
    "neg": _ufunc(np.negative),
    "abs": _ufunc(np.absolute),
    "exp": _ufunc(np.exp),
    "log": _ufunc(np.log),
    "expm1": _ufunc(np.expm1),
    "log1p": _ufunc(np.log1p),
    "sqrt": _ufunc(np.sqrt),
    "rsqrt": CellKernel(_rsqrt),
    "reciprocal": _ufunc(np.reciprocal),
    "tanh": _ufunc(np.tanh),
    "sigmoid": _plain(activations.sigmoid, 1),
    "erf": _plain(activations.erf, 2),
    "sin": _ufunc(np.sin),
    "cos": _ufunc(np.cos),
    "floor": _ufunc(np.floor),
    "relu": _plain(activations.relu, 0),
    "silu": _plain(activations.silu, 2),
    "silu_grad": _plain(activations.silu_grad, 3),
    "gelu": _gelu(activations.gelu),
    "gelu_grad": _gelu(activations.gelu_grad),
    "eq": _ufunc(np.equal),
    "ne": _ufunc(np.not_equal),
    "lt": _ufunc(np.less),
    "le": _ufunc(np.less_equal),
    "gt": _ufunc(np.greater),
    "ge": _ufunc(np.greater_equal),
    "and": _ufunc(np.logical_and),
    "or": _ufunc(np.logical_or),
    "not": _ufunc(np.logical_not),
    "where": CellKernel(_where, 1),
    "cast": CellKernel(_cast),
}
"""Kind -> kernel."""
