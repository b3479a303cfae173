"""Every key of a job, with its meaning and default: a commented job file, and the reference in the docs.

Both are read off the settings dataclasses, so neither can fall behind them.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass

from sflam.config import Job, toml_value

WIDTH = 100
_ATTRIBUTE = re.compile(r"^    (\w+): (.*)$")


@dataclass(frozen=True)
class Key:
    """One setting: its section (empty at the top level), name, default as TOML, and meaning."""

    section: str
    name: str
    default: str
    meaning: str


def keys() -> Iterator[Key]:
    """Yield every key in the order of the dataclasses, the top level first."""
    job = Job()
    sections = [("", job), *((field.name, getattr(job, field.name)) for field in fields(job))]
    for section, settings in sections:
        if not is_dataclass(settings):
            continue
        meanings = attributes(type(settings))
        for field in fields(settings):
            value = getattr(settings, field.name)
            if not is_dataclass(value):
                yield Key(section, field.name, toml_value(value), meanings[field.name])


def attributes(kind: type) -> dict[str, str]:
    """Return name -> meaning from the ``Attributes`` of a dataclass's docstring, without its markup."""
    found: dict[str, list[str]] = {}
    listed = inspect.getdoc(kind) or ""
    name = ""
    for line in listed.partition("Attributes:")[2].splitlines():
        match = _ATTRIBUTE.match(line)
        if match:
            name = match[1]
            found[name] = [match[2]]
        elif line.startswith("        ") and name:
            found[name].append(line.strip())
        else:
            name = ""
    return {key: " ".join(lines).replace("``", "") for key, lines in found.items()}


def template() -> str:
    """Return a job file with every key, its meaning and its default."""
    lines = ["# A job for sflam train. Every key may be left out; these are the defaults.", ""]
    section = ""
    for key in keys():
        if key.section != section:
            section = key.section
            lines += ["", f"[{section}]"]
        lines += textwrap.wrap(key.meaning, WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines.append(f"{key.name} = {key.default}")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Return the reference of all keys as Markdown."""
    lines = [
        "# Settings",
        "",
        "Every key of a job file; on the command line `--set section.key=value`. Unknown keys are refused.",
        "This page is written by `scripts/settings.py` from the settings dataclasses.",
    ]
    section = None
    for key in keys():
        if key.section != section:
            section = key.section
            title = f"`[{section}]`" if section else "Top level"
            lines += ["", f"## {title}", "", "| key | default | meaning |", "|---|---|---|"]
        meaning = key.meaning.replace("|", "\\|")
        lines.append(f"| `{key.name}` | `{key.default}` | {meaning} |")
    return "\n".join(lines) + "\n"
