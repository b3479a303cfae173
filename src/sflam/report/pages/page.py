"""One self-contained HTML page: nothing is fetched, no script runs, words that come from files are escaped."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from sflam import __version__
from sflam.config import Job, changes, digest, plain, toml_value
from sflam.report.charts.style import COLOURS
from sflam.report.totals import brief, joules, percent
from sflam.units import human_bytes, human_si

TEMPLATES = Environment(
    loader=PackageLoader("sflam.report.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {
    "brief": brief,
    "bytes": human_bytes,
    "joules": joules,
    "percent": percent,
    "si": human_si,
}
TEMPLATES.globals |= {"version": __version__, "colours": COLOURS}


class NumberTable(NamedTuple):
    """A table of numbers, first column words."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def render(template: str, job: Job, **values: Any) -> str:
    """Return a whole page.

    Args:
        template: a file of ``templates``, with its sections, each an id and a heading, and a block for every id.
        job: whose settings are shown.
        values: what the template shows.
    """
    settings = _settings(job)
    return TEMPLATES.get_template(template).render(job=job, settings=settings, digest=digest(job), **values)


def environment(versions: Mapping[str, str], job: Job) -> list[tuple[str, str]]:
    """Return what the numbers depend on beside the configuration."""
    repeated = "yes, on this type of machine" if job.learn.canonical else "to rounding"
    return [
        *versions.items(),
        ("precision", job.model.dtype),
        ("seed", str(job.seed)),
        ("bit-equal when repeated", repeated),
    ]


def command(words: Sequence[str]) -> str:
    """Return a command for a shell, an option a line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)


def _settings(job: Job) -> dict[str, list[tuple[str, str, bool]]]:
    """Return section -> key, value and whether it is not the default."""
    unusual = changes(job, json.loads(json.dumps(plain(Job())))).keys()
    found: dict[str, list[tuple[str, str, bool]]] = {"job": []}
    for section, values in plain(job).items():
        if not isinstance(values, dict):
            found["job"].append((section, toml_value(values), section in unusual))
            continue
        found[f"[{section}]"] = [
            (key, "-" if value is None else toml_value(value), f"{section}.{key}" in unusual)
            for key, value in values.items()
        ]
    return found
