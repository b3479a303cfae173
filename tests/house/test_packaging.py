"""What is installed: the base is NumPy and this package, and each extra brings what its commands import."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import Cli

from sflam.__main__ import EXTRAS, extra_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WANTED: dict[str, list[str]] = PROJECT["optional-dependencies"]
IMPORTED_AS = {"scikit-learn": "sklearn", "pillow": "PIL"}
LEAN = ("graph", "device", "link", "secure", "codec", "network")
"""Rooms that need NumPy alone, as does every module at the top of the package."""
KEYED = {f"sflam.secure.{name}" for name in ("keys", "device_side", "server_side", "in_process")} | {
    "sflam.link.masked_way"
}
"""What needs the extra device-secure besides."""


def closure(extra: str) -> set[str]:
    """Return the distributions that an extra installs, through the extras it names."""
    found = set()
    for requirement in WANTED[extra]:
        name = re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]
        inner = re.findall(r"\[([\w,-]+)\]", requirement)
        found |= set().union(*map(closure, inner[0].split(","))) if name == "sflam" else {name}
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the start of a command line: a fresh Python that has NumPy and this package, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    numpy = Path(np.__file__).parent
    for path in (numpy, numpy.with_name("numpy.libs"), ROOT / "src" / "sflam"):
        if path.is_dir():
            (folder / path.name).symlink_to(path)
    start = f"import runpy, sys; sys.path.insert(0, {str(folder)!r}); "
    return [sys.executable, "-I", "-S", "-c", start]


def run(bare: list[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in the bare environment."""
    command = [*bare[:-1], bare[-1] + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def lean_modules() -> list[str]:
    """Return every module that must need NumPy alone."""
    source = ROOT / "src"
    rooms = [path for room in LEAN for path in (source / "sflam" / room).rglob("*.py")]
    top = [path for path in (source / "sflam").glob("*.py") if path.stem != "__main__"]
    files = [path for path in (*top, *rooms) if not path.stem.startswith("torch_")]
    names = {".".join(path.relative_to(source).with_suffix("").parts) for path in files}
    return sorted(name.removesuffix(".__init__") for name in names - KEYED)


def test_the_base_is_numpy() -> None:
    assert [re.match(r"[\w-]+", each)[0] for each in PROJECT["dependencies"]] == ["numpy"]  # type: ignore[index]


@pytest.mark.parametrize("extra", sorted(WANTED))
def test_every_extra_but_the_devices_brings_the_command_line(extra: str) -> None:
    if extra == "device":
        assert closure(extra) == set()
    elif extra.startswith("device-"):
        assert len(closure(extra)) == 1
    else:
        assert {"typer", "rich"} <= closure(extra)


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-flower.txt"])
def test_every_requirement_is_pinned(file: str) -> None:
    """Flower wants older builds of some libraries than the others have, so no environment has all extras."""
    pins = re.findall(r"^([\w.-]+)==", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    known = {name.lower().replace("_", "-") for name in pins}
    extras = {"flower"} if "flower" in file else WANTED.keys() - {"flower"}
    wanted = {"numpy"}.union(*map(closure, extras))
    assert {name for name in wanted if name.lower() not in known} == set()
    assert ("flwr" in known) == ("flower" in file)


def test_a_missing_library_names_the_extra_that_brings_it() -> None:
    for extra in EXTRAS:
        for name in closure(extra):
            found = extra_of(IMPORTED_AS.get(name, name))
            assert found and name in closure(found), name


def test_lean_modules_need_numpy_alone(bare: list[str]) -> None:
    names = lean_modules()
    assert {"sflam.config", "sflam.codec.bodies", "sflam.link.contract"} <= set(names)
    done = run(bare, f"import {', '.join(names)}; print(len(sys.modules))")
    assert done.returncode == 0 and int(done.stdout) > len(names), done.stderr


def test_the_bare_environment_is_bare(bare: list[str]) -> None:
    done = run(bare, "import sflam.model.split")
    assert "No module named 'torch'" in done.stderr


@pytest.mark.parametrize("arguments", [["train"], ["plan", "network.toml"], ["--help"], []])
def test_a_command_without_its_libraries_is_one_line(bare: list[str], arguments: list[str]) -> None:
    done = run(bare, "runpy.run_module('sflam', run_name='__main__', alter_sys=True)", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    line, end = done.stderr.split("\n")
    assert line.startswith("sflam: typer is not installed; pip install 'sflam[train]' to train") and not end


def test_sflam_device_starts_the_lean_device(bare: list[str]) -> None:
    done = run(bare, "runpy.run_module('sflam', run_name='__main__', alter_sys=True)", "device", "--help")
    assert done.returncode == 0 and "--token-file" in done.stdout, done.stderr


def test_the_command_line_has_the_lean_device_too(cli: Cli) -> None:
    output = cli("device", "--help")
    assert output.code == 0 and any("--token-file" in line for line in output.out)
    assert any(line.split()[1:2] == ["device"] for line in cli("--help").out)
