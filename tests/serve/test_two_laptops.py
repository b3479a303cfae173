"""The tutorial of two laptops works as it is written, and its service files are what they claim to be."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from sflam.device.cli import parser

FOLDER = Path(__file__).parents[2] / "examples" / "two-laptops"
PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "two_laptops.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def path_with_sflam(folder):
    """Return a PATH on which ``sflam`` is this one."""
    script = folder / "bin" / "sflam"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from sflam.cli import main; main()" "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


@pytest.mark.slow
def test_the_one_machine_block_as_it_is_written(tmp_path):
    alone = ["unshare", "-rn"]  # a machine of its own, as far as ports go
    if sys.platform != "linux" or not shutil.which("unshare") or subprocess.run([*alone, "true"]).returncode:
        pytest.skip("a network namespace cannot be made here")
    (tmp_path / "examples").symlink_to(FOLDER.parent)
    (block,) = [block for block in BLOCKS if "sflam join localhost" in block]
    script = f"ip link set lo up\nset -e\n{block}\nwait\n"
    environment = os.environ | {"PATH": path_with_sflam(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*alone, "sh", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this device trained 5 rounds") == 2, done.stderr
    assert (tmp_path / "runs/digits-nano-vit-sflam-1/result.json").exists()


def test_serve_sh_starts_and_then_goes_on(tmp_path):
    output = tmp_path / "bin" / "sflam"
    output.parent.mkdir()
    output.write_text('#!/bin/sh\necho "$@"\n')
    output.chmod(0o755)

    def run():
        return subprocess.run(
            ["sh", FOLDER / "serve.sh", "job.toml", "run", "--port", "1"], cwd=tmp_path, capture_output=True, text=True,
            env={"PATH": f"{output.parent}:{os.environ['PATH']}"},
        ).stdout.strip()  # fmt: skip

    assert run() == "serve job.toml --out run --port 1"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    assert run() == "serve --resume run --port 1"


def test_service_files_use_options_that_there_are(cli):
    known = set(re.findall(r"--[a-z-]+", "\n".join(cli("serve", "--help").out)))
    for name in ("sflam.service", "Containerfile"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        (line,) = re.findall(r"^(?:ExecStart=|ENTRYPOINT ).*$", text, re.MULTILINE)
        assert set(re.findall(r"--[a-z-]+", line)) <= known
    assert "SuccessExitStatus=130" in (FOLDER / "sflam.service").read_text(encoding="utf-8")


DEVICE_FILES = ("sflam-device.service", "Containerfile.device")


def test_files_of_devices_use_options_that_there_are():
    known = set(re.findall(r"--[a-z-]+", parser().format_help()))
    for name in DEVICE_FILES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        (line,) = re.findall(r"^(?:ExecStart=|ENTRYPOINT ).*$", text, re.MULTILINE)
        used = set(re.findall(r"--[a-z-]+", line))
        assert used <= known and "sflam-device" in line
    (line,) = re.findall(r"^ExecStart=\S+ (.*)$", (FOLDER / DEVICE_FILES[0]).read_text(), re.MULTILINE)
    options = parser().parse_args(line.replace("${SERVER}", "localhost").split())
    assert str(options.folder) == "device" and str(options.join_secret_file) == "join.secret"


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.device"])
def test_container_files_take_what_is_in_the_repository(name):
    text = (FOLDER / name).read_text(encoding="utf-8").replace("\\\n", " ")
    steps = re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE)
    kinds = [kind for kind, _ in steps]
    assert kinds[0] == "FROM" and kinds.index("USER") > kinds.index("RUN") and kinds[-1] == "ENTRYPOINT"
    (run,) = [words for kind, words in steps if kind == "RUN"]
    for path in re.findall(r"/src/([\w./-]+)", run):
        assert (FOLDER.parents[1] / path).exists(), path
    assert subprocess.run(["sh", "-n", "-c", run]).returncode == 0
    scripts = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]
    program = json.loads(steps[-1][1])[0]
    assert program in scripts["scripts"] or f"/usr/local/bin/{program}" in run
    for extra in re.findall(r"/src\[(\w+)\]", run):
        assert extra in scripts["optional-dependencies"]


@pytest.mark.parametrize("name", ["sflam.service", "sflam-device.service"])
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not here")
def test_the_unit_is_a_unit(tmp_path, name):
    text = (FOLDER / name).read_text(encoding="utf-8")
    unit = tmp_path / name
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/sh", text, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert done.returncode == 0 and name not in done.stderr, done.stderr
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "MemoryMax=", "UMask=0077", "TasksMax="):
        assert line in text
