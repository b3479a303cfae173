"""Scripts of the figures take a job, and write, where they are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "configs/figures").glob("*.sh"))


def call(script: Path, folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in ``folder``, with this Python first on the path."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": paths, "PYTHONPATH": str(ROOT / "src")} | variables
    return subprocess.run(
        ["bash", script, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "variables", "out"),
    [
        (("job.toml",), {}, "sflam-power"),
        (("job.toml", "made/here"), {}, "made/here"),
        ((), {"JOB": "job.toml", "OUT": "there"}, "there"),
    ],
)
def test_a_job_and_a_folder_are_those_of_the_caller(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], out: str
) -> None:
    (tmp_path / "job.toml").write_text("[network]\ndevices = 3\n")
    before = sorted(ROOT.iterdir())
    options = ("--values", "5,20", "--methods", "equal,random", "--draws", "1")
    done = call(ROOT / "configs/figures/sflam-power.sh", tmp_path, *words, *options, **variables)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / out).iterdir()} == {"sweep.csv", "sweep.png"}
    assert (
        len((tmp_path / out / "sweep.csv").read_text().splitlines()) == 5 and sorted(ROOT.iterdir()) == before
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_asks_for_a_job_that_is_not_there_by_its_name(tmp_path: Path, script: Path) -> None:
    done = call(script, tmp_path, "none.toml", "out")
    assert done.returncode != 0 and "none.toml" in done.stderr and not (tmp_path / "out").exists()
