"""What a rule about settings is made of: conditions on a job, and the message where all of them hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sflam.config import Job, toml_value
from sflam.data.settings import POISSON
from sflam.learn.methods import METHODS, Method
from sflam.learn.settings.practice import KEYS

TRAIN, SIMULATE, SERVE, PLAN = "train", "simulate", "serve", "plan"
RUNS = (TRAIN, SIMULATE, SERVE)
NETWORK = (SIMULATE, PLAN)
"""Commands that use the network's radio and the planner."""
ALL = (*RUNS, PLAN)
ON_RANKS = "train --ranks"
"""``train`` or ``simulate`` on several ranks, beside which its rules hold."""
FLOWER = "in a Flower app"
"""``serve`` with Flower's nodes, beside which its rules hold."""
COMMANDS = (*ALL, ON_RANKS, FLOWER)
SHOWN = 40
"""Longest value that a message shows whole."""

Condition = Callable[[Job], str]
"""Returns the key, ``section.name``, whose value meets the condition; "" where none does."""


@dataclass(frozen=True)
class Rule:
    """Settings that do not go together.

    Attributes:
        name: of the rule.
        conditions: the rule is broken where all of them hold.
        why: the reason.
        fix: what to change.
        commands: where the rule holds.
    """

    name: str
    conditions: tuple[Condition, ...]
    why: str
    fix: str
    commands: tuple[str, ...] = RUNS

    def broken(self, job: Job, command: str) -> str:
        """Return the message for a job that breaks the rule in ``command``; "" for any other."""
        keys = [condition(job) for condition in self.conditions] if command in self.commands else [""]
        if not all(keys):
            return ""
        named = [f"{key} = {shown(job, key)}" for key in dict.fromkeys(keys)]
        together = f"does not go with sflam {command}" if len(named) == 1 else "do not go together"
        listed = " and ".join([*([", ".join(named[:-1])] if named[1:] else []), named[-1]])
        return f"{listed} {together}: {self.why}; {self.fix}"


def value_of(job: Job, key: str) -> Any:
    """Return the value of ``section.name``, of a method's practice where it resolves the key."""
    section, _, name = key.partition(".")
    if key == "data.sampling":
        return "local" if job.data.draw == POISSON else job.sampling
    settings = getattr(job, section)
    return getattr(settings.practice if section == "learn" and name in KEYS else settings, name)


def shown(job: Job, key: str) -> str:
    """Return a value as a message shows it."""
    value = value_of(job, key)
    if key in ("network.device", "network.server"):
        return f"{len(value)} tables"
    text = toml_value(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def where(key: str, test: Callable[[Any], bool]) -> Condition:
    """A key whose value passes a test."""
    return lambda job: setting_of(job, key) if test(value_of(job, key)) else ""


def setting_of(job: Job, key: str) -> str:
    """Return the key that gives ``key`` its value: ``learn.method`` where the method's name does."""
    section, _, name = key.partition(".")
    named = key == "data.sampling" or (section == "learn" and name in KEYS)
    return "learn.method" if named and not getattr(getattr(job, section), name) else key


def is_one_of(key: str, *values: Any) -> Condition:
    """A key that has one of the values."""
    return where(key, lambda value: value in values)


def is_none_of(key: str, *values: Any) -> Condition:
    """A key that has none of the values."""
    return where(key, lambda value: value not in values)


def is_set(key: str) -> Condition:
    """A key that has another value than by default."""
    return is_none_of(key, value_of(Job(), key))


def holds(key: str, item: Any) -> Condition:
    """A key whose list holds an item."""
    return where(key, lambda value: item in value)


def method_where(test: Callable[[Method], bool]) -> Condition:
    """A method that passes a test."""
    return where("learn.method", lambda name: test(METHODS[name]))
