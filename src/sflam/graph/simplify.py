"""A graph made shorter: numbers folded, views merged, like operations done once, products named, the rest pruned.

Every rule keeps what is computed, but for rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from sflam.errors import GraphError
from sflam.graph.building import Building, pruned
from sflam.graph.graph import Graph, Operand, Operation, Value
from sflam.graph.operations import KINDS, made
from sflam.graph.size import Shape

PASSES = 8
NEUTRAL: dict[str, tuple[float, bool]] = {
    "add": (0, True),
    "sub": (0, False),
    "mul": (1, True),
    "div": (1, False),
}
"""Kind -> the number that changes nothing as its second operand, and whether as its first, too."""


def simplified(graph: Graph, outputs: Iterable[str] | None = None) -> Graph:
    """Return a graph that computes the same ``outputs``, all of its own by default."""
    graph = pruned(graph, graph.outputs if outputs is None else outputs)
    for _ in range(PASSES):
        before = len(graph.operations), graph.inputs
        graph = _Pass(graph).run()
        if (len(graph.operations), graph.inputs) == before:
            break
    return graph


class _Pass:
    """One walk over a graph, which is built anew."""

    def __init__(self, graph: Graph) -> None:
        self.old = graph
        self.build = Building()
        self.uses = Counter(name for operation in graph.operations for name in operation.names)
        self.uses.update(graph.outputs)
        self.now: dict[str, str] = {}
        self.maker: dict[str, Operation] = {}
        self.done: dict[Any, tuple[str, ...]] = {}

    def run(self) -> Graph:
        """Return the graph after the walk."""
        merged = self._merged_weights()
        for name in self.old.inputs:
            value = self.old.values[name]
            shape = merged.get(name, value.shape)
            self.now[name] = self.build.input(name, shape, value.numbers, weight=name in self.old.weights)
        for operation in self.old.operations:
            inputs = tuple(self.now[each] if isinstance(each, str) else each for each in operation.inputs)
            # Outputs of the graph may not be an input, nor one value twice: they stay what they were.
            self._keep(operation, self._ruled(operation, inputs))
        graph = self.build.graph(self.now[name] for name in self.old.outputs)
        return pruned(graph, graph.outputs)

    def _merged_weights(self) -> dict[str, Shape]:
        """Return the shapes of weights that are only ever used in one other shape."""
        found: dict[str, set[Shape]] = {}
        for operation in self.old.operations:
            for name in operation.names:
                shape: Any = operation.attributes.get("shape", self.old.values[name].shape)
                found.setdefault(name, set()).add(
                    shape if operation.kind == "reshape" else self.old.values[name].shape
                )
        return {
            name: shapes.pop()
            for name, shapes in found.items()
            if name in self.old.weights and len(shapes) == 1
        }

    def _keep(self, operation: Operation, outputs: tuple[str, ...]) -> None:
        new = dict(zip(operation.outputs, outputs, strict=True))
        for old, name in new.items():
            if old in self.old.outputs and (name in self.build.inputs or name in self._taken()):
                return self._redo(operation)
        self.now |= new
        return None

    def _taken(self) -> set[str]:
        return {self.now[name] for name in self.old.outputs if name in self.now}

    def _redo(self, operation: Operation) -> None:
        """Do an operation as it is, with outputs of its own."""
        inputs = tuple(self.now[each] if isinstance(each, str) else each for each in operation.inputs)
        outputs = self.build.all(operation.kind, *inputs, **operation.attributes)
        self.now |= dict(zip(operation.outputs, outputs, strict=True))

    def _ruled(self, operation: Operation, inputs: tuple[Operand, ...]) -> tuple[str, ...]:
        """Return the outputs of an operation, after the rules."""
        rule = RULES.get(operation.kind)
        found = rule(self, inputs, operation) if rule else None
        if found is None and KINDS[operation.kind].cells:
            found = self._numbers(operation, inputs)
        return (found,) if found is not None else self.emit(operation.kind, inputs, operation.attributes)

    def emit(self, kind: str, inputs: tuple[Operand, ...], attributes: Any) -> tuple[str, ...]:
        """Add an operation, unless it was done before."""
        key = (kind, inputs, tuple(map(type, inputs)), tuple(sorted(attributes.items(), key=str)))
        if key not in self.done:
            self.done[key] = self.build.all(kind, *inputs, **attributes)
            for name in self.done[key]:
                self.maker[name] = self.build.operations[-1]
        return self.done[key]

    def one(self, kind: str, *inputs: Operand, **attributes: Any) -> str:
        """Add an operation of one output."""
        return self.emit(kind, inputs, attributes)[0]

    def made_by(self, operand: Operand, kind: str) -> Operation | None:
        """Return the operation of a kind that made a value."""
        maker = self.maker.get(operand) if isinstance(operand, str) else None
        return maker if maker is not None and maker.kind == kind else None

    def value(self, name: str) -> Value:
        """Return a value of the new graph."""
        return self.build.values[name]

    def once(self, operation: Operation, at: int) -> bool:
        """Whether an input of the old operation is used by it alone."""
        name = operation.inputs[at]
        return isinstance(name, str) and self.uses[name] == 1

    def _numbers(self, operation: Operation, inputs: tuple[Operand, ...]) -> str | None:
        """Put numbers in the place of filled values, where the shape stays what it is; drop what changes nothing."""
        folded: list[Operand] = []
        for each in inputs:
            fill = self.made_by(each, "fill")
            folded.append(each if fill is None else fill.attributes["value"])  # type: ignore[arg-type]
        whole = [self.build.values[each] if isinstance(each, str) else each for each in inputs]
        [out] = made(operation.kind, whole, operation.attributes)
        if folded != list(inputs):
            part = [self.build.values[each] if isinstance(each, str) else each for each in folded]
            try:
                if any(isinstance(each, str) for each in folded) and made(
                    operation.kind, part, operation.attributes
                ) == [out]:
                    inputs = tuple(folded)
            except GraphError:
                pass  # without its values the operation has no kind of number: it stays
        number, either = NEUTRAL.get(operation.kind, (None, False))
        if number is not None:
            for own, other in [(0, 1), (1, 0)] if either else [(0, 1)]:
                name = inputs[own]
                if isinstance(name, str) and not isinstance(inputs[other], str) and inputs[other] == number:
                    return name if self.value(name) == out else None
        return self.emit(operation.kind, inputs, operation.attributes)[0]


Rule = Callable[[_Pass, tuple[Any, ...], Operation], str | None]


def _reshape(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    return _reshaped(at, inputs[0], operation.attributes["shape"])  # type: ignore[arg-type]


def _reshaped(at: _Pass, x: str, shape: Shape) -> str:
    """Return a value in another shape, views of views merged."""
    inner = at.made_by(x, "reshape")
    if inner is not None:
        x = str(inner.inputs[0])
    return x if at.value(x).shape == shape else at.one("reshape", x, shape=shape)


def _transpose(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    x: str = inputs[0]
    axes: tuple[int, ...] = operation.attributes["axes"]  # type: ignore[assignment]
    inner = at.made_by(x, "transpose")
    if inner is not None:
        own: Any = inner.attributes["axes"]
        x, axes = str(inner.inputs[0]), tuple(own[axis] for axis in axes)
    shape = at.value(x).shape
    turned = tuple(shape[axis] for axis in axes)
    wide = [axis for axis in axes if not shape[axis].is_one]
    if wide == sorted(wide):  # only axes of 1 move
        return _reshaped(at, x, turned)
    if len(wide) == len(axes):
        return at.one("transpose", x, axes=axes)
    x = _reshaped(at, x, tuple(size for size in shape if not size.is_one))
    found = at.one("transpose", x, axes=tuple(sorted(wide).index(axis) for axis in wide))
    return _reshaped(at, found, turned)


def _expand(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    return inputs[0] if at.value(inputs[0]).shape == operation.attributes["shape"] else None


def _cast(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    return inputs[0] if at.value(inputs[0]).numbers == operation.attributes["to"] else None


def _matmul(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    """A product with a matrix that is an input, as it is or transposed, is a linear map."""
    x, w = inputs
    turned = at.made_by(w, "transpose")
    if turned is not None and len(at.value(w).shape) == 2 and turned.inputs[0] in at.build.inputs:
        return at.one("linear", x, turned.inputs[0], transposed=False)
    if w in at.build.inputs and len(at.value(w).shape) == 2:
        return at.one("linear", x, w, transposed=True)
    return None


def _add(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    """A bias joins its linear map, a product of matrices what it is added to."""
    for own, other in ((0, 1), (1, 0)):
        x, y = inputs[own], inputs[other]
        if not (isinstance(x, str) and isinstance(y, str) and at.once(operation, own)):
            continue
        layer = at.made_by(x, "linear")
        if layer is not None and len(layer.inputs) == 2 and y in at.build.inputs:
            if at.value(y).shape == at.value(x).shape[-1:]:
                return at.one("linear", *layer.inputs, y, transposed=layer.attributes["transposed"])
    for own, other in ((1, 0), (0, 1)):
        x, y = inputs[own], inputs[other]
        if not (isinstance(x, str) and isinstance(y, str) and at.once(operation, own)):
            continue
        flat = at.made_by(x, "reshape")
        product = at.made_by(flat.inputs[0] if flat else x, "matmul") or _thin(at, flat, x)
        if product is None or at.value(x).shape != at.value(y).shape:
            continue
        a, b = product.inputs
        if product.kind == "linear":
            b = b if product.attributes["transposed"] else at.one("transpose", b, axes=(1, 0))
        shape = at.value(str(product.outputs[0])).shape
        target = y if at.value(y).shape == shape else at.one("reshape", y, shape=shape)
        found = at.one("addmm", target, a, b)
        return found if at.value(x).shape == shape else at.one("reshape", found, shape=at.value(x).shape)
    return None


def _thin(at: _Pass, flat: Operation | None, x: str) -> Operation | None:
    """Return the map by a trained matrix, without a bias, that made a value: the second half of a low-rank update."""
    layer = at.made_by(flat.inputs[0] if flat else x, "linear")
    if layer is None or len(layer.inputs) > 2 or layer.inputs[1] in at.build.weights:
        return None
    return layer


def _sliced(at: _Pass, inputs: tuple[Any, ...], operation: Operation) -> str | None:
    start, stop = operation.attributes["start"], operation.attributes["stop"]
    size = at.value(inputs[0]).shape[operation.attributes["axis"]]  # type: ignore[index]
    whole = start == size * 0 and stop == size and operation.attributes["step"] == 1
    return inputs[0] if whole else None


RULES: dict[str, Rule] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "expand": _expand,
    "slice": _sliced,
    "cast": _cast,
    "matmul": _matmul,
    "add": lambda at, inputs, operation: _add(at, inputs, operation) or at._numbers(operation, inputs),
}
"""Kind -> what it becomes; None leaves it as it is."""
