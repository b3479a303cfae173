"""A study file of several parts and the claims that they decide, at one of its scales.

title = "SFLAM, on the twin"
scales = ["twin", "paper"]            # the first is the default

[parts.baselines]                     # a comparison; its keys are those of a study file
title = "Against the baselines"
methods = ["sflam", "fedlora"]
seeds = 3
[parts.baselines.twin]                # over those, at this scale
job = "twin.toml"

[parts.power]                         # kind = "plan": methods are allocators; draws, and which metrics are drawn
kind = "plan"
job = "cifar10.toml"
methods = ["optimal", "equal"]
draws = 5
drawn = ["latency", "energy"]
[parts.power.vary]
"network.max_power_dbm" = [5, 17]

[parts.stability]                     # kind = "stability": layers, samples, replacements, rounds, draws
kind = "stability"

[[claims]]                            # see sflam.paper.claim
paper = "SFLAM"
where = "abstract"
says = "..."
part = "baselines"
metric = "device_memory"
arms = ["sflam"]
against = "fedlora"
quantity = "reduction"
wants = "more"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sflam.compare.study_file import KEYS, job_of, lines_of, study_of, table_problems
from sflam.errors import ConfigError, unknown
from sflam.paper.along import METRICS
from sflam.paper.claim import Claim
from sflam.paper.part import Part
from sflam.paper.planned import PlannedPart
from sflam.paper.replaced import StabilityPart
from sflam.paper.trained import TrainedPart
from sflam.stability.measure import Asked

KINDS = ("train", "plan", "stability")
OWN = ("kind", "title")
WHOLE = "a whole number"
COUNTS = {
    "plan": {"draws": WHOLE},
    "stability": {key: WHOLE for key in ("draws", "samples", "replacements", "rounds")},
}
"""Kind -> its own keys that are counts."""


@dataclass(frozen=True, kw_only=True)
class PaperStudy:
    """A study of papers, at one scale.

    Attributes:
        title: of its page.
        scale: its name; "" in a file without scales.
        parts: in the order they are run.
        claims: in the order they are shown.
    """

    title: str
    scale: str
    parts: tuple[Part, ...]
    claims: tuple[Claim, ...]


def has_parts(values: Mapping[str, Any]) -> bool:
    """Return whether a study file is one of several parts."""
    return "parts" in values


def paper_study(values: Mapping[str, Any], path: Path, scale: str = "") -> PaperStudy:
    """Return the study of a file's table at a scale, by default the first.

    Raises:
        ConfigError: it holds what no such study can have.
    """
    problems = [
        unknown("key", key, ("title", "scales", "parts", "claims"))
        for key in values
        if key not in ("title", "scales", "parts", "claims")
    ]
    scales, parts, claims = values.get("scales", []), values["parts"], values.get("claims", [])
    if not isinstance(values.get("title", ""), str):
        problems.append(f"title is {values['title']!r}; give a text")
    if not isinstance(scales, list) or not all(isinstance(each, str) for each in scales):
        problems.append(f'scales is {scales!r}; give a list of names, as ["twin", "paper"]')
        scales = []
    if not isinstance(parts, dict) or not parts or not all(isinstance(each, dict) for each in parts.values()):
        problems.append("[parts] holds no parts; give each as a table [parts.NAME]")
        parts = {}
    if not isinstance(claims, list) or not all(isinstance(each, dict) for each in claims):
        problems.append("claims are no tables; give each as [[claims]]")
        claims = []
    if scale and scale not in scales:
        has = f"; it has {', '.join(scales)}" if scales else ", which has none"
        problems.append(f"--scale {scale} is no scale of the file{has}")
    if problems:
        raise ConfigError([f"study file {path}: {problem}" for problem in problems])
    chosen = scale or (scales[0] if scales else "")
    for name, own in parts.items():
        if wrong := [each for each in scales if not isinstance(own.get(each, {}), dict)]:
            raise ConfigError(
                f"study file {path}, [parts.{name}]: {wrong[0]} is no table; give [parts.{name}.{wrong[0]}]"
            )
    found = tuple(_part(name, _at(own, scales, chosen), path) for name, own in parts.items())
    made = tuple(_claim(own, path, parts) for own in claims)
    return PaperStudy(title=values.get("title", path.stem), scale=chosen, parts=found, claims=made)


def _at(own: Mapping[str, Any], scales: list[str], chosen: str) -> dict[str, Any]:
    """Return a part's keys, those of the scale over the others."""
    over: dict[str, Any] = own.get(chosen, {})
    return {key: value for key, value in own.items() if key not in scales} | over


