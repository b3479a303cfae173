"""A graph: what enters, what leaves, and the operations between in the order they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sflam.graph.size import Shape, Size

Numbers = Literal["float", "int", "bool"]
Attribute = bool | int | float | str | Size | tuple[int, ...] | tuple[Size, ...]
Operand = str | float | int
"""The name of a value, or a number that is the same in every run (True and False are numbers)."""


@dataclass(frozen=True)
class Value:
    """What a name stands for.

    Attributes:
        shape: its sizes.
        numbers: ``float`` is the engine's one float type, ``int`` is int64.
    """

    shape: Shape
    numbers: Numbers = "float"


@dataclass(frozen=True)
class Operation:
    """One operation; its kind is a row of :mod:`sflam.graph.operations`.

    Attributes:
        kind: the row's name.
        inputs: names of values, or numbers.
        outputs: names of the values it makes.
        attributes: what the row asks for beside the inputs.
    """

    kind: str
    inputs: tuple[Operand, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that are values, in order."""
        return tuple(operand for operand in self.inputs if isinstance(operand, str))


@dataclass(frozen=True)
class Graph:
    """A list of operations with one symbolic size n; every value is made once, before it is used.

    Attributes:
        inputs: names of the values given to a run.
        outputs: names of the values it returns; inputs may be among them.
        values: name -> what it is, inputs and all that is made.
        operations: in the order they run.
        weights: the inputs that are frozen tensors of the segment file; they never change and may stay there.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    values: Mapping[str, Value]
    operations: tuple[Operation, ...]
    weights: frozenset[str] = frozenset()
