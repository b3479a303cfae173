"""The numbers that the README and the pages show are those that the commands give now, as far as they never vary."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from sflam.units import human_bytes

ROOT = Path(__file__).parents[2]
ADVICE = "run scripts/shown_numbers.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "shown_numbers.py"))


@pytest.fixture(scope="module")
def shown(script: dict[str, Any]) -> dict[str, str]:
    """Return what the pages show, by name; the same wherever a name is used."""
    found: dict[str, set[str]] = {}
    for page in script["pages"]():
        for _, name, text, _ in script["BLOCK"].findall(page.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(text)
    assert found.keys() == script["BLOCKS"].keys()
    assert [name for name, texts in found.items() if len(texts) > 1] == [], ADVICE
    return {name: texts.pop() for name, texts in found.items()}


@pytest.mark.parametrize("name", ["plan", "plan-methods", "reference-methods"])
def test_plans_are_those_shown(script: dict[str, Any], shown: dict[str, str], name: str) -> None:
    """Gaps are of the size of rounding errors, and vary with the machine."""
    now, then = (re.sub(r"certified gap .*", "", each) for each in (script["BLOCKS"][name](), shown[name]))
    assert now == then, ADVICE


def test_bytes_of_the_default_run_are_those_shown(script: dict[str, Any], shown: dict[str, str]) -> None:
    """Every round sends as many: one round shows them all."""
    [record] = script["default_run"](1).records
    adapters = record.total_bytes - record.bytes_up - record.bytes_down
    sizes = (record.bytes_up, record.bytes_down, adapters)
    first, total = (
        next(line for line in shown["default-run"].splitlines() if line.startswith(start))
        for start in ("     1", " total")
    )
    assert re.findall(r"[\d.]+ [kM]B", first) == [human_bytes(each) for each in sizes], ADVICE
    assert re.findall(r"[\d.]+ [kM]B", total) == [human_bytes(10 * each) for each in sizes], ADVICE
    assert f"{human_bytes(10 * record.total_bytes)} over the network" in shown["default-run"], ADVICE
