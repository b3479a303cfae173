"""The arrows between rooms: who may import whom, and which room may know torch or a socket.

Parsing sees every import, lazy ones included, but not what an import drags in: ``test_modules_loaded`` does.
"""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "sflam"

BASE = {
    *{"charge", "durable", "errors", "measured", "payload", "plan", "registry", "seeds", "units"},
    "workload",
}
# room -> the rooms it may import beside itself and the base
ARROWS: dict[str, set[str]] = {
    **{room: set() for room in BASE},
    # data path
    "data": set(),
    "model": set(),
    "quant": set(),
    "wire": {"quant"},
    "history": set(),
    "learn": {"data", "model", "quant", "wire", "history"},
    # control path
    "network": set(),
    "cost": {"network"},
    "allocate": {"cost", "network"},
    "theory": set(),
    "machine": {"network"},
    "planned": {"report"},
    "planning_edge": {"planned", "allocate", "network", "config", "report"},
    "planning": {"planning_edge", "planned", "allocate", "cost", "network", "model", "config", "report"},
    # run
    "simulate": {
        *("learn", "data", "model", "network", "allocate", "planning", "history", "config"),
        *("planning_edge", "calibrate"),
    },
    "calibrate": {"assembly", "config", "data", "learn", "model", "theory", "cost"},
    "run_folder": {"config"},
    "assembly": {"learn", "data", "model", "quant", "config"},
    "template": {"config"},
    "result": {"assembly", "run_folder", "learn", "model", "simulate", "history", "report"},
    "following": {"planning", "learn", "config"},
    "job": {
        "following",
        "result",
        "assembly",
        "run_folder",
        "learn",
        "model",
        "simulate",
        "calibrate",
        "history",
        "config",
        "report",
    },
    "serving": {"job", "following", "assembly", "config", "runtime", "learn", "model", "data", "history"},
    "joining": {"assembly", "config", "runtime", "learn", "model", "data"},
    "prediction": {"assembly", "run_folder", "data", "model", "learn"},
    "compare": {
        *{"job", "run_folder", "learn", "model", "planning", "simulate", "calibrate"},
        *{"history", "config", "report", "allocate", "planning_edge"},
    },
    "runtime": {"data", "model", "quant", "learn", "wire", "history"},
    "flower": {"runtime", "learn"},
    "privacy": {"data", "model", "quant", "learn"},
    # lean
    "device": {"quant", "wire"},
    # edge
    "report": {"history", "config", "run_folder"},
}
# config gathers settings and nothing else; the command line and the public names may take from every room
CONFIG_MAY = ["sflam.*.settings"]
EVERYTHING = {"cli", "", "__main__"}

TORCH = {"torch", "transformers", "peft", "accelerate", "torchvision", "torchao"}
PLANNING = {"planned", "planning", "planning_edge"}
TORCHLESS = [
    *(f"{room}.py" for room in sorted(BASE | {"history", "config", "run_folder", "machine", *PLANNING})),
    *(f"{room}/*" for room in ("wire", "network", "cost", "allocate", "theory", "device", "report")),
    "*/settings.py",
    *(f"model/{name}.py" for name in ("measure", "architecture", "known")),
    "quant/*",
]
TORCH_IN_QUANT = ["quant/torch_*.py", "quant/boundary.py"]
# what a lean device runs: nothing beside NumPy and the standard library
LEAN = ["wire/*", "device/*", "quant/*", *(f"{room}.py" for room in sorted(BASE))]
NETWORK = {
    *{"socket", "socketserver", "ssl", "http", "urllib.request", "xmlrpc", "ftplib", "smtplib", "wsgiref"},
    *{"requests", "httpx", "httpx2", "aiohttp", "urllib3", "websockets", "grpc", "zmq"},
    *{"uvicorn", "starlette", "fastapi", "flwr"},
}
NETWORK_ROOMS = {"runtime", "device", "flower"}
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
        if room not in {*ARROWS, *EVERYTHING, "config"}:
            found.append(f"{file}: {room} is no room; give it its arrows in this test")
            continue
        for line, module, name in imports(path, ".".join(parts)):
            if reason := _reason(source, file, room, module, name):
                found.append(
                    f"{file}:{line}: {room or PACKAGE} imports {module} {name}".rstrip() + f": {reason}"
                )
    return found


