"""A study file: one TOML file that holds all that a comparison is asked for.

job = "job.toml"                  # relative to this file; or its settings, as a table [job]
set = ["learn.rounds=20"]         # over the job's own
methods = ["sflam", "sflam+equal", "central"]
seeds = 3
targets = [0.8, 0.9]
baseline = "central"
rates = [0.001, 0.01]             # or none
zip = false                       # values of [vary] together instead of every combination

[vary]                            # any key
"learn.lr" = [0.001, 0.003]

[sweeps]                          # bits, alpha, weight
bits = [2, 4, 8]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sflam.compare.lines import varied
from sflam.compare.study import Study
from sflam.compare.variants import DEFAULT
from sflam.config import Job, load, toml_value
from sflam.errors import ConfigError, unknown
from sflam.files import reading

KEYS = ("job", "set", "methods", "seeds", "targets", "baseline", "rates", "zip", "vary", "sweeps")
SIMULATED = "network.simulate=true"
"""A comparison is over a network unless it is asked for without one."""
BARE = re.compile(r"(?!(?:true|false|inf|nan)$)[A-Za-z][\w+-]*")
"""A text that a line may be named by without quotes."""


def read_study(path: Path) -> Study:
    """Return the study of a file.

    Raises:
        ConfigError: it cannot be read, is no TOML, or holds what no study can have; all such problems together.
    """
    return study_of(read_table(path), path)


def read_table(path: Path) -> dict[str, Any]:
    """Return what a TOML file holds; raises ConfigError where it cannot be read, or is no TOML."""
    with reading(f"study file {path}", "give the path of a TOML file", ConfigError):
        raw = path.read_bytes()
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"study file {path}: not valid TOML: {error}") from error


def study_of(values: Mapping[str, Any], path: Path, part: str = "") -> Study:
    """Return the study of a table.

    Args:
        values: the keys of a study file.
        path: of the file, to which the path of a job is relative.
        part: what of the file the table is, for messages; "" for all of it.

    Raises:
        ConfigError: it holds what no study can have; all such problems together.
    """
    where = f"study file {path}{f', {part}' * bool(part)}"
    problems = [f"{where}: {problem}" for problem in _problems(values)]
    if problems:
        raise ConfigError(problems)
    return Study(
        job=job_of(values, path),
        methods=lines_of(values, DEFAULT),
        seeds=values.get("seeds", 1),
        sweeps={axis: tuple(map(float, each)) for axis, each in values.get("sweeps", {}).items()},
        rates=None if "rates" not in values else tuple(map(float, values["rates"])),
        targets=tuple(map(float, values.get("targets", ()))),
        baseline=values.get("baseline", ""),
    )


def lines_of(values: Mapping[str, Any], methods: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a table's lines, each method at each of the values of ``vary``."""
    vary = [f"{key}={','.join(map(_text, each))}" for key, each in _flat(values.get("vary", {})).items()]
    return tuple(varied(values.get("methods", methods), vary, together=values.get("zip", False)))


def table_problems(values: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
    """Return what is wrong with a table that has some keys of a study file, and whole numbers of its own.

    Args:
        values: the table.
        keys: its own key -> what it is, as "a whole number".
    """
    found = _problems({key: value for key, value in values.items() if key not in keys})
    return found + [
        f"{key} is {values[key]!r}; give {what}"
        for key, what in keys.items()
        if key in values and type(values[key]) is not int
    ]


def job_of(values: Mapping[str, Any], path: Path, first: Sequence[str] = (SIMULATED,)) -> Job:
    """Return the job of a table with its settings, which come after ``first``."""
    job, settings = values.get("job"), [*first, *values.get("set", ())]
    if isinstance(job, str):
        return load(path.parent / job, settings)
    return load(job, settings)


def _problems(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the types of a study file's values."""
    found = [unknown("key", key, KEYS) for key in values if key not in KEYS]
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "job": (
            lambda each: isinstance(each, str | dict),
            "the path of a job file, or a table [job] of its settings",
        ),
        "set": (_texts, 'a list of texts, as ["learn.rounds=20"]'),
        "methods": (_texts, 'a list of names, as ["sflam", "central"]'),
        "seeds": (lambda each: type(each) is int, "a whole number"),
        "targets": (_numbers, "a list of accuracies, as [0.8, 0.9]"),
        "baseline": (lambda each: isinstance(each, str), "the name of a method"),
        "rates": (_numbers, "a list of learning rates, as [0.001, 0.01]"),
        "zip": (lambda each: isinstance(each, bool), "true or false"),
        "vary": (lambda each: _lists(_flat(each)), 'a table of lists, as "learn.lr" = [0.001, 0.003]'),
        "sweeps": (
            lambda each: _lists(each) and all(map(_numbers, each.values())),
            "a table of lists of numbers",
        ),
    }
    for key, (fits, what) in checks.items():
        if key in values and not fits(values[key]):
            found.append(f"{key} is {values[key]!r}; give {what}")
    return found


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) for each in value)


def _lists(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, list) and each for each in value.values())


def _flat(values: object, before: str = "") -> Any:
    """Return the lists of a table with their whole keys, written ``"learn.lr"`` or ``learn.lr``."""
    if not isinstance(values, dict):
        return values
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


def _text(value: Any) -> str:
    """Return a value as a line is named by it."""
    return value if isinstance(value, str) and BARE.fullmatch(value) else toml_value(value)
