"""The table of settings that do not go together: every row is broken by an example of its own, and by that alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sflam import config
from sflam.errors import ConfigError
from sflam.learn.settings.practice import METHODS
from sflam.run.compatibility import RULES, check
from sflam.run.conditions import COMMANDS, PLAN, Rule
from sflam.run.ranks_check import check_ranks
from tests.run.rule_examples import DEFAULTS, EXAMPLES, FEDLORA, FULL, RESIDUAL, TABLES

ROOT = Path(__file__).parents[2]
NO_JOBS = {"pyproject.toml", "study.toml"}
FOUND = sorted([*ROOT.glob("configs/*/*.toml"), *ROOT.glob("examples/**/*.toml")])
SHIPPED = [path for path in FOUND if path.name not in NO_JOBS]


def read(*overrides: str) -> config.Job:
    """Return a job; ``TABLES`` stands for two plain tables."""
    return config.load(None, [override.replace("TABLES", "[{}, {}]") for override in overrides])


def broken(job: config.Job, command: str) -> dict[str, str]:
    return {rule.name: message for rule in RULES if (message := rule.broken(job, command))}


def test_every_row_has_a_name_and_an_example() -> None:
    names = [rule.name for rule in RULES]
    assert sorted(names) == sorted(EXAMPLES) and len(set(names)) == len(names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_example_breaks_its_row_alone(rule: Rule) -> None:
    job = read(*EXAMPLES[rule.name])
    found = {command: broken(job, command) for command in COMMANDS}
    assert [command for command in COMMANDS if rule.name in found[command]] == list(rule.commands)
    assert any(set(found[command]) == {rule.name} for command in rule.commands)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_message_names_the_keys_with_their_values_the_reason_and_the_fix(rule: Rule) -> None:
    job, command = read(*EXAMPLES[rule.name]), rule.commands[0]
    text = rule.broken(job, command)
    named, reason = text.split(": ", 1)
    assert reason == f"{rule.why}; {rule.fix}"
    keys = dict(re.findall(r"(\w+\.\w+) = (.+?)(?:,? and |, (?=\w+\.)| do(?:es)? not go )", named))
    assert keys and keys.keys() <= {item.partition("=")[0] for item in EXAMPLES[rule.name]} | DEFAULTS
    for key, value in keys.items():
        section, _, name = key.partition(".")
        wanted = getattr(getattr(job, section), name)
        assert value == (config.toml_value(wanted) if key not in TABLES else f"{len(wanted)} tables")
    assert named.endswith(" do not go together" if len(keys) > 1 else f" does not go with sflam {command}")
    with pytest.raises(ConfigError) as raised:
        check(job, command)
    assert text in raised.value.problems


def test_all_broken_rows_are_reported_together() -> None:
    with pytest.raises(ConfigError) as raised:
        check(read(FEDLORA, FULL, "learn.cache=device", RESIDUAL))
    assert len(raised.value.problems) == 4


def test_a_long_value_is_cut() -> None:
    job = read("fleet.devices=100", f"fleet.cuts={[1] * 99 + [2]}", "learn.method=sl")
    with pytest.raises(ConfigError, match=r"fleet.cuts = \[1, 1, .*\.\.\. do not go") as raised:
        check(job)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("command", COMMANDS)
def test_the_default_job_breaks_none(command: str) -> None:
    check(config.load(), command)


def test_no_more_ranks_than_devices_of_a_round() -> None:
    job = read("fleet.devices=8", "fleet.selected=3")
    check_ranks(job, 3)
    with pytest.raises(ConfigError, match=r"^4 ranks are more .*, fleet.selected = 3; use at most 3 ranks$"):
        check_ranks(job, 4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_trained(method: str) -> None:
    check(read(f"learn.method={method}", *([FULL] if method == "fedavg" else [])))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_shipped_breaks_none(path: Path) -> None:
    job = config.load(path)
    check(job)
    check(job, PLAN)