def _reason(source: Path, file: str, room: str, module: str, name: str) -> str | None:
    """Return why one import is forbidden, or None."""
    full = f"{module}.{name}" if name else module
    if within(module, {PACKAGE}):
        inner = full.split(".")[1:]
        target = inner[0] if inner else ""
        if full == f"{PACKAGE}.__version__":
            return None
        if room == "config" and target not in BASE:
            settings = module if module.endswith(".settings") else full
            return None if fnmatch.fnmatch(settings, CONFIG_MAY[0]) else "config gathers settings only"
        if room not in EVERYTHING | {"config"} and target not in BASE | ARROWS[room] | {room}:
            return "the arrow points the other way"
        if room in {"wire", "device"} and target == "quant":
            if is_among("/".join(inner[:2]) + ".py", TORCH_IN_QUANT):
                return "only the NumPy side of quant"
        return None
    if within(module, TORCH) and is_among(file, TORCHLESS) and not is_among(file, TORCH_IN_QUANT):
        return "torch stays out of here"
    if (within(module, NETWORK) or within(full, NETWORK)) and room not in NETWORK_ROOMS:
        return "HTTP and sockets live in runtime, device and flower"
    top = module.partition(".")[0]
    if is_among(file, LEAN) and not is_among(file, TORCH_IN_QUANT):
        if top != "numpy" and top not in sys.stdlib_module_names:
            return "a lean device has NumPy and the standard library only"
    return None


def test_no_arrow_is_turned() -> None:
    assert wrong_imports(ROOT / "src") == []


def test_hand_written_files_stay_short() -> None:
    files = [
        path for folder in ("src", "tests", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert [str(path) for path, lines in lengths.items() if lines > MOST_LINES] == []


def test_every_arrow_leads_to_a_room() -> None:
    for room, targets in ARROWS.items():
        assert targets <= ARROWS.keys() | {"config"}, room
        assert room not in targets


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
        ("history.py", "from torch import Tensor", "torch stays out"),
        ("learn/round.py", "import sflam.network.channel", "the arrow points the other way"),
        ("learn/round.py", "from sflam.report.table import totals", "the arrow points the other way"),
        ("model/measure.py", "from transformers import AutoConfig", "torch stays out"),
        ("network/channel.py", "import torch", "torch stays out"),
        ("cost/latency.py", "from sflam.allocate import bits", "the arrow points the other way"),
        ("allocate/bits.py", "import transformers", "torch stays out"),
        ("theory/stability.py", "from sflam.learn import round", "the arrow points the other way"),
        ("quant/uniform.py", "import torch", "torch stays out"),
        ("quant/uniform.py", "import scipy", "a lean device has NumPy"),
        ("wire/codec.py", "from sflam.quant.torch_schemes import x", "only the NumPy side"),
        ("wire/codec.py", "from sflam.quant import boundary", "only the NumPy side"),
        ("wire/codec.py", "import safetensors", "a lean device has NumPy"),
        ("device/agent.py", "from sflam.learn import round", "the arrow points the other way"),
        ("device/agent.py", "import rich", "a lean device has NumPy"),
        ("config.py", "from sflam.learn.round import train", "config gathers settings only"),
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
            "import torch\nfrom sflam.wire.codec import encode\nfrom sflam.history import History",
        ),
        ("data/partition.py", "from .settings import DataSettings\nfrom ..errors import DataError"),
        (
            "data/partition.py",
            "import numpy\nfrom urllib.parse import urlparse\nfrom sflam import __version__",
        ),
        ("quant/torch_schemes.py", "import torch\nfrom sflam.quant.uniform import x"),
        (
            "wire/codec.py",
            "import json\nimport numpy\nfrom sflam.quant.schemes import x\nfrom sflam import errors",
        ),
        ("config.py", "from sflam.learn.settings import LearnSettings\nfrom sflam.data import settings"),
        ("cli/models.py", "from sflam.learn import round\nimport typer"),
        ("__init__.py", "from sflam.learn import round"),
        ("device/agent.py", "import socket, ssl\nfrom sflam.wire import codec"),
        ("runtime/server.py", "import uvicorn\nfrom sflam.learn import round"),
    ],
)
def test_a_right_import_passes(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n")
    assert wrong_imports(tmp_path) == []
