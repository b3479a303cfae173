"""Strict reading of graphs and bundles, which a hostile server may have written: one GraphError line, or a value.

Nothing is evaluated. Counts and sizes are limited before anything is built from them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from sflam.errors import GraphError
from sflam.graph.binding import expect_bound
from sflam.graph.bundle import VERSION, Binding, Block, BlockKind, Bundle, Piece, Source
from sflam.graph.graph import Attribute, Graph, Operand, Operation, Value
from sflam.graph.inference import MOST_AXES
from sflam.graph.operations import KINDS, check
from sflam.graph.size import MOST_COEFFICIENT, Shape, Size

MOST_BYTES = 16 << 20
MOST_OPERATIONS = 20_000
MOST_VALUES = 50_000
MOST_BLOCKS = 1024
MOST_NAMES = 100_000
NAME = re.compile(r"[A-Za-z0-9_.\-]{1,200}", re.ASCII)
NUMBERS = ("float", "int", "bool")
TASKS = re.compile(r"[a-z0-9\-]{1,60}", re.ASCII)


def read_bundle(body: bytes) -> Bundle:
    """Return the bundle of a file; raises GraphError in one line."""
    if len(body) > MOST_BYTES:
        raise GraphError(f"the graphs take {len(body)} bytes; at most {MOST_BYTES} are read")
    try:
        found = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if isinstance(error, GraphError):
            raise
        raise GraphError(f"the graphs are no JSON: {str(error)[:100]}") from None
    bundle = bundle_from_json(found)
    expect_bound(bundle)
    return bundle


def bundle_from_json(found: Any) -> Bundle:
    """Return the bundle that plain data describes; raises GraphError."""
    keys = (
        "version",
        "cut",
        "dim",
        "text",
        "tokens",
        "task",
        "dtype",
        "trained",
        "embed",
        "kinds",
        "blocks",
        "head",
    )
    data = _object(found, "bundle", keys)
    if data["version"] != VERSION:
        raise GraphError(f"the graphs are of version {shown(data['version'])}; this device reads {VERSION}")
    if type(data["text"]) is not bool:
        raise GraphError("text is neither true nor false")
    if data["dtype"] not in ("float32", "float64"):
        raise GraphError(f"dtype is {shown(data['dtype'])}; it must be float32 or float64")
    if not (isinstance(data["task"], str) and TASKS.fullmatch(data["task"])):
        raise GraphError(f"task is {shown(data['task'])}; it must be a short name")
    trained = _mapping(data["trained"], "trained", MOST_NAMES)
    kinds = _list(data["kinds"], "kinds", MOST_BLOCKS)
    return Bundle(
        cut=_whole(data["cut"], "cut", MOST_BLOCKS),
        dim=_whole(data["dim"], "dim", 1 << 20),
        text=data["text"],
        tokens=_whole(data["tokens"], "tokens", 1 << 24),
        task=data["task"],
        dtype=data["dtype"],
        trained={
            name: tuple(_whole(size, f"a size of {name}") for size in _list(shape, name, MOST_AXES))
            for name, shape in trained.items()
        },
        embed=_piece(data["embed"], "embed"),
        kinds=tuple(_kind(kind, f"kind {number}") for number, kind in enumerate(kinds)),
        blocks=tuple(
            _block(block, number, len(kinds))
            for number, block in enumerate(_list(data["blocks"], "blocks", MOST_BLOCKS))
        ),
        head=None if data["head"] is None else _piece(data["head"], "head"),
    )


def graph_from_json(found: Any, where: str = "graph") -> Graph:
    """Return the graph that plain data describes, with every shape checked; raises GraphError."""
    data = _object(found, where, ("inputs", "outputs", "weights", "values", "operations"))
    values = _mapping(data["values"], f"{where}: values", MOST_VALUES)
    operations = _list(data["operations"], f"{where}: operations", MOST_OPERATIONS)
    try:
        graph = Graph(
            inputs=_names(data["inputs"], "inputs"),
            outputs=_names(data["outputs"], "outputs"),
            values={name: _value(value, name) for name, value in values.items()},
            operations=tuple(map(_operation, operations)),
            weights=frozenset(_names(data["weights"], "weights")),
        )
        check(graph)
    except GraphError as error:
        raise GraphError(f"{where}: {error}") from None
    return graph


def _value(found: Any, name: str) -> Value:
    if not (isinstance(found, list) and len(found) == 2 and found[0] in NUMBERS):
        raise GraphError(f"the value {name} is {shown(found)}; it must be a kind of number and a shape")
    return Value(_sizes(found[1]), found[0])


def _operation(found: Any) -> Operation:
    if not (isinstance(found, list) and len(found) == 4 and isinstance(found[0], str)):
        raise GraphError(f"an operation is {shown(found)}; it must be a kind, inputs, outputs, attributes")
    kind, given, outputs, attributes = found
    if kind not in KINDS:
        raise GraphError(f"unknown kind of operation {kind[:40]!r}")
    forms, own = KINDS[kind].attributes, _mapping(attributes, f"{kind}: attributes", 16)
    if own.keys() != forms.keys():
        raise GraphError(f"{kind} has the attributes {sorted(own)}; it has {sorted(forms)}")
    return Operation(
        kind,
        tuple(_operand(each) for each in _list(given, f"{kind}: inputs", 1024)),
        _names(outputs, f"{kind}: outputs"),
        {key: ATTRIBUTES[forms[key]](value) for key, value in own.items()},
    )


def _operand(found: Any) -> Operand:
    return _name(found) if isinstance(found, str) else _number(found)


def _number(found: Any) -> float | int:
    if type(found) is bool or (type(found) is int and abs(found) < 1 << 63):
        return found
    if type(found) is float and math.isfinite(found):
        return found
    raise GraphError(f"{shown(found)} stands where a finite number must")


def _float(found: Any) -> float:
    if type(found) not in (int, float):
        raise GraphError(f"{shown(found)} stands where a number must")
    return float(_number(found))


def _bool(found: Any) -> bool:
    if type(found) is not bool:
        raise GraphError(f"{shown(found)} is neither true nor false")
    return found


def _whole(found: Any, what: str = "a number", most: int = MOST_COEFFICIENT) -> int:
    if type(found) is not int or not 0 <= found <= most:
        raise GraphError(f"{what} is {shown(found)}; it must be a whole number in 0..{most}")
    return found


def _ints(found: Any) -> tuple[int, ...]:
    return tuple(_whole(each, "an axis", MOST_AXES) for each in _list(found, "axes", MOST_AXES))


def _sizes(found: Any) -> Shape:
    return tuple(map(Size.from_json, _list(found, "a shape", MOST_AXES)))


def _one_of(*names: str) -> Callable[[Any], str]:
    def read(found: Any) -> str:
        if not isinstance(found, str) or found not in names:
            raise GraphError(f"{shown(found)} is none of {', '.join(names)}")
        return found

    return read


ATTRIBUTES: Mapping[str, Callable[[Any], Attribute]] = {
    "int": _whole,
    "ints": _ints,
    "float": _float,
    "bool": _bool,
    "size": Size.from_json,
    "sizes": _sizes,
    "number": _number,
    "numbers": _one_of(*NUMBERS),
    "approximate": _one_of("none", "tanh"),
}
"""Form of an attribute -> how it is read."""


def _kind(found: Any, where: str) -> BlockKind:
    data = _object(found, where, ("forward", "joint"))
    joint = data["joint"]
    return BlockKind(
        graph_from_json(data["forward"], f"{where}, forward"),
        None if joint is None else graph_from_json(joint, f"{where}, joint"),
    )


def _block(found: Any, number: int, kinds: int) -> Block:
    data = _object(found, f"block {number}", ("kind", "inputs", "outputs"))
    kind = _whole(data["kind"], f"the kind of block {number}", MOST_BLOCKS)
    if kind >= kinds:
        raise GraphError(f"block {number} is of kind {kind}; there are {kinds}")
    return Block(kind, _binding(data))


def _piece(found: Any, where: str) -> Piece:
    data = _object(found, where, ("graph", "inputs", "outputs"))
    return Piece(graph_from_json(data["graph"], where), _binding(data))


def _binding(data: Mapping[str, Any]) -> Binding:
    sides = {}
    for side in ("inputs", "outputs"):
        found = _mapping(data[side], side, MOST_VALUES)
        sides[side] = {_name(name): _source(source) for name, source in found.items()}
    return Binding(sides["inputs"], sides["outputs"])


def _source(found: Any) -> Source:
    if not (isinstance(found, list) and 1 <= len(found) <= 2):
        raise GraphError(f"{shown(found)} binds nothing; give a role and perhaps a name")
    return Source(*map(_name, found))


def _names(found: Any, what: str) -> tuple[str, ...]:
    return tuple(map(_name, _list(found, what, MOST_VALUES)))


def _name(found: Any) -> str:
    if not (isinstance(found, str) and NAME.fullmatch(found)):
        raise GraphError(f"{shown(found)} is no name; letters, digits, dots, hyphens and underscores are")
    return found


def _list(found: Any, what: str, most: int) -> list[Any]:
    if not isinstance(found, list) or len(found) > most:
        raise GraphError(f"{what} is {_kind_of(found)}; it must be a list of at most {most}")
    return found


def _mapping(found: Any, what: str, most: int) -> dict[str, Any]:
    if not isinstance(found, dict) or len(found) > most:
        raise GraphError(f"{what} is {_kind_of(found)}; it must be an object of at most {most} names")
    for name in found:
        _name(name)
    return found


def _object(found: Any, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(found, dict) or found.keys() != set(keys):
        names = sorted(map(str, found))[:20] if isinstance(found, dict) else _kind_of(found)
        raise GraphError(f"{what} has {str(names)[:200]}; it must have {', '.join(keys)}")
    return found


def shown(found: Any) -> str:
    """Return the beginning of what was found, in one line."""
    return repr(found)[:60]


def _kind_of(found: Any) -> str:
    return f"a {type(found).__name__}" + (f" of {len(found)}" if isinstance(found, list | dict) else "")


def _no_constant(name: str) -> None:
    raise GraphError(f"the graphs hold {name}; numbers must be finite")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise GraphError("the graphs name one thing twice in an object")
    return found
