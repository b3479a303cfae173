"""Frozen dataclasses of plain values as JSON, and back: strictly typed by their annotations.

A field is an int, a float, a str, a bool, another such dataclass, a tuple of one of these, or any of them or None. JSON
has no numbers for NaN and the infinities, which are written as strings: a diverged run is recorded as what it is.
"""

from __future__ import annotations

import math
import operator
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

Record = TypeVar("Record")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
LATER = {"later": True}
"""Metadata of a field that came later: what was written without it is read, with the default."""
SELDOM = LATER | {"seldom": True}
"""Metadata of a field that is only written where it is not the default, too."""


def to_json_values(record: Any) -> dict[str, Any]:
    """Return a record's fields as plain JSON values; NumPy numbers become Python's, tuples lists."""
    cls: Any = type(record)
    seldom = {each.name: each.default for each in fields(cls) if "seldom" in each.metadata}
    return {
        name: _plain(kind, getattr(record, name))
        for name, kind in _kinds(cls).items()
        if name not in seldom or getattr(record, name) != seldom[name]
    }


def from_json_values(cls: type[Record], values: Any, name: str = "") -> Record:
    """Return the record that ``to_json_values`` wrote.

    Args:
        cls: its class.
        values: what was read.
        name: of the record, in errors.

    Raises:
        ValueError: a key is missing, unknown, or holds a value of another type; the message names it.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name or 'record'} is {values!r}")
    known: Any = cls
    kinds = _kinds(known)
    needed = {each.name for each in fields(known) if "later" not in each.metadata}
    for what, keys in (("misses", needed - values.keys()), ("holds unknown", values.keys() - kinds.keys())):
        if keys:
            raise ValueError(f"{name} {what} {', '.join(sorted(keys))}".strip())
    dot = f"{name}." if name else ""
    return cls(**{key: _typed(dot + key, kinds[key], value) for key, value in values.items()})


@cache
def _kinds(cls: type) -> dict[str, Any]:
    """Return field -> type, in order."""
    hints = typing.get_type_hints(cls)
    return {each.name: hints[each.name] for each in fields(cls)}


@cache
def _parts(kind: Any) -> tuple[Any, bool, bool]:
    """Return the innermost type, whether it is a tuple of that, and whether it may be None."""
    if isinstance(kind, types.UnionType):
        [inner] = [each for each in typing.get_args(kind) if each is not types.NoneType]
        return (*_parts(inner)[:2], True)
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)[0], True, False
    return kind, False, False


def _plain(kind: Any, value: Any) -> Any:
    inner, several, optional = _parts(kind)
    if value is None and optional:
        return None
    if several:
        return [_plain(inner, each) for each in value]
    if is_dataclass(inner):
        return to_json_values(value)
    if inner is float:
        number = float(value)
        return number if math.isfinite(number) else str(number)
    return operator.index(value) if inner is int else value


def _typed(name: str, kind: Any, value: Any) -> Any:
    inner, several, optional = _parts(kind)
    if value is None and optional:
        return None
    if several:
        if isinstance(value, list):
            return tuple(_typed(name, inner, each) for each in value)
    elif is_dataclass(inner):
        return from_json_values(typing.cast(type, inner), value, name)
    elif inner is float:
        if isinstance(value, str) and value in _NOT_FINITE:
            return _NOT_FINITE[value]
        if type(value) in (int, float):
            return float(value)
    elif type(value) is inner:
        return value
    raise ValueError(f"{name} is {value!r}")
