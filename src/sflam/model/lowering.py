"""From a traced torch graph to the list of kinds: one short function per aten operator.

Every shape is inferred again from the kinds and compared with torch's; an operator that is not here refuses the whole
graph by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import Tensor, fx

from sflam.errors import GraphError
from sflam.graph.building import Building
from sflam.graph.graph import Graph, Numbers
from sflam.graph.inference import written
from sflam.graph.size import Shape, Size

VIEWS = {
    f"aten.{name}"
    for name in (
        "alias.default",
        "detach.default",
        "expand.default",
        "permute.default",
        "select.int",
        "slice.Tensor",
        "squeeze.dim",
        "t.default",
        "transpose.int",
        "unsqueeze.default",
        "view.default",
    )
}
"""Operators whose result shares its input's memory; what is written into one is seen in the other."""


@dataclass(frozen=True)
class Constant:
    """A tensor that a traced graph holds: an input of ours, by name, in the shape it has in the segment file."""

    name: str
    shape: tuple[int, ...]
    weight: bool


class Lowering:
    """One traced graph on its way.

    Attributes:
        build: the graph in the making.
        symbol: torch's name of the symbolic size.
        streams: dropout masks drawn so far.
    """

    def __init__(self, symbol: sympy.Symbol, constant: Callable[[Tensor], Constant | None]) -> None:
        self.build = Building()
        self.symbol, self.constant = symbol, constant
        self.streams = 0

    def run(
        self, module: fx.GraphModule, inputs: list[str], table: Mapping[str, Callable[..., Any]]
    ) -> tuple[Graph, list[str | None]]:
        """Return the graph and what the traced function returns, names of values or None.

        Args:
            module: traced.
            inputs: names for the placeholders, in order.
            table: operator -> how it is lowered.

        Raises:
            GraphError: an operator is not in the list, or a size is no polynomial.
        """
        known: dict[fx.Node, Any] = {}
        names = iter(inputs)
        returned: list[Any] = []
        for node in module.graph.nodes:
            value = node.meta.get("val")
            if node.op == "placeholder":
                known[node] = self.build.input(next(names), self.shape(value), numbers_of(value.dtype))
            elif node.op == "get_attr":
                known[node] = self._held(getattr(module, node.target), str(node.target))
            elif node.op == "output":
                returned = [known[each] if isinstance(each, fx.Node) else each for each in node.args[0]]
            elif isinstance(value, int | torch.SymInt):
                known[node] = self.size(value)
            else:
                name = str(node.target)
                if name not in table:
                    raise GraphError(f"the operator {name} has no counterpart in the list of kinds")
                args, kwargs = (
                    fx.map_arg(node.args, known.__getitem__),
                    fx.map_arg(node.kwargs, known.__getitem__),
                )
                try:
                    known[node] = table[name](self, value, *args, **kwargs)
                except GraphError as error:
                    raise GraphError(f"the operator {name}: {error}") from None
                self._expect(known[node], value, name)
                if name.partition(".")[2].partition(".")[0].endswith("_"):
                    self._write(known, node.args[0], known[node])
        outputs = [None if each is None else self._own(each) for each in returned]
        return self.build.graph(each for each in outputs if each is not None), outputs

    def _write(self, known: dict[fx.Node, Any], node: Any, value: str) -> None:
        """Put a value in the place of a node's, and of the part it is of another's."""
        known[node] = value
        name = str(node.target)
        if name not in VIEWS:
            return
        base, build = node.args[0], self.build
        whole = known[base]
        shape = build.shape(whole)
        if name in ("aten.view.default", "aten.unsqueeze.default", "aten.squeeze.dim"):
            return self._write(known, base, build.reshape(value, shape))
        if name not in ("aten.slice.Tensor", "aten.select.int"):
            raise GraphError(f"the operator {name} gives a part of a value that is written into")
        axis = int(node.args[1]) if len(node.args) > 1 else 0
        axis += len(shape) if axis < 0 else 0
        start = node.args[2] if len(node.args) > 2 and node.args[2] is not None else 0
        if not isinstance(start, int) or start < 0 or len(node.args) > 4:
            raise GraphError(f"the operator {name} gives a part of a value that is written into")
        if name == "aten.select.int":
            value = build.reshape(value, (*shape[:axis], Size.of(1), *shape[axis + 1 :]))
        stop = build.shape(value)[axis] + start
        ends = [(Size.of(0), Size.of(start)), (stop, shape[axis])]
        before, after = (
            [build("slice", whole, axis=axis, start=a, stop=b, step=1)] if a != b else [] for a, b in ends
        )
        parts = [*before, value, *after]
        return self._write(known, base, build("concat", *parts, axis=axis) if len(parts) > 1 else value)

    def _own(self, name: str) -> str:
        """Return a value as one that nothing else is called: a view of it."""
        return self.build("reshape", name, shape=self.build.shape(name))

    def size(self, value: int | torch.SymInt | Size) -> Size:
        """Return torch's size as one of ours; raises GraphError unless it is a polynomial of the one symbol."""
        if isinstance(value, int | Size):
            return Size.of(value)
        expression = sympy.expand(value.node.expr)
        if not expression.is_polynomial(self.symbol) or expression.free_symbols - {self.symbol}:
            raise GraphError(f"the size {value} is no polynomial of n")
        coefficients = sympy.Poly(expression, self.symbol).all_coeffs()[::-1]
        if not all(each.is_integer for each in coefficients):
            raise GraphError(f"the size {value} has fractions")
        return Size.of(int(each) for each in coefficients)

    def shape(self, value: Tensor) -> Shape:
        """Return the shape of one of torch's fake tensors."""
        return tuple(map(self.size, value.shape))

    def stream(self) -> int:
        """Return the number of the next dropout mask."""
        self.streams += 1
        return self.streams - 1

    def _held(self, tensor: Tensor, target: str) -> str | float | int:
        """Return the input, or the number, that a tensor of the traced module is."""
        found = self.constant(tensor)
        if found is None:
            if tensor.numel() == 1:
                number = tensor.detach().item()
                shape = tuple(map(Size.of, tensor.shape))
                return self.build("fill", shape=shape, value=number, numbers=numbers_of(tensor.dtype))
            raise GraphError(
                f"a constant of the shape {list(tensor.shape)} is no tensor of the model ({target})"
            )
        if found.name not in self.build.values:
            shape = tuple(map(Size.of, found.shape))
            self.build.input(found.name, shape, numbers_of(tensor.dtype), weight=found.weight)
        return self.build.reshape(found.name, tuple(map(Size.of, tensor.shape)))

    def _expect(self, found: Any, value: Any, name: str) -> None:
        """Compare what the kinds infer with what torch reports."""
        pairs = zip(found, value, strict=True) if isinstance(found, tuple) else [(found, value)]
        for own, other in pairs:
            if own is None or not isinstance(other, Tensor):
                continue
            kept = self.build.values[own]
            if kept.shape != self.shape(other) or kept.numbers != numbers_of(other.dtype):
                raise GraphError(
                    f"the operator {name} gives {numbers_of(other.dtype)} {written(self.shape(other))}, its lowering "
                    f"{kept.numbers} {written(kept.shape)}"
                )


def numbers_of(dtype: torch.dtype) -> Numbers:
    """Return the kind of number of a torch type."""
    if dtype == torch.bool:
        return "bool"
    return "float" if dtype.is_floating_point else "int"
