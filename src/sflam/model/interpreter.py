"""The kinds of operation in plain NumPy, one line each, as the measure of every other engine.

Memory and speed are no concern here: a graph is run with it before it is offered, and test vectors come from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sflam.codec.noise import columns, token_keys
from sflam.graph.graph import Graph
from sflam.graph.size import Size

# mypy: disable-error-code="no-any-return"

Array = NDArray[Any]


def run_graph(
    graph: Graph,
    inputs: Mapping[str, Array],
    n: int,
    *,
    seed: int = 0,
    dtype: str = "float32",
    keep: Callable[[str, tuple[Array, ...], tuple[Array, ...], dict[str, Any]], None] | None = None,
) -> dict[str, Array]:
    """Return the outputs of a graph, name -> array.

    Args:
        graph: what to run.
        inputs: name -> array, of the shapes the graph declares.
        n: the symbolic size.
        seed: of the dropout masks.
        dtype: the one float type, ``float32`` or ``float64``.
        keep: is shown the kind, inputs, outputs and attributes of every operation.
    """
    types = {"float": np.dtype(dtype), "int": np.dtype(np.int64), "bool": np.dtype(bool)}
    known: dict[str, Array] = {}
    for name in graph.inputs:
        declared = graph.values[name]
        shape = tuple(size.at(n) for size in declared.shape)
        known[name] = np.asarray(inputs[name], types[declared.numbers]).reshape(shape)
    for operation in graph.operations:
        made = [graph.values[name] for name in operation.outputs]
        given = tuple(
            known[each] if isinstance(each, str) else np.asarray(each, types[_scalar(each, made[0].numbers)])
            for each in operation.inputs
        )
        attributes = {key: _resolved(value, n) for key, value in operation.attributes.items()}
        own = {"fill", "count", "cast", "dropout_mask", "uniform"} & {operation.kind}
        extra = {"types": types, "seed": seed} if own else {}
        with np.errstate(all="ignore"):
            found = COMPUTED[operation.kind](*given, **attributes, **extra)
        out = tuple(found) if isinstance(found, tuple) else (found,)
        for name, value, array in zip(operation.outputs, made, out, strict=True):
            known[name] = np.asarray(array, types[value.numbers])
            assert known[name].shape == tuple(size.at(n) for size in value.shape), (operation, n)
        if keep:
            keep(operation.kind, given, tuple(known[name] for name in operation.outputs), attributes)
    return {name: known[name] for name in graph.outputs}


def _scalar(number: float | int, numbers: str) -> str:
    """Return the kind a number takes on beside values of a kind."""
    return "float" if isinstance(number, float) or numbers == "float" else "int"


def _resolved(value: Any, n: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_resolved(each, n) for each in value)
    return value.at(n) if isinstance(value, Size) else value


def _erf(x: Array) -> Array:
    return torch.erf(torch.from_numpy(np.ascontiguousarray(x))).numpy().reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu(x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def _gelu_grad(grad: Array, x: Array, approximate: str) -> Array:
    if approximate == "tanh":
        t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return grad * ((1 + t) / 2 + x * (1 - t * t) * inner / 2)
    return grad * ((1 + _erf(x / math.sqrt(2))) / 2 + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi))


def _softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis, keepdims=True)


def _log_softmax(x: Array, axis: int) -> Array:
    x = x - x.max(axis, keepdims=True, initial=-np.inf)
    return x - np.log(np.exp(x).sum(axis, keepdims=True))


def _layer_norm(x: Array, w: Array, b: Array, eps: float) -> tuple[Array, Array, Array]:
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(-1, keepdims=True) + eps)
    return (x - mean) * rstd * w + b, mean, rstd


def _layer_norm_grad(grad: Array, x: Array, mean: Array, rstd: Array, w: Array) -> Array:
    g, y = grad * w, (x - mean) * rstd
    return rstd * (g - g.mean(-1, keepdims=True) - y * (g * y).mean(-1, keepdims=True))


def _linear(x: Array, w: Array, b: Array | float = 0.0, *, transposed: bool) -> Array:
    return x @ (w if transposed else w.T) + b


def _slice(x: Array, axis: int, start: int, stop: int, step: int) -> Array:
    assert stop <= x.shape[axis]
    return x[(*[slice(None)] * axis, slice(start, stop, step))]


def _pad(x: Array, axis: int, before: int, after: int) -> Array:
    return np.pad(x, [(before, after) if at == axis else (0, 0) for at in range(x.ndim)])


def _words(shape: tuple[int, ...], stream: int, seed: int) -> Array:
    count = math.prod(shape)
    word = token_keys(seed, stream + 1)[stream] ^ columns(2 * count)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        word = (word ^ word >> np.uint32(shift)) * np.uint32(factor)
    return word.reshape(shape)


def _dropout_mask(shape: tuple[int, ...], p: float, stream: int, types: Any, seed: int) -> Array:
    kept = _words(shape, stream, seed) >= np.uint32(int(p * 2**32))
    return kept.astype(types["float"]) * (1 / (1 - p))


def _uniform(shape: tuple[int, ...], stream: int, types: Any, seed: int) -> Array:
    return (_words(shape, stream, seed) / 2**32).astype(types["float"])


COMPUTED: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "pow": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "neg": np.negative,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "expm1": np.expm1,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * _sigmoid(x),
    "silu_grad": lambda grad, x: grad * _sigmoid(x) * (1 + x * (1 - _sigmoid(x))),
    "gelu": _gelu,
    "gelu_grad": _gelu_grad,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "where": np.where,
    "cast": lambda x, to, types, seed: x.astype(types[to]),
    "softmax": _softmax,
    "softmax_grad": lambda grad, out, axis: out * (grad - (grad * out).sum(axis, keepdims=True)),
    "log_softmax": _log_softmax,
    "log_softmax_grad": lambda grad, out, axis: grad - np.exp(out) * grad.sum(axis, keepdims=True),
    "layer_norm": _layer_norm,
    "layer_norm_grad": _layer_norm_grad,
    "sum": lambda x, axes, keep: x.sum(axes, keepdims=keep),
    "mean": lambda x, axes, keep: x.mean(axes, keepdims=keep),
    "max": lambda x, axes, keep: x.max(axes, keepdims=keep),
    "any": lambda x, axes, keep: x.any(axes, keepdims=keep),
    "all": lambda x, axes, keep: x.all(axes, keepdims=keep),
    "cumsum": lambda x, axis: x.cumsum(axis),
    "matmul": np.matmul,
    "addmm": lambda x, a, b: x + a @ b,
    "linear": _linear,
    "reshape": lambda x, shape: x.reshape(shape),
    "transpose": lambda x, axes: x.transpose(axes),
    "expand": lambda x, shape: np.broadcast_to(x, shape),
    "slice": _slice,
    "concat": lambda *parts, axis: np.concatenate(parts, axis),
    "pad": _pad,
    "take": lambda table, ids: table[ids],
    "take_along": lambda x, ids, axis: np.take_along_axis(x, ids, axis),
    "one_hot": lambda ids, size: ids[..., None] == np.arange(size),
    "fill": lambda shape, value, numbers, types, seed: np.full(shape, value, types[numbers]),
    "arange": np.arange,
    "count": lambda size, numbers, types, seed: np.asarray(size, types[numbers]),
    "dropout_mask": _dropout_mask,
    "uniform": _uniform,
}
"""Kind -> what it computes from arrays and attributes."""
