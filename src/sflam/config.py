"""One job: every section's settings, read from TOML and ``--set``, checked together.

A network file is a job file of which ``sflam plan`` reads ``[network]``, ``[plan]``, ``[model]`` and ``[quant]``.

Precedence: ``--set section.key=value`` over the file over the defaults in the dataclasses. Each section is
the settings dataclass of its room; nothing here knows a single key, so a new setting needs no change here.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sflam.allocate.settings import PlanSettings
from sflam.codec.settings import QuantSettings
from sflam.data.settings import DataSettings
from sflam.errors import ConfigError, unknown
from sflam.files import reading
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.model.settings import ModelSettings
from sflam.network.settings import NetworkSettings
from sflam.plan import Placement


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides a run.

    Attributes:
        seed: the one seed; every random draw derives its own stream from it.
        model: which model, where it is cut, what is trained.
        data: which data, and how devices share it.
        fleet: which devices exist and take part.
        quant: how what crosses the cut is quantized.
        learn: how a round is run.
        network: devices, servers, their hardware and gains: for planning.
        plan: how resources are allocated.
    """

    seed: int = 0
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    quant: QuantSettings = field(default_factory=QuantSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where every device is, and with how many bits: the one place where defaults of ``[fleet]`` are resolved."""
        return self.fleet.placements(self.model.cut, (self.quant.bits_up, self.quant.bits_down))

    def placed(self, placements: Sequence[Placement]) -> Job:
        """Return the job whose :attr:`placements` are these."""
        bits = self.quant.bits_up, self.quant.bits_down
        return dataclasses.replace(self, fleet=self.fleet.placed(placements, bits))


def load(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and apply ``overrides``; None starts from the defaults.

    Args:
        path: a TOML file with a section per dataclass of ``Job``.
        overrides: ``section.key=value`` strings, later ones winning; the value is TOML, and a bare word
            is a string.

    Raises:
        ConfigError: the file cannot be read or is not TOML (one problem), or settings are unknown, of a
            wrong type or impossible (all such problems of all sections together).
    """
    values = {} if path is None else _read(Path(path))
    problems = _apply(values, overrides)
    job, more = _build(values)
    if problems or more or job is None:
        raise ConfigError([*problems, *more])
    return job


def to_toml(job: Job) -> str:
    """Return TOML that ``load`` reads back to an equal job; settings that are None are left out."""
    lines, sections = [], []
    for name, value in _fields(job).items():
        if dataclasses.is_dataclass(value):
            body = [
                f"{key} = {toml_value(inner)}" for key, inner in _fields(value).items() if inner is not None
            ]
            sections.append("\n".join([f"[{name}]", *body]))
        else:
            lines.append(f"{name} = {toml_value(value)}")
    return "\n\n".join(["\n".join(lines), *sections]) + "\n"


def overrides(job: Job) -> list[str]:
    """Return the ``--set`` assignments that make ``job`` from the defaults; ``load(None, ...)`` of them equals it."""
    usual = _flat(_fields(Job()))
    return [
        f"{name}={toml_value(value)}"
        for name, value in _flat(_fields(job)).items()
        if value != usual[name] and value is not None
    ]


def changes(job: Job, before: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which ``job`` differs from an earlier one: name -> (before, now).

    Args:
        job: the job now.
        before: ``dataclasses.asdict`` of the earlier job, as JSON gives it back. Settings that only one of the two
            knows, being of another version, are no difference.
    """
    was, now = _flat(before), _flat(json.loads(json.dumps(dataclasses.asdict(job))))
    return {name: (was[name], now[name]) for name in now if name in was and was[name] != now[name]}


def digest(job: Job) -> str:
    """Return twelve hexadecimal digits that are equal for equal jobs, on every machine."""
    text = json.dumps(dataclasses.asdict(job), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``section.key`` -> value, and plain values by their own name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        section = _fields(value) if dataclasses.is_dataclass(value) else value
        if isinstance(section, dict):
            flat |= {f"{name}.{key}": inner for key, inner in section.items()}
        else:
            flat[name] = value
    return flat


def _fields(settings: Any) -> dict[str, Any]:
    """Return name -> value of the settings of a dataclass."""
    return {item.name: getattr(settings, item.name) for item in dataclasses.fields(settings)}


def _read(path: Path) -> dict[str, Any]:
    with reading(f"job file {path}", "give the path of a TOML file", ConfigError):
        raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"job file {path}, line {line}: not UTF-8 text; save the file as UTF-8") from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason, place = str(error), ""
        if found := re.search(r" \(at (.+)\)$", reason):
            place = f", line {text.count(chr(10)) + 1}" if "end of" in found[1] else f", {found[1]}"
            reason = reason[: found.start()]
        raise ConfigError(f"job file {path}{place}: not valid TOML: {reason}") from error


def _apply(values: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Write the overrides into ``values`` in place and return the problems of those that cannot be read."""
    problems = []
    for override in overrides:
        name, equals, text = override.partition("=")
        keys = [key.strip() for key in name.split(".")]
        if not equals or not all(keys):
            problems.append(f"--set {override!r} is not an assignment; write section.key=value")
            continue
        target: Any = values
        for key in keys[:-1]:
            target = target.setdefault(key, {})
            if not isinstance(target, dict):
                break
        if isinstance(target, dict):
            target[keys[-1]] = _value(text)
        else:
            problems.append(f"--set {override!r} names a key inside a plain value; write section.key=value")
    return problems


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    return parsed["value"] if parsed.keys() == {"value"} else text.strip()


def _build(values: Mapping[str, Any]) -> tuple[Job | None, list[str]]:
    """Return the job, or None, and every problem found."""
    hints = _types(Job)
    sections: dict[str, type] = {
        name: hint
        for name, hint in hints.items()
        if dataclasses.is_dataclass(hint) and isinstance(hint, type)
    }
    built: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in values.items():
        if name not in hints:
            kind = "section" if isinstance(value, dict) else "setting"
            problems.append(_belongs(name, sections) or unknown(kind, name, hints))
        elif name not in sections:
            built[name], problem = _typed(name, hints[name], value)
            problems += problem
        elif not isinstance(value, dict):
            problems.append(f"{name} is {value!r}, but it is a section; write its settings under [{name}]")
        else:
            built[name], problem = _section(name, sections[name], value, sections)
            problems += problem
    if problems:
        return None, problems
    try:
        return Job(**built), []
    except ConfigError as error:
        return None, error.problems


def _section(
    name: str, kind: type, values: Mapping[str, Any], sections: Mapping[str, type]
) -> tuple[Any, list[str]]:
    """Return the section's settings, or None, and every problem of the section."""
    hints = _types(kind)
    good: dict[str, Any] = {}
    suspects: set[str] = set()
    problems: list[str] = []
    for key, value in values.items():
        if key in hints:
            table = _table_of(hints[key])
            if table is not None:
                typed, wrong = _tables(f"{name}.{key}", table, value, sections)
            else:
                typed, wrong = _typed(f"{name}.{key}", hints[key], value)
            if wrong:
                problems += wrong
                suspects.add(key)
            else:
                good[key] = typed
        else:
            suspects |= {key, *difflib.get_close_matches(key, hints, n=1)}
            problems.append(_belongs(key, sections, name) or unknown(f"key of [{name}]", key, hints))
    try:
        return kind(**good), problems
    except ConfigError as error:
        # A default stands in for each refused key: what is only wrong because of that default is not reported.
        found = [
            text
            for text in error.problems
            if not any(re.search(rf"\b{re.escape(key)}\b", text) for key in suspects)
        ]
        return None, problems + found


def _table_of(hint: Any) -> type | None:
    """Return the dataclass of a setting that is a list of tables, or None."""
    inner = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
    return inner if isinstance(inner, type) and dataclasses.is_dataclass(inner) else None


def _tables(name: str, kind: type, value: Any, sections: Mapping[str, type]) -> tuple[Any, list[str]]:
    """Return a list of tables, ``[[section.key]]``, as a tuple of settings, and every problem of them all."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        return None, [f"{name} is {_shown(value)}; write each as a table under [[{name}]]"]
    built, problems = [], []
    for number, item in enumerate(value, start=1):
        settings, wrong = _section(name, kind, item, sections)
        built.append(settings)
        problems += [f"{name} {number}: {problem}" for problem in wrong]
    return tuple(built), problems


def _belongs(key: str, sections: Mapping[str, type], here: str = "") -> str | None:
    """Return the sentence for a known key in the wrong section."""
    homes = [f"[{name}]" for name, kind in sections.items() if key in _types(kind)]
    place = f"in [{here}]" if here else "at the top of the file"
    return f"{key} is {place}; it belongs in {' or '.join(homes)}" if homes else None


def _types(kind: type) -> dict[str, Any]:
    """Return name -> type of the settings of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind) if item.init}


def _typed(name: str, hint: Any, value: Any) -> tuple[Any, list[str]]:
    """Return ``value`` as ``hint``, or the problem: int serves as float, list as tuple, no bool as int."""
    try:
        return _convert(hint, value), []
    except _WrongType as wrong:
        reason = f" ({wrong})" if str(wrong) else ""
        return None, [f"{name} is {_shown(value)}{reason}; it must be {_named(hint)}"]


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


def _shown(value: Any) -> str:
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
        return toml_value({key: inner for key, inner in _fields(value).items() if inner is not None})
    if isinstance(value, dict):
        inside = ", ".join(f"{toml_value(key)} = {toml_value(inner)}" for key, inner in value.items())
        return "{" + inside + "}"
    raise TypeError(f"no TOML for {type(value).__name__}")
