"""The value of a setting: as the type its dataclass wants, and as TOML."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from typing import Any


def typed(name: str, hint: Any, value: Any) -> tuple[Any, list[str]]:
    """Return ``value`` as ``hint``, or the problem: int serves as float, list as tuple, no bool as int."""
    try:
        return _convert(hint, value), []
    except _WrongType as wrong:
        reason = f" ({wrong})" if str(wrong) else ""
        return None, [f"{name} is {shown(value)}{reason}; it must be {_named(hint)}"]


class _WrongType(Exception):
    """A value does not have the type of its setting."""


def _convert(hint: Any, value: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        for choice in typing.get_args(hint):
            try:
                return _convert(choice, value)
            except _WrongType:
                continue
    elif typing.get_origin(hint) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(typing.get_args(hint)[0], item) for item in value)
    elif typing.get_origin(hint) is dict:
        if isinstance(value, dict):
            return {key: _convert(typing.get_args(hint)[1], item) for key, item in value.items()}
    elif hint is float:
        if type(value) in (int, float) and _is_finite(value):
            return float(value)
    elif hint is str:
        if isinstance(value, str):
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise _WrongType("not valid Unicode")
            return value
    elif hint in (int, bool) and type(value) is hint:
        return value
    raise _WrongType


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def _named(hint: Any) -> str:
    """Return the type in a user's words."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_named(choice) for choice in typing.get_args(hint) if choice is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return f"a list, each item {_named(typing.get_args(hint)[0])}"
    if typing.get_origin(hint) is dict:
        return f"a table, each value {_named(typing.get_args(hint)[1])}"
    return {
        int: "a whole number",
        float: "a finite number",
        bool: "true or false",
        str: "text in quotes",
    }[hint]


def shown(value: Any) -> str:
    """Return a value as TOML, cut short."""
    try:
        text = toml_value(value)
    except TypeError:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def toml_value(value: Any) -> str:
    """Return a setting's value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the delete character, which TOML wants escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return toml_value({key: inner for key, inner in fields_of(value).items() if inner is not None})
    if isinstance(value, dict):
        inside = ", ".join(f"{toml_value(key)} = {toml_value(inner)}" for key, inner in value.items())
        return "{" + inside + "}"
    raise TypeError(f"no TOML for {type(value).__name__}")


def fields_of(settings: Any) -> dict[str, Any]:
    """Return name -> value of the settings of a dataclass."""
    return {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}
