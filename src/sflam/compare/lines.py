"""Names of the lines of a comparison, ``METHOD[+ALLOCATOR] [section.key=value ...]``, and a line for every value."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sflam.config import Job, load, overrides
from sflam.errors import ConfigError

FIXED = {"learn.method": "--methods", "plan.method": "--methods METHOD+ALLOCATOR", "seed": "--seeds"}
"""Keys that other options are for."""


@dataclass(frozen=True)
class LineName:
    """A name in its parts.

    Attributes:
        method: of learning.
        allocator: "" for the job's own.
        settings: ``section.key=value``.
    """

    method: str
    allocator: str
    settings: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> LineName:
        """Return a name's parts."""
        first, *settings = [part for part in _split(name, str.isspace) if part] or [""]
        method, _, allocator = first.partition("+")
        return cls(method, allocator, tuple(settings))


def parted(text: str) -> list[str]:
    """Return what commas separate, outside brackets and quotes."""
    return [part.strip() for part in _split(text, ",".__eq__)]


def _split(text: str, separates: Callable[[str], bool]) -> list[str]:
    """Return the parts of a text between separators that are outside brackets and quotes."""
    parts, depth, quoted, escaped = [""], 0, False, False
    for letter in text:
        if not depth and not quoted and separates(letter):
            parts.append("")
            continue
        parts[-1] += letter
        if quoted:
            quoted, escaped = letter != '"' or escaped, letter == "\\" and not escaped
        else:
            quoted = letter == '"'
            depth = max(0, depth + (letter in "[{") - (letter in "]}"))
    return parts


def with_settings(job: Job, name: str) -> Job:
    """Return a job with the settings of a line; raises ConfigError where no job can have them."""
    settings = LineName.of(name).settings
    return load(None, [*overrides(job), *settings]) if settings else job


def varied(names: Sequence[str], vary: Sequence[str], *, together: bool = False) -> list[str]:
    """Return a line for each name and each combination of values.

    Args:
        names: methods, each alone or with an allocator.
        vary: ``section.key=value,value,...``, a key each.
        together: the first values together, the second ones, and so on; else every combination.

    Raises:
        ConfigError: no assignment, a key that comes twice or has an option of its own, or unequal numbers of values.
    """
    values = _values(vary)
    if together and len({len(own) for own in values.values()}) > 1:
        counts = ", ".join(f"{key} has {len(own)}" for key, own in values.items())
        raise ConfigError(f"--zip takes the values of --vary together, but {counts}; give as many of each")
    rows = zip(*values.values(), strict=True) if together else itertools.product(*values.values())
    if not values:
        return list(names)
    points = [" ".join(f"{key}={value}" for key, value in zip(values, row, strict=True)) for row in rows]
    return [f"{name} {point}" for name in names for point in points]


def _values(vary: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in vary:
        key, equals, listed = text.partition("=")
        own = parted(listed)
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key) or not all(own):
            raise ConfigError(f"--vary {text!r} is no list of values; write section.key=value,value")
        if key in FIXED:
            raise ConfigError(f"--vary {key}: use {FIXED[key]}")
        if key in found or len(set(own)) != len(own):
            raise ConfigError(f"--vary {text!r}: give each key once, and each of its values once")
        found[key] = own
    return found
