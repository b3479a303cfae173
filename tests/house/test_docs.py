"""The README and the pages name files, settings and options that exist, and generated pages are up to date."""

from __future__ import annotations

import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from sflam import config
from sflam.allocate.settings import EDGE_METHODS, METHODS
from sflam.cli import app
from sflam.template import keys

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
KNOWN = {f"{key.section}.{key.name}" for key in keys()}
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


def test_the_reference_of_combinations_is_up_to_date() -> None:
    page = text_of(DOCS / "reference" / "combinations.md")
    assert page == runpy.run_path(str(ROOT / "scripts" / "settings.py"))["combinations"](), (
        "run scripts/settings.py"
    )


def blocks(language: str) -> list[pytest.param]:
    """Return the blocks in a language of the README and of every page but the tutorials, which run as a whole."""
    pages = [ROOT / "README.md", *(page for page in PAGES if page.parent.name != "tutorials")]
    found = [
        (page.stem, text)
        for page in pages
        for name, text in BLOCKS.findall(text_of(page))
        if name == language
    ]
    return [pytest.param(text, id=f"{stem}-{number}") for number, (stem, text) in enumerate(found)]


@pytest.mark.parametrize("text", blocks("toml"))
def test_a_job_file_is_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(text, encoding="utf-8")
    config.load(tmp_path / "job.toml")


@pytest.mark.parametrize("text", [each for each in blocks("python") if "README" not in str(each.id)])
def test_python_runs(text: str, monkeypatch: pytest.MonkeyPatch, forget: Callable[[], None]) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(text, "block", "exec"), {})


@pytest.mark.parametrize("text", [*blocks("sh"), *blocks("bash")])
def test_commands_and_options_exist(text: str) -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for line in text.splitlines():
        for part in re.split(r"&&|&$|;", line.partition(" #")[0]):
            words = shlex.split(part)
            if words[:1] != ["sflam"]:
                continue
            options = {option for each in known[words[1]].params for option in each.opts}
            used = {word.partition("=")[0] for word in words if re.match(r"-\D", word)}
            assert used <= options, (part, used - options)
            keys_set = {
                words[place + 1].partition("=")[0] for place, word in enumerate(words) if word == "--set"
            }
            assert keys_set <= KNOWN, (part, keys_set - KNOWN)


def test_every_room_is_described() -> None:
    text = text_of(DOCS / "explanation" / "house.md")
    rooms = [path.parent.name for path in (ROOT / "src" / "sflam").glob("*/__init__.py")]
    assert rooms and [room for room in sorted(rooms) if f"`{room}/`" not in text] == []
