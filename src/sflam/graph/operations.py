"""The kinds of operation: one row each, with what it computes in NumPy's words.

``float`` is the engine's one float type throughout. Operands of elementwise kinds broadcast, and may be numbers.

A dropout mask is 0 where ``word[i] < floor(p 2^32)`` and else 1 / (1 - p), for the flat index i of its shape, with
``word[i] = mix(key[stream] ^ i * 0x9E3779B9)``; ``mix`` and ``key``, of the run's seed, are those of the quantizers'
dither (:mod:`sflam.codec.noise`, a token being a stream): any machine draws the same masks from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sflam.errors import GraphError, unknown
from sflam.graph import inference as of
from sflam.graph.graph import Graph, Numbers, Operation, Value
from sflam.graph.inference import BOOL, FLOAT, INT, Given, Infer

ARITHMETIC: tuple[Numbers, ...] = (FLOAT, INT)
ANY: tuple[Numbers, ...] = (FLOAT, INT, BOOL)

FORMS = ("int", "ints", "float", "bool", "size", "sizes", "number", "numbers", "approximate")
"""What an attribute may be; ``numbers`` names a kind of number, ``approximate`` is none or tanh."""


@dataclass(frozen=True)
class Kind:
    """One row of the table.

    Attributes:
        computes: the outputs in NumPy's words.
        least: fewest inputs.
        infer: inputs and attributes -> values made.
        attributes: name -> one of ``FORMS``.
        most: most inputs; as many as ``least`` by default.
        view: whether the output may share its input's memory.
        cells: whether every output number hangs on the numbers at its own place alone (after broadcasting).
    """

    computes: str
    least: int
    infer: Infer
    attributes: Mapping[str, str] = field(default_factory=dict)
    most: int = 0
    view: bool = False
    cells: bool = False


def _cells(computes: str, inputs: int, infer: Infer, **attributes: str) -> Kind:
    return Kind(computes, inputs, infer, attributes, cells=True)


_float = of.elementwise(FLOAT)
_number = of.elementwise(None, of=ARITHMETIC)
_order = of.elementwise(BOOL, of=ARITHMETIC)
_equal = of.elementwise(BOOL, of=ANY)
_logic = of.elementwise(BOOL, of=(BOOL,))

KINDS: Mapping[str, Kind] = {
    "add": _cells("a + b", 2, _number),
    "sub": _cells("a - b", 2, _number),
    "mul": _cells("a * b", 2, _number),
    "div": _cells("a / b", 2, _float),
    "floor_divide": _cells("a // b", 2, _number),
    "remainder": _cells("a % b, of the sign of b", 2, _number),
    "pow": _cells("a ** b", 2, _float),
    "maximum": _cells("maximum(a, b)", 2, _number),
    "minimum": _cells("minimum(a, b)", 2, _number),
    "neg": _cells("-x", 1, _number),
    "abs": _cells("abs(x)", 1, _number),
    "exp": _cells("exp(x)", 1, _float),
    "log": _cells("log(x)", 1, _float),
    "expm1": _cells("expm1(x)", 1, _float),
    "log1p": _cells("log1p(x)", 1, _float),
    "sqrt": _cells("sqrt(x)", 1, _float),
    "rsqrt": _cells("1 / sqrt(x)", 1, _float),
    "reciprocal": _cells("1 / x", 1, _float),
    "tanh": _cells("tanh(x)", 1, _float),
    "sigmoid": _cells("1 / (1 + exp(-x))", 1, _float),
    "erf": _cells("2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x", 1, _float),
    "sin": _cells("sin(x)", 1, _float),
    "cos": _cells("cos(x)", 1, _float),
    "floor": _cells("floor(x)", 1, _float),
    "relu": _cells("maximum(x, 0)", 1, _float),
    "silu": _cells("x * sigmoid(x)", 1, _float),
    "silu_grad": _cells("grad * s * (1 + x * (1 - s)), s = sigmoid(x); inputs grad, x", 2, _float),
    "gelu": _cells(
        "x * c(x); none: c = (1 + erf(x / sqrt(2))) / 2; "
        "tanh: c = (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2",
        1,
        _float,
        approximate="approximate",
    ),
    "gelu_grad": _cells(
        "grad times the derivative of gelu at x; inputs grad, x", 2, _float, approximate="approximate"
    ),
    "eq": _cells("a == b", 2, _equal),
    "ne": _cells("a != b", 2, _equal),
    "lt": _cells("a < b", 2, _order),
    "le": _cells("a <= b", 2, _order),
    "gt": _cells("a > b", 2, _order),
    "ge": _cells("a >= b", 2, _order),
    "and": _cells("a & b", 2, _logic),
    "or": _cells("a | b", 2, _logic),
    "not": _cells("~x", 1, _logic),
    "where": _cells("where(condition, a, b)", 3, of.where),
    "cast": _cells("x.astype(to)", 1, of.cast, to="numbers"),
    "softmax": Kind("exp(x - max) / sum of that, along axis", 1, of.along, {"axis": "int"}),
    "softmax_grad": Kind(
        "out * (grad - sum(grad * out, axis)); inputs grad, out", 2, of.along, {"axis": "int"}
    ),
    "log_softmax": Kind("x - max - log(sum(exp(x - max))), along axis", 1, of.along, {"axis": "int"}),
    "log_softmax_grad": Kind(
        "grad - exp(out) * sum(grad, axis); inputs grad, out", 2, of.along, {"axis": "int"}
    ),
    "layer_norm": Kind(
        "(x - mean) * rstd * w + b, mean, rstd = 1 / sqrt(variance + eps), over the last axis (kept); inputs x, w, b",
        3,
        of.layer_norm,
        {"eps": "float"},
    ),
    "layer_norm_grad": Kind(
        "rstd * (g - mean of g - y * mean of (g * y)), g = grad * w, y = (x - mean) * rstd; "
        "inputs grad, x, mean, rstd, w",
        5,
        of.layer_norm_grad,
    ),
    "sum": Kind("x.sum(axes, keepdims=keep)", 1, of.reduce(ARITHMETIC), {"axes": "ints", "keep": "bool"}),
    "mean": Kind("x.mean(axes, keepdims=keep)", 1, of.reduce((FLOAT,)), {"axes": "ints", "keep": "bool"}),
    "max": Kind("x.max(axes, keepdims=keep)", 1, of.reduce(ARITHMETIC), {"axes": "ints", "keep": "bool"}),
    "any": Kind("x.any(axes, keepdims=keep)", 1, of.reduce((BOOL,)), {"axes": "ints", "keep": "bool"}),
    "all": Kind("x.all(axes, keepdims=keep)", 1, of.reduce((BOOL,)), {"axes": "ints", "keep": "bool"}),
    "cumsum": Kind("x.cumsum(axis)", 1, of.cumulative, {"axis": "int"}),
    "matmul": Kind("a @ b; operands are often transposed views", 2, of.matmul),
    "addmm": Kind("x + a @ b; inputs x, a, b", 3, of.addmm),
    "linear": Kind(
        "x @ w.T + b, or x @ w + b where transposed; w is a matrix, often frozen; inputs x, w, perhaps b",
        2,
        of.linear,
        {"transposed": "bool"},
        most=3,
    ),
    "reshape": Kind("x.reshape(shape)", 1, of.reshape, {"shape": "sizes"}, view=True),
    "transpose": Kind("x.transpose(axes)", 1, of.transpose, {"axes": "ints"}, view=True),
    "expand": Kind("broadcast_to(x, shape)", 1, of.expand, {"shape": "sizes"}, view=True),
    "slice": Kind(
        "x[start:stop:step] along axis",
        1,
        of.slice_,
        {"axis": "int", "start": "size", "stop": "size", "step": "int"},
        view=True,
    ),
    "concat": Kind("concatenate(inputs, axis)", 1, of.concat, {"axis": "int"}, most=1024),
    "pad": Kind(
        "zeros before and after along axis", 1, of.pad, {"axis": "int", "before": "size", "after": "size"}
    ),
    "take": Kind("table[ids]; inputs table, ids", 2, of.take),
    "take_along": Kind("take_along_axis(x, ids, axis); inputs x, ids", 2, of.take_along, {"axis": "int"}),
    "one_hot": Kind("(ids[..., None] == arange(size)) as float", 1, of.one_hot, {"size": "size"}),
    "fill": Kind(
        "full(shape, value)", 0, of.fill, {"shape": "sizes", "value": "number", "numbers": "numbers"}
    ),
    "arange": Kind("arange(stop) as int", 0, of.arange, {"stop": "size"}),
    "count": Kind("the size as a number, []", 0, of.count, {"size": "size", "numbers": "numbers"}),
    "dropout_mask": Kind(
        "0 with probability p, else 1 / (1 - p); see above",
        0,
        of.drawn,
        {"shape": "sizes", "p": "float", "stream": "int"},
    ),
    "uniform": Kind("word / 2^32; see above", 0, of.drawn, {"shape": "sizes", "stream": "int"}),
}
"""Name -> row."""


def made(kind: str, given: list[Given], attributes: Mapping[str, Any]) -> list[Value]:
    """Return what an operation makes; raises GraphError where it cannot be."""
    if kind not in KINDS:
        raise GraphError(unknown("kind of operation", kind[:40], KINDS))
    row = KINDS[kind]
    most = row.most or row.least
    if not row.least <= len(given) <= most:
        raise GraphError(f"{kind} of {len(given)} inputs; it takes {row.least}..{most}")
    if attributes.keys() != row.attributes.keys():
        raise GraphError(f"{kind} has the attributes {sorted(attributes)}; it has {sorted(row.attributes)}")
    try:
        out = row.infer(given, attributes)
    except GraphError as error:
        raise GraphError(f"{kind}: {error}") from None
    if any(len(each.shape) > of.MOST_AXES for each in out):
        raise GraphError(f"{kind} makes a value of more than {of.MOST_AXES} axes")
    return out


def check(graph: Graph) -> None:
    """Raise GraphError unless every value is made once, before it is used, and has the shape it declares."""
    known: dict[str, Value] = {}

    def define(name: str, value: Value) -> None:
        if name in known:
            raise GraphError(f"the value {name} is made twice")
        if graph.values.get(name) != value:
            found = graph.values.get(name)
            reported = "nothing" if found is None else f"{found.numbers} {of.written(found.shape)}"
            raise GraphError(
                f"the value {name} is declared as {reported}; it is {value.numbers} {of.written(value.shape)}"
            )
        known[name] = value

    for name in graph.inputs:
        if name not in graph.values:
            raise GraphError(f"the input {name} is not among the values")
        define(name, graph.values[name])
    for operation in graph.operations:
        found = made(operation.kind, _given(operation, known), operation.attributes)
        if len(found) != len(operation.outputs):
            raise GraphError(f"{operation.kind} makes {len(found)} values, not {len(operation.outputs)}")
        for name, value in zip(operation.outputs, found, strict=True):
            define(name, value)
    if extra := sorted(graph.values.keys() - known.keys()):
        raise GraphError(f"the value {extra[0]} is never made")
    if missing := sorted(set(graph.outputs) - known.keys()):
        raise GraphError(f"the output {missing[0]} is never made")
    if len(set(graph.outputs)) != len(graph.outputs):
        raise GraphError("an output is named twice")
    if extra := sorted(graph.weights - set(graph.inputs)):
        raise GraphError(f"the weight {extra[0]} is no input")


def _given(operation: Operation, known: Mapping[str, Value]) -> list[Given]:
    found: list[Given] = []
    for operand in operation.inputs:
        if not isinstance(operand, str):
            found.append(operand)
        elif operand in known:
            found.append(known[operand])
        else:
            raise GraphError(f"{operation.kind} uses {operand} before it is made")
    return found
