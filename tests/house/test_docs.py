"""The README and the pages name files, settings and options that exist, and generated pages are up to date."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from sflam.allocate.settings import EDGE_METHODS, METHODS
from sflam.template import keys

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
KNOWN = {f"{key.section}.{key.name}" for key in keys()}
SECTIONS = "|".join(sorted({key.section for key in keys()} - {""}))


def text_of(page: Path) -> str:
    """Return the text of a page."""
    return page.read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= 12_000


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_outside_the_site_lead_to_files(name: str) -> None:
    """Links of the pages themselves are checked when the site is built."""
    links = re.findall(r"\]\(([^)#]+)", text_of(ROOT / name))
    assert links and [link for link in links if "://" not in link and not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_named_exists(page: Path) -> None:
    """Modules, folders and files of the repository, and settings."""
    text = text_of(page)
    modules = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    places = [ROOT, ROOT / "src" / "sflam"]
    assert [name for name in modules if not any((place / name).is_file() for place in places)] == []
    paths = re.findall(r"`?\b((?:examples|configs|scripts|benchmarks)/[\w./-]+\w)", text)
    assert [name for name in paths if not (ROOT / name).exists()] == []
    settings = set(re.findall(rf"(?:--set '?|`)((?:{SECTIONS})\.[a-z_]+)\b(?![./])", text))
    assert settings - {"plan.json", "plan.csv", "plan.png", "network.toml", "data.npz"} <= KNOWN


def test_every_allocator_is_described() -> None:
    text = text_of(DOCS / "how-to" / "choose_allocator.md")
    assert [name for name in METHODS if name not in text and name != "bcd-matching"] == []
    text = text_of(DOCS / "explanation" / "edge.md")
    assert [name for name in EDGE_METHODS if f"`{name}`" not in text] == []


def test_the_command_line_reference_is_up_to_date() -> None:
    page = text_of(DOCS / "reference" / "command_line.md")
    assert page == runpy.run_path(str(ROOT / "scripts" / "commands.py"))["commands"](), (
        "run scripts/commands.py"
    )
