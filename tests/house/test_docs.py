"""The pages name files, settings and options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sflam.allocate.settings import EDGE_METHODS, METHODS
from sflam.template import keys

ROOT = Path(__file__).parents[2]
PAGES = ("docs/choosing.md", "docs/edge.md", "docs/equations.md", "docs/simulating.md", "docs/tour.md")


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    assert named and [name for name in named if not (ROOT / "src" / "sflam" / name).is_file()] == []


def test_the_page_on_several_servers_names_every_method() -> None:
    text = (ROOT / "docs" / "edge.md").read_text(encoding="utf-8")
    assert [name for name in EDGE_METHODS if f"`{name}`" not in text] == []
    known = {f"{key.section}.{key.name}" for key in keys()}
    said = set(re.findall(r"`((?:network|plan)\.\w+)", text)) - {"plan.json", "plan.csv"}
    assert said and said <= known


def test_the_guide_names_every_method_and_real_settings() -> None:
    text = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if name not in text and name != "bcd-matching"] == []
    known = {f"{key.section}.{key.name}" for key in keys()}
    said = set(re.findall(r"(?:--set |`)((?:network|plan|model|quant)\.\w+)", text))
    assert said and said <= known
