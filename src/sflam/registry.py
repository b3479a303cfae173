"""A program's own allocators, quantizers, methods and policies, added to the dicts of the bundled ones.

The dict that holds the bundled ones is the registry; settings know names alone, so that reading a job file loads
nothing. What is added lives in this process only; another process imports the module that added it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from typing import TypeVar

from sflam.errors import ConfigError

Thing = TypeVar("Thing")
OWN: dict[str, dict[str, str]] = {"allocator": {}, "method": {}, "policy": {}, "quantizer": {}}
"""Kind -> the names added in this process, and the module that added each; settings accept them beside the bundled
ones."""
LONGEST = {"quantizer": 8}
"""Letters a name may have: a quantizer's travels in headers of a fixed size."""


def add(kind: str, name: str, thing: Thing, known: MutableMapping[str, Thing]) -> None:
    """Add ``thing`` to the dict of the bundled ones.

    Args:
        kind: a key of ``OWN``.
        name: its name in settings: small letters, digits and hyphens.
        thing: what is added.
        known: the dict.

    Raises:
        ConfigError: the name is taken, or none a setting could have.
    """
    most = LONGEST.get(kind, 32)
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or len(name) > most:
        raise ConfigError(
            f"{kind} name {name!r}; use at most {most} small letters, digits and hyphens, a letter first"
        )
    if name in known:
        raise ConfigError(f"{kind} {name!r} exists already; choose another name")
    known[name] = thing
    OWN[kind][name] = _caller()


def own_modules() -> dict[str, list[str]]:
    """Return the modules that added something, each with the names it added."""
    found: dict[str, list[str]] = {}
    for names in OWN.values():
        for name, module in names.items():
            found.setdefault(module, []).append(name)
    return found


def _caller() -> str:
    """Return the name of the nearest calling module outside this package."""
    frame = sys._getframe(1)
    while (name := frame.f_globals.get("__name__", "")).partition(".")[0] == "sflam" and frame.f_back:
        frame = frame.f_back
    return str(name)
