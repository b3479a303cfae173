"""Graphs made by hand and by hypothesis, for the tests of the room."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sflam.errors import GraphError
from sflam.graph.bundle import Binding, Block, BlockKind, Bundle, Piece, Source
from sflam.graph.graph import Graph, Operation, Value
from sflam.graph.operations import KINDS, made
from sflam.graph.size import N, Size, shape_of

DIM, WIDTH, RANK = 4, 6, 2


class Drawing:
    """A graph in the making, whose values have the shapes the table infers."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.inputs: list[str] = []
        self.weights: list[str] = []
        self.operations: list[Operation] = []

    def input(self, name: str, *shape: Size | int, numbers: Any = "float", weight: bool = False) -> str:
        self.values[name] = Value(shape_of(*shape), numbers)
        self.inputs.append(name)
        if weight:
            self.weights.append(name)
        return name

    def __call__(self, kind: str, *inputs: str | float | int, **attributes: Any) -> str:
        given = [self.values[each] if isinstance(each, str) else each for each in inputs]
        found = made(kind, given, attributes)
        names = [f"v{len(self.values) + at}" for at in range(len(found))]
        self.values |= dict(zip(names, found, strict=True))
        self.operations.append(Operation(kind, inputs, tuple(names), attributes))
        return names[0]

    def graph(self, *outputs: str) -> Graph:
        return Graph(
            tuple(self.inputs), outputs, self.values, tuple(self.operations), frozenset(self.weights)
        )


def bundle() -> Bundle:
    """A text half of one block: hidden + low-rank update of a frozen matrix."""
    embed = Drawing()
    embed.input("ids", 1, N, numbers="int")
    embed.input("table", 11, DIM, weight=True)
    hidden = embed("take", "table", "ids")
    embedding = Piece(
        embed.graph(hidden),
        Binding(
            {"ids": Source("sample", "input_ids"), "table": Source("frozen", "words")},
            {hidden: Source("hidden")},
        ),
    )
    forward = Drawing()
    forward.input("hidden", 1, N, DIM)
    forward.input("w", DIM, DIM, weight=True)
    forward.input("a", RANK, DIM)
    low = forward("linear", "hidden", "a", transposed=False)
    out = forward("linear", "hidden", "w", transposed=False)
    joint = Drawing()
    joint.input("hidden", 1, N, DIM)
    joint.input("gradient", 1, N, DIM)
    joint.input("a", RANK, DIM)
    x = joint("reshape", "hidden", shape=shape_of(N, DIM))
    g = joint("slice", "gradient", axis=2, start=Size.of(0), stop=Size.of(RANK), step=1)
    g = joint("transpose", joint("reshape", g, shape=shape_of(N, RANK)), axes=(1, 0))
    grad = joint("matmul", g, x)
    binding = Binding(
        {
            "hidden": Source("hidden"),
            "gradient": Source("gradient"),
            "w": Source("frozen", "layer.weight"),
            "a": Source("trained", "layer.lora_A.weight"),
        },
        {out: Source("hidden"), grad: Source("trained", "layer.lora_A.weight")},
    )
    assert low != out
    return Bundle(
        cut=1,
        dim=DIM,
        text=True,
        tokens=32,
        task="sequence-classification",
        dtype="float32",
        embed=embedding,
        kinds=(BlockKind(forward.graph(out), joint.graph(grad)),),
        blocks=(Block(0, binding),),
        trained={"layer.lora_A.weight": (RANK, DIM)},
    )


SIZES = st.sampled_from([Size.of(1), Size.of(2), Size.of(3), N, N + 1])
ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(0, 2),
    "ints": st.lists(st.integers(0, 2), max_size=3).map(tuple),
    "float": st.floats(0, 0.9),
    "bool": st.booleans(),
    "size": SIZES | st.just(Size.of(0)),
    "sizes": st.lists(SIZES, max_size=3).map(tuple),
    "number": st.floats(-2, 2),
    "numbers": st.sampled_from(["float", "int", "bool"]),
    "approximate": st.sampled_from(["none", "tanh"]),
}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Graphs of up to a dozen operations that the table takes, whatever they are."""
    drawing = Drawing()
    for number in range(draw(st.integers(1, 4))):
        shape = draw(st.lists(SIZES, max_size=3))
        drawing.input(f"x{number}", *shape, numbers=draw(ATTRIBUTES["numbers"]), weight=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 30))):
        kind = draw(st.sampled_from(sorted(KINDS)))
        row = KINDS[kind]
        operand = st.sampled_from(sorted(drawing.values)) | st.sampled_from([0.5, 2, True])
        inputs = [
            draw(operand) for _ in range(draw(st.integers(row.least, max(row.least, min(row.most, 3)))))
        ]
        attributes = {key: draw(ATTRIBUTES[form]) for key, form in row.attributes.items()}
        try:
            drawing(kind, *inputs, **attributes)
        except GraphError:
            continue
    names = sorted(drawing.values)
    return drawing.graph(*draw(st.lists(st.sampled_from(names), unique=True, max_size=3)))
