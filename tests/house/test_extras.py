"""An extra is enough for what it is for: commands run where nothing but its own requirements can be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, requires

import pytest
from packaging.requirements import Requirement

ALONE = """
import sys
from importlib.abc import MetaPathFinder


class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BEYOND:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
sys.argv = ["sflam", *sys.argv[1:]]
from sflam.__main__ import main

main()
"""
"""Runs a command as if the packages of ``BEYOND`` were not installed."""
OF_USERS = ("cli", "plan", "train", "serve", "device-text", "device-images", "device-secure")
QUICK = ("--set", "learn.rounds=1", "--set", "learn.local_steps=1", "--set", "fleet.devices=2")


def closure(extras: set[str]) -> set[str]:
    """Return the distributions that sflam with ``extras`` brings, by name; those that are not installed left out."""
    found: set[str] = set()
    left = [("sflam", frozenset(extras))]
    seen = set()
    while left:
        name, chosen = item = left.pop()
        if item in seen:
            continue
        seen.add(item)
        try:
            needed = requires(name) or []
            found.add(distribution(name).name.lower().replace("_", "-"))
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, needed):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*chosen, "")):
                left.append((requirement.name, frozenset(requirement.extras)))
    return found


def beyond(extras: set[str]) -> set[str]:
    """Return the packages that extras of users name, that are installed here, and that ``extras`` do not bring."""
    own = closure(extras)
    named = {
        requirement.name.lower()
        for requirement in map(Requirement, requires("sflam") or [])
        if requirement.marker and any(requirement.marker.evaluate({"extra": extra}) for extra in OF_USERS)
    }
    return {
        package
        for package, names in packages_distributions().items()
        if any(name.lower().replace("_", "-") in named - own for name in names)
    }


def ran(extras: set[str], folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    missing = beyond(extras)
    code = f"BEYOND = frozenset({json.dumps(sorted(missing))})\n{ALONE}"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("train", ("train", *QUICK)),
        ("train", ("simulate", *QUICK)),
        ("plan", ("plan",)),
        ("cli", ("--help",)),
    ],
    ids=["train", "simulate", "plan", "help"],
)
def test_what_an_extra_is_for_needs_no_other(extra, arguments, tmp_path):
    done = ran({extra}, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_left_out_cannot_be_imported(tmp_path):
    missing = beyond({"train"})
    assert {"starlette", "uvicorn", "cryptography"} <= missing
    assert not {"torch", "typer", "numpy", "sklearn", "safetensors"} & missing
    done = ran({"train"}, tmp_path, "train", *QUICK, "--set", "privacy.secure_aggregation=true",
               "--set", "quant.adapters_scale=common", "--set", "fleet.devices=3")  # fmt: skip
    assert done.returncode == 2 and "cryptography is not installed; pip install" in done.stderr
