"""What an import really loads, seen in ``sys.modules`` of a fresh process: light parts must stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "sklearn",
    "matplotlib",
    "jinja2",
    "scipy",
    "pandas",
    "tensorboardX",
    "accelerate",
)
BEYOND_NUMPY = (
    *HEAVY,
    "safetensors",
    "tokenizers",
    "httpx",
    "requests",
    "typer",
    "rich",
    "PIL",
    "cryptography",
)
"""What a lean device may be without."""
PLANNER_MAY = {"scipy", "matplotlib"}


def loaded(*modules: str, among: tuple[str, ...] = HEAVY) -> set[str]:
    """Return the packages ``among`` these that importing ``modules`` loads."""
    code = f"import json, sys, {', '.join(modules)}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name for name in json.loads(done.stdout) if name in among}


def exists(module: str) -> bool:
    """Return whether a module of sflam is there, without importing it."""
    path = SOURCE.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def files_of(*rooms: str) -> list[str]:
    """Return every module of the rooms that exist."""
    paths = [path for room in rooms for path in sorted((SOURCE / "sflam" / room).rglob("*.py"))]
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize(
    "modules",
    [
        ["sflam"],
        ["sflam.config", "sflam.records.history"],
        ["sflam.cli"],
        ["sflam.codec", "sflam.codec.quantizers", "sflam.codec.bodies", "sflam.codec.messages"],
        [
            "sflam.data",
            "sflam.model",
            "sflam.learn",
            "sflam.report",
            "sflam.report.terminal.progress",
            "sflam.report.terminal.run_table",
        ],
        ["sflam.cost.measure"],
    ],
    ids=lambda modules: modules[0],
)
def test_light_modules_load_nothing_heavy(modules: list[str]) -> None:
    there = [module for module in modules if exists(module)]
    if not there:
        pytest.skip(f"no {modules[0]} yet")
    assert loaded(*there) == set()


@pytest.mark.parametrize("room", ["network", "cost", "allocate"])
def test_the_planner_loads_no_torch(room: str) -> None:
    modules = files_of(room)
    if not modules:
        pytest.skip(f"no {room} yet")
    assert loaded(*modules) <= PLANNER_MAY


def test_the_lean_device_loads_nothing_but_numpy() -> None:
    modules = files_of("codec", "link", "device")
    assert {"sflam.link.half", "sflam.codec.bodies"} <= {*modules}
    heavy = (
        "sflam.codec.torch_",
        "sflam.link.masked_way",
    )  # the last where a job sums under masks, by an extra
    light = [name for name in modules if not name.startswith(heavy)]
    assert loaded(*light, among=BEYOND_NUMPY) == set()


def test_heavy_packages_are_seen() -> None:
    assert "torch" in loaded("sflam.learn.checkpoint")
