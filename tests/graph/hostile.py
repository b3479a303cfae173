"""Bundles that a hostile server wrote: anything put anywhere in an example."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from sflam.graph.size import MOST_COEFFICIENT
from sflam.graph.writing import bundle_to_json
from tests.graph.examples import bundle

HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1.5,
    1e308,
    "",
    "x" * 300,
    "__import__('os')",
    "add",
    "\n",
    [],
    [[]],
    [0, 1],
    [MOST_COEFFICIENT + 1],
    [1] * 9,
    {},
    {"a": 1},
    ["hidden"],
    ["frozen", "words"],
]


def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in plain data."""
    yield path
    items = found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


PLACES = sorted(places(bundle_to_json(bundle())), key=str)


def broken(path: tuple[Any, ...], hostile: Any, how: str) -> bytes:
    """Return the example with a place of it replaced (``put``), left out (``drop``) or there twice (``double``)."""
    data = copy.deepcopy({"root": bundle_to_json(bundle())})
    place: Any = data
    for key in ("root", *path)[:-1]:
        place = place[key]
    last = ("root", *path)[-1]
    if how == "put":
        place[last] = hostile
    elif how == "drop" and path:
        del place[last]
    elif isinstance(place, list):
        place.insert(last, copy.deepcopy(place[last]))
    return json.dumps(data["root"]).encode()
