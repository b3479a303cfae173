"""What a release holds: one version everywhere, and a wheel and an sdist that work without this checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import sflam
from sflam.link.contract import PROTOCOL

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SHIPPED = (
    "sflam/data/digits.npz",
    "sflam/model/nano_vit/model.safetensors",
    "sflam/model/nano_vit/config.json",
    "sflam/report/templates/model_card.md.jinja",
    "sflam/serve/live_page.html.jinja",
    "sflam/py.typed",
)


def test_one_version_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "reference" / "versions.md").read_text(encoding="utf-8")
    assert sflam.__version__ == VERSION == cited["version"]
    assert f"`{VERSION}`" in page and re.search(rf"protocol\.md\) .*\| {PROTOCOL}, ", page)


def test_changes_begin_with_this_version() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0].split(",")[0] == VERSION


def test_a_citation_has_what_its_format_needs() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and {"message", "title", "authors", "license"} <= cited.keys()
    for work in cited["references"]:
        assert {"type", "title", "authors", "url"} <= work.keys()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist, as an index would have them."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, ROOT], check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_wheel_and_sdist_hold_all_that_runs(built: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert set(SHIPPED) <= names and not any(name.startswith("tests") for name in names)
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "sflam").rglob("*.py")}
    assert modules <= names
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "src/sflam/data/digits.npz"} <= inside


@pytest.mark.slow
def test_the_wheel_runs_the_main_job(built: Path, tmp_path: Path) -> None:
    """Out of the wheel alone, with the libraries that are installed: not from this checkout."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "wheel")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'wheel')!r}); "
        "import sflam; assert 'wheel' in sflam.__file__; "
        "job = sflam.load(None, ['learn.rounds=1', 'learn.local_steps=1', 'fleet.devices=2']); "
        f"print(sflam.train(job, {str(tmp_path / 'run')!r}).rounds)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0 and done.stdout.split() == ["1"], done.stderr
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
