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
import re
import tomllib
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from sflam.allocate.settings import PlanSettings
from sflam.codec.settings import QuantSettings
from sflam.data.settings import POISSON, VALIDATION, DataSettings
from sflam.device.settings import DeviceSettings
from sflam.errors import ConfigError, unknown
from sflam.files import reading
from sflam.learn.settings import FleetSettings, LearnSettings
from sflam.learn.settings.association import AssociationSettings
from sflam.learn.settings.repartition import RepartitionSettings
from sflam.model.settings import ModelSettings
from sflam.network.settings import NetworkSettings
from sflam.plan import Placement
from sflam.plugins import anchored, expect_loaded, load_plugins, portable
from sflam.privacy.settings import PrivacySettings
from sflam.values import fields_of, shown, typed
from sflam.values import toml_value as toml_value

LATER: dict[str, Any] = {
    "privacy": PrivacySettings(),
    "repartition": RepartitionSettings(),
    "association": AssociationSettings(),
}
"""Sections that came later: a job that sets nothing in one is written, and named by its digest, as it was before."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides a run.

    Attributes:
        seed: the one seed; every random draw derives its own stream from it.
        plugins: what registers methods, quantizers, losses and so on of your own, loaded before the settings are
            checked: paths of .py files, relative to the job file, and names of entry points of the group sflam.plugins
            that an installed package declares. This is code that runs: read a job file of someone else first.
        model: which model, where it is cut, what is trained.
        data: which data, and how devices share it.
        fleet: which devices exist and take part.
        quant: how what crosses the cut is quantized.
        learn: how a round is run.
        network: devices, servers, their hardware and gains: for planning.
        plan: how resources are allocated.
        device: what devices are run by.
        privacy: what devices clip and make noisy before it leaves them.
        repartition: when a served device is given fewer blocks between rounds.
        association: when a served device moves to another of several servers between rounds.
    """

    seed: int = 0
    plugins: tuple[str, ...] = ()
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    quant: QuantSettings = field(default_factory=QuantSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)
    device: DeviceSettings = field(default_factory=DeviceSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    repartition: RepartitionSettings = field(default_factory=RepartitionSettings)
    association: AssociationSettings = field(default_factory=AssociationSettings)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
        expect_loaded(self.plugins)

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Where every device is, and with how many bits: the one place where defaults of ``[fleet]`` are resolved."""
        return self.fleet.placements(self.model.cut, (self.quant.bits_up, self.quant.bits_down))

    @property
    def samples(self) -> DataSettings:
        """``[data]`` with the validation share that the run needs: its own, or the default where something chooses."""
        share = self.data.validation or (VALIDATION if self.learn.chooses else 0.0)
        return dataclasses.replace(self.data, validation=share)

    @property
    def sampling(self) -> str:
        """``poisson`` where ``data.draw`` says so, else ``data.sampling``, of the method's own where it is empty."""
        return POISSON if self.data.draw == POISSON else self.data.sampling or self.learn.practice.sampling

    def placed(self, placements: Sequence[Placement]) -> Job:
        """Return the job whose :attr:`placements` are these."""
        bits = self.quant.bits_up, self.quant.bits_down
        return dataclasses.replace(self, fleet=self.fleet.placed(placements, bits))


def load(
    path: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    run_plugins: bool = True,
) -> Job:
    """Read a job file, apply ``overrides`` and load its plug-ins; None starts from the defaults.

    Args:
        path: a TOML file with a section per dataclass of ``Job``; or what such a file holds as a mapping, as
            ``{"learn": {"rounds": 20}}``, in which paths are relative to the working directory.
        overrides: ``section.key=value`` strings, later ones winning; the value is TOML, and a bare word
            is a string. Paths of plug-ins in them are relative to the working directory.
        run_plugins: False refuses a file that lists plug-ins, for one that came from elsewhere.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or a plug-in cannot be loaded (one problem), or settings
            are unknown, of a wrong type or impossible (all such problems of all sections together).
    """
    if path is None or isinstance(path, Mapping):
        values = _copied(path or {})
    else:
        values = _read(Path(path))
        if _names(listed := values.get("plugins")):
            values["plugins"] = anchored(listed, Path(path).parent)
    problems = _apply(values, overrides)
    if _names(listed := values.get("plugins")):
        if listed and not run_plugins:
            named = path if isinstance(path, str | Path) else "this job"
            raise ConfigError(
                f"{named} lists plug-ins ({shown(listed)}), and is not trusted to name code to run"
            )
        values["plugins"] = list(load_plugins(listed))
    job, more = _build(values)
    if problems or more or job is None:
        raise ConfigError([*problems, *more])
    return job


def to_toml(job: Job, *, plugins: Sequence[str] | None = None, without: Collection[str] = ()) -> str:
    """Return TOML that ``load`` reads back to an equal job; settings that are None are left out.

    Args:
        job: the job.
        plugins: where its plug-ins are to be found; None where it found them.
        without: sections left out, which are then read as their defaults; as are those of :data:`LATER` where nothing
            in them is set.
    """
    lines, sections = [], []
    for name, value in (fields_of(job) | ({} if plugins is None else {"plugins": tuple(plugins)})).items():
        if name in without or (name in LATER and value == LATER[name]):
            continue
        if dataclasses.is_dataclass(value):
            body = [
                f"{key} = {toml_value(inner)}" for key, inner in fields_of(value).items() if inner is not None
            ]
            sections.append("\n".join([f"[{name}]", *body]))
        else:
            lines.append(f"{name} = {toml_value(value)}")
    return "\n\n".join(["\n".join(lines), *sections]) + "\n"


def plain(job: Job) -> dict[str, Any]:
    """Return every section's settings as plain values; plug-ins by name and hash, wherever they lie.

    Sections of :data:`LATER` are left out where nothing in them is set.
    """
    found = dataclasses.asdict(job) | {"plugins": [portable(name) for name in job.plugins]}
    return {key: value for key, value in found.items() if key not in LATER or getattr(job, key) != LATER[key]}


def overrides(job: Job) -> list[str]:
    """Return the ``--set`` assignments that make ``job`` from the defaults; ``load(None, ...)`` of them equals it."""
    usual = _flat(fields_of(Job()))
    return [
        f"{name}={toml_value(value)}"
        for name, value in _flat(fields_of(job)).items()
        if value != usual[name] and value is not None
    ]


def changes(job: Job, before: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings in which ``job`` differs from an earlier one: name -> (before, now).

    Args:
        job: the job now.
        before: :func:`plain` of the earlier job, as JSON gives it back. Settings that only one of the two
            knows, being of another version, are no difference.
    """
    usual = {name: dataclasses.asdict(section) for name, section in LATER.items()}
    own = {name: dataclasses.asdict(getattr(job, name)) for name in LATER}
    was, now = _flat(usual | dict(before)), _flat(json.loads(json.dumps(own | plain(job))))
    return {name: (was[name], now[name]) for name in now if name in was and was[name] != now[name]}


def digest(job: Job) -> str:
    """Return twelve hexadecimal digits that are equal for equal jobs, on every machine."""
    text = json.dumps(plain(job), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``section.key`` -> value, and plain values by their own name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        section = fields_of(value) if dataclasses.is_dataclass(value) else value
        if isinstance(section, dict):
            flat |= {f"{name}.{key}": inner for key, inner in section.items()}
        else:
            flat[name] = value
    return flat


def _copied(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping and those within it as dicts that may be written to."""
    return {
        str(key): _copied(value) if isinstance(value, Mapping) else value for key, value in values.items()
    }


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


def _names(value: object) -> TypeGuard[list[str]]:
    """Return whether a value is a list of texts; anything else is refused with the other settings."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


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
            built[name], problem = typed(name, hints[name], value)
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
                found, wrong = _tables(f"{name}.{key}", table, value, sections)
            else:
                found, wrong = typed(f"{name}.{key}", hints[key], value)
            if wrong:
                problems += wrong
                suspects.add(key)
            else:
                good[key] = found
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
        return None, [f"{name} is {shown(value)}; write each as a table under [[{name}]]"]
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


@lru_cache(maxsize=64)
def _types(kind: type) -> dict[str, Any]:
    """Return name -> type of the settings of a dataclass."""
    hints = typing.get_type_hints(kind)
    return {item.name: hints[item.name] for item in dataclasses.fields(kind) if item.init}
