"""The arrows between rooms: who may import whom, and which room may know torch or a socket.

Parsing sees every import, lazy ones included, but not what an import drags in: ``test_modules_loaded`` does.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "sflam"

# bottom to top: a room imports only from the rooms above it in this list, and from itself
FLOORS: list[set[str]] = [
    {
        "errors",
        "units",
        "seeds",
        "files",
        "locks",
        "sizes",
        "workload",
        "plan",
        "ranges",
        "registry",
        "plugins",
        "printable",
        "values",
        "lean_memory",
    },
    {"settings"},  # the settings.py of every room
    {"config", "template"},
    {"network", "records", "codec", "data", "graph", "secure"},
    {"model"},
    {"cost"},
    {"allocate", "report"},
    {"learn"},
    {"planner"},
    {"simulate"},
    {"run"},
    {"link"},
    {"web"},
    {"serve", "compare", "stability", "privacy"},
    {"paper", "flower"},
    {"cli", "__main__", ""},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
BASE = FLOORS[0]
TOP = FLOORS[-1]
WITHIN = {
    "files": {"errors"},
    "locks": {"errors", "files"},
    "ranges": {"errors"},
    "registry": {"errors"},
    "plugins": {"errors", "files", "registry"},
    "workload": {"errors", "sizes"},
    "template": {"config"},
}
"""Arrows between files of one floor."""
# rooms that see less than everything beneath them: a device without torch, and what it shares
FEWER = {
    "graph": {"errors"},
    "device": BASE | {"settings", "config", "graph", "link", "secure", "codec", "data"},
    "link": BASE | {"settings", "config", "codec", "data", "secure"},
    "secure": BASE,
}

TORCH = {"torch", "transformers", "peft", "accelerate", "torchvision", "torchao"}
TORCHLESS = [
    *(f"{room}.py" for room in sorted(BASE | FLOORS[2])),
    *(
        f"{room}/*"
        for room in ("codec", "network", "cost", "allocate", "planner", "records", "report", "device")
    ),
    *("graph/*", "link/*", "secure/*", "*/settings.py", "*/settings/*"),
    *(f"model/{name}.py" for name in ("architecture", "known")),
]
TORCH_IN_CODEC = ["codec/torch_*.py"]
# what a lean device runs: nothing beside NumPy and the standard library
LEAN = ["device/*", "graph/*", "link/*", "secure/*", "codec/*", *(f"{room}.py" for room in sorted(BASE))]
KEYS = ["secure/keys.py"]  # needs an extra of its own, and is loaded where a job wants it
NETWORK = {
    *{"socket", "socketserver", "ssl", "http", "urllib.request", "xmlrpc", "ftplib", "smtplib", "wsgiref"},
    *{"requests", "httpx", "httpx2", "aiohttp", "urllib3", "websockets", "grpc", "zmq"},
    *{"uvicorn", "starlette", "fastapi", "flwr"},
}
NETWORK_ROOMS = {"serve", "link", "device", "flower"}
MOST_LINES = 400


def imports(path: Path, module: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name) of every import, relative ones resolved; name is '' for ``import x``."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, origin, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value), ""


def is_among(file: str, patterns: list[str]) -> bool:
    """Return whether a path inside the package matches one of the patterns."""
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def within(module: str, roots: set[str]) -> bool:
    """Return whether a module is one of ``roots`` or inside one."""
    return any(module == root or module.startswith(root + ".") for root in roots)


def wrong_imports(source: Path) -> list[str]:
    """Return a line per forbidden import of the package in the folder ``source``."""
    found = []
    for path in sorted((source / PACKAGE).rglob("*.py")):
        file = path.relative_to(source / PACKAGE).as_posix()
        parts = [part for part in [PACKAGE, *file.removesuffix(".py").split("/")] if part != "__init__"]
        room = parts[1] if len(parts) > 1 else ""
        if room not in FLOOR and room not in FEWER:
            found.append(f"{file}: {room} is no room; give it its floor in this test")
            continue
        for line, module, name in imports(path, ".".join(parts)):
            if reason := _reason(file, room, module, name):
                found.append(
                    f"{file}:{line}: {room or PACKAGE} imports {module} {name}".rstrip() + f": {reason}"
                )
    return found


def _reason(file: str, room: str, module: str, name: str) -> str | None:
    """Return why one import is forbidden, or None."""
    full = f"{module}.{name}" if name else module
    if within(module, {PACKAGE}):
        return None if full == f"{PACKAGE}.__version__" else _arrow(file, room, module, full)
    if within(module, TORCH) and is_among(file, TORCHLESS) and not is_among(file, TORCH_IN_CODEC):
        return "torch stays out of here"
    if (within(module, NETWORK) or within(full, NETWORK)) and room not in NETWORK_ROOMS:
        return "HTTP and sockets live in serve, link, device and flower"
    top = module.partition(".")[0]
    if is_among(file, LEAN) and not is_among(file, TORCH_IN_CODEC):
        if top == "cryptography" and is_among(file, KEYS):
            return None
        if top != "numpy" and top not in sys.stdlib_module_names:
            return "a lean device has NumPy and the standard library only"
    return None


def _arrow(file: str, room: str, module: str, full: str) -> str | None:
    """Return why a file may not import a module of the package, or None."""
    inner = full.split(".")[1:]
    target = inner[0] if inner else ""
    settings = "settings" in (module.split(".")[2:3] + inner[1:2])
    here = "settings" if "settings" in re.split(r"[/.]", file)[1:2] else room
    lean = room in {"link", "device"} or (room == "codec" and not is_among(file, TORCH_IN_CODEC))
    if lean and target == "codec" and is_among("/".join(inner[:2]) + ".py", TORCH_IN_CODEC):
        return "only the NumPy side of codec"
    if target == room and not (here == "settings" and not settings):
        return None
    if room in FEWER and ("settings" if settings else target) not in FEWER[room] | {room}:
        return "the arrow points the other way"
    if room not in FEWER and FLOOR[here] <= FLOOR.get("settings" if settings else target, len(FLOORS)):
        if room not in TOP and target not in WITHIN.get(room, set()):
            return "the arrow points the other way"
    return None


def circles(source: Path) -> list[list[str]]:
    """Return the modules of the package that import one another, in whatever way, each circle sorted."""
    paths = sorted((source / PACKAGE).rglob("*.py"))
    names = {
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__") for path in paths
    }
    arrows: dict[str, set[str]] = {}
    for path in paths:
        module = ".".join(path.relative_to(source).with_suffix("").parts)
        own = arrows.setdefault(module.removesuffix(".__init__"), set())
        for _, origin, name in imports(path, module):
            full = f"{origin}.{name}" if name else origin
            if full != f"{PACKAGE}.__version__":
                own |= {full if full in names else origin} & names

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            new = arrows[ahead.pop()] - seen
            seen |= new
            ahead += new
        return seen

    beyond = {name: reached(name) for name in names}
    groups = {frozenset(other for other in beyond[name] if name in beyond[other]) for name in names}
    return sorted(sorted(group) for group in groups if group)


def test_no_arrow_is_turned() -> None:
    assert wrong_imports(ROOT / "src") == []


def test_hand_written_files_stay_short() -> None:
    files = [
        path for folder in ("src", "tests", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert [str(path) for path, lines in lengths.items() if lines > MOST_LINES] == []


def test_there_is_no_circle() -> None:
    assert circles(ROOT / "src") == []


def test_a_circle_is_caught(tmp_path: Path) -> None:
    (tmp_path / PACKAGE / "learn").mkdir(parents=True)
    (tmp_path / PACKAGE / "learn/__init__.py").touch()
    for name, other in (("a", "b"), ("b", "a"), ("c", "a")):
        text = f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sflam.learn import {other}\n"
        (tmp_path / PACKAGE / f"learn/{name}.py").write_text(text)
    assert circles(tmp_path) == [["sflam.learn.a", "sflam.learn.b"]]


def test_no_two_public_classes_have_one_name() -> None:
    homes: dict[str, list[str]] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(path.relative_to(ROOT / "src").as_posix())
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("data/partition.py", "from sflam.learn.round import train", "the arrow points the other way"),
        ("data/partition.py", "from ..learn import round", "the arrow points the other way"),
        ("data/partition.py", "from .. import learn", "the arrow points the other way"),
        ("data/partition.py", "import sflam.model.split", "the arrow points the other way"),
        ("data/partition.py", "from sflam import model", "the arrow points the other way"),
        ("data/partition.py", "def f():\n    from sflam import cli", "the arrow points the other way"),
        ("data/partition.py", "import importlib\nimportlib.import_module('sflam.cli')", "the other way"),
        ("data/settings.py", "import torch.nn", "torch stays out"),
        ("errors.py", "import sflam.data", "the arrow points the other way"),
        ("records/history.py", "from torch import Tensor", "torch stays out"),
        ("model/architecture.py", "from transformers import AutoConfig", "torch stays out"),
        ("network/channel.py", "import torch", "torch stays out"),
        ("cost/latency.py", "from sflam.allocate import bits", "the arrow points the other way"),
        ("allocate/bits.py", "import transformers", "torch stays out"),
        ("cost/stability.py", "from sflam.learn import round", "the arrow points the other way"),
        ("codec/uniform.py", "import torch", "torch stays out"),
        ("codec/uniform.py", "import scipy", "a lean device has NumPy"),
        ("codec/bodies.py", "from sflam.codec.torch_quantizers import x", "only the NumPy side"),
        ("codec/bodies.py", "from sflam.codec import torch_uniform", "only the NumPy side"),
        ("codec/bodies.py", "import safetensors", "a lean device has NumPy"),
        ("device/agent.py", "from sflam.learn import round", "the arrow points the other way"),
        ("device/agent.py", "import rich", "a lean device has NumPy"),
        ("secure/graph.py", "import cryptography", "a lean device has NumPy"),
        ("secure/keys.py", "import torch", "torch stays out"),
        ("secure/keys.py", "from sflam.codec import bodies", "the arrow points the other way"),
        ("link/loop.py", "from sflam.learn.exchange import Exchange", "the arrow points the other way"),
        (
            "graph/graph.py",
            "from sflam.learn.settings import LearnSettings",
            "the arrow points the other way",
        ),
        ("config.py", "from sflam.learn.round import train", "the arrow points the other way"),
        ("report/table.py", "from sflam.learn import round", "the arrow points the other way"),
        ("data/sources.py", "from urllib.request import urlopen", "HTTP and sockets"),
        ("data/sources.py", "from urllib import request", "HTTP and sockets"),
        ("learn/round.py", "import socket", "HTTP and sockets"),
        ("cli/models.py", "import http.server", "HTTP and sockets"),
        ("tools/thing.py", "import math", "is no room"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, file: str, line: str, reason: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    [found] = wrong_imports(tmp_path)
    assert found.startswith(file) and reason in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (
            "learn/round.py",
            "import torch\nfrom sflam.codec.bodies import encode\nfrom sflam.records.history import History",
        ),
        ("data/partition.py", "from .settings import DataSettings\nfrom ..errors import DataError"),
        (
            "data/partition.py",
            "import numpy\nfrom urllib.parse import urlparse\nfrom sflam import __version__",
        ),
        ("codec/torch_schemes.py", "import torch\nfrom sflam.codec.uniform import x"),
        (
            "codec/bodies.py",
            "import json\nimport numpy\nfrom sflam.codec.quantizers import x\nfrom sflam import errors",
        ),
        ("config.py", "from sflam.learn.settings import LearnSettings\nfrom sflam.data import settings"),
        ("cli/models.py", "from sflam.learn import round\nimport typer"),
        ("__init__.py", "from sflam.learn import round"),
        ("device/agent.py", "import socket, ssl\nfrom sflam.codec import bodies"),
        ("link/loop.py", "from sflam.learn.settings import LearnSettings\nfrom sflam.data import batches"),
        ("serve/server.py", "import uvicorn\nfrom sflam.learn import round"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert wrong_imports(tmp_path) == []