def _part(name: str, values: dict[str, Any], path: Path) -> Part:
    kind, title = values.get("kind", "train"), values.get("title", name)
    where = f"study file {path}, [parts.{name}]"
    if kind not in KINDS:
        raise ConfigError(f"{where}: {unknown('kind', str(kind), KINDS)}")
    vary = values.get("vary", {})
    key = next(iter(vary), "") if isinstance(vary, dict) else ""
    own = {name: value for name, value in values.items() if name not in OWN}
    if kind == "train":
        return TrainedPart(name=name, title=title, study=study_of(own, path, f"[parts.{name}]"), key=key)
    lists = {"plan": ("drawn",), "stability": ("layers",)}[kind]
    listed = {each: own.pop(each) for each in lists if each in own}
    problems = table_problems(own, COUNTS[kind])
    allowed = ("job", "set", "methods", "zip", "vary") if kind == "plan" else ("job", "set")
    problems += [
        f"a part that is a {kind} has no key {each}" for each in own if each in KEYS and each not in allowed
    ]
    drawn, layers = listed.get("drawn", ["objective", "latency", "energy"]), listed.get("layers", [])
    if not isinstance(drawn, list) or not all(each in METRICS for each in drawn):
        problems.append(f"drawn is {drawn!r}; give a list of {', '.join(METRICS)}")
    if not isinstance(layers, list) or not all(type(each) is int for each in layers):
        problems.append(f"layers is {layers!r}; give a list of whole numbers")
    if kind == "stability" and not layers:
        problems.append("layers is missing; give how many layers are tuned, as [1, 3, 6]")
    draws = own.get("draws", 3)
    if type(draws) is int and draws < 1:
        problems.append(f"draws is {draws}; it must be at least 1")
    if problems:
        raise ConfigError([f"{where}: {problem}" for problem in problems])
    job = job_of(own, path, ())
    if kind == "plan":
        lines = lines_of(own, ("optimal", "equal"))
        return PlannedPart(
            name=name, title=title, job=job, lines=lines, draws=draws, key=key, drawn=tuple(drawn)
        )
    counts = {each: own[each] for each in ("samples", "replacements", "rounds") if each in own}
    asked = Asked(layers=tuple(layers), draws=1, **counts)
    return StabilityPart(name=name, title=title, job=job, asked=asked, draws=draws)


def _claim(values: Mapping[str, Any], path: Path, parts: Mapping[str, Any]) -> Claim:
    where = f"study file {path}, claim {values.get('says', '')!r}"
    known = {field.name: str(field.type) for field in fields(Claim)}
    problems = [unknown("key", key, known) for key in values if key not in known]
    problems += [f"{key} is missing" for key in ("paper", "where", "says") if key not in values]
    for key, value in values.items():
        kind = known.get(key, "")
        if key == "arms":
            fits, what = (
                isinstance(value, list) and all(isinstance(each, str) for each in value),
                "a list of texts",
            )
        elif "float" in kind:
            fits, what = type(value) in (int, float), "a number"
        else:
            fits, what = isinstance(value, str), "a text"
        if kind and not fits:
            problems.append(f"{key} is {value!r}; give {what}")
    if not problems and values.get("part", "") and values["part"] not in parts:
        problems.append(unknown("part", values["part"], parts))
    if problems:
        raise ConfigError([f"{where}: {problem}" for problem in problems])
    given: dict[str, Any] = {key: tuple(value) if key == "arms" else value for key, value in values.items()}
    return Claim(**given)
