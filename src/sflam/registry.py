"""A user's own allocators, quantizers, methods and policies, added to the dicts of the bundled ones.

The dict that holds the bundled ones is the registry; settings know names alone, so that reading a job file loads
nothing but the plug-ins that it lists. What is added lives in this process only; another process loads the same
plug-ins, or imports the module that added it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sflam.errors import ConfigError

Thing = TypeVar("Thing")
OWN: dict[str, dict[str, str]] = {
    "allocator": {},
    "family": {},
    "loss": {},
    "method": {},
    "metric": {},
    "partition": {},
    "policy": {},
    "quantizer": {},
}
"""Kind -> the names added in this process, and the module that added each; settings accept them beside the bundled
ones."""
LONGEST = {"quantizer": 8}
"""Letters a name may have: a quantizer's travels in headers of a fixed size."""
FROM_PLUGINS: set[str] = set()
"""Modules that plug-ins are, or brought along: other processes load the plug-ins instead of importing these."""
_RECORDERS: list[list[Added]] = []


@dataclass(frozen=True)
class Added:
    """One name that was added.

    Attributes:
        kind: a key of ``OWN``.
        name: its name in settings.
        module: which added it.
        tables: the dicts it was added to.
    """

    kind: str
    name: str
    module: str
    tables: tuple[MutableMapping[str, Any], ...]


@contextmanager
def recorded(made: list[Added]) -> Iterator[None]:
    """Append to ``made`` whatever is added meanwhile."""
    _RECORDERS.append(made)
    try:
        yield
    finally:
        _RECORDERS.remove(made)


def take_back(made: list[Added]) -> None:
    """Remove what was added, latest first."""
    while made:
        last = made.pop()
        for table in last.tables:
            table.pop(last.name, None)
        OWN[last.kind].pop(last.name, None)


def add(
    kind: str,
    name: str,
    thing: Thing,
    known: MutableMapping[str, Thing],
    *beside: tuple[MutableMapping[str, Any], Any],
) -> None:
    """Add ``thing`` to the dict of the bundled ones.

    Args:
        kind: a key of ``OWN``.
        name: its name in settings: small letters, digits and hyphens.
        thing: what is added.
        known: the dict.
        beside: other dicts that have an entry of every name, and what is added to each.

    Raises:
        ConfigError: the name is taken, or none a setting could have.
    """
    most = LONGEST.get(kind, 32)
    letters, joined = (
        ("[a-z0-9_-]", "hyphens or underscores") if kind == "family" else ("[a-z0-9-]", "hyphens")
    )
    if not re.fullmatch(f"[a-z]{letters}*", name) or len(name) > most:
        raise ConfigError(
            f"{kind} name {name!r}; use at most {most} small letters, digits and {joined}, a letter first"
        )
    if name in known:
        home = OWN[kind].get(name)
        by = f", registered by {home}" if home else ""
        raise ConfigError(f"{kind} {name!r} exists already{by}; choose another name")
    known[name] = thing
    for table, value in beside:
        table[name] = value
    OWN[kind][name] = module = _caller()
    for made in _RECORDERS:
        made.append(Added(kind, name, module, (known, *(table for table, _ in beside))))


def own_modules() -> dict[str, list[str]]:
    """Return the modules that added something, each with the names it added; those of plug-ins are left out."""
    found: dict[str, list[str]] = {}
    for names in OWN.values():
        for name, module in names.items():
            if module not in FROM_PLUGINS:
                found.setdefault(module, []).append(name)
    return found


def _caller() -> str:
    """Return the name of the nearest calling module outside this package."""
    frame = sys._getframe(1)
    while (name := frame.f_globals.get("__name__", "")).partition(".")[0] == "sflam" and frame.f_back:
        frame = frame.f_back
    return str(name)
