"""Every configuration of the paper experiments is read, every figure's script says what exists, and plans are drawn."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sflam import config
from sflam.learn.methods import METHODS
from sflam.planner import cell as planning
from sflam.run.compatibility import check
from sflam.run.conditions import SIMULATE
from sflam.simulate.setup import expect_possible

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*/*.toml"))
FIGURES = sorted((ROOT / "configs" / "figures").glob("*.sh"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_configuration_is_read_and_planned(path: Path) -> None:
    """What is trained over one cell can be simulated, and every network can be planned."""
    job = config.load(path)
    network = planning.with_devices(job)
    assert len(planning.decide(network).plan.devices) > 0
    if path.parent.name == "sflam":
        check(network, SIMULATE)
        expect_possible(network)


def test_every_system_has_an_offline_twin() -> None:
    for folder in ("sflam", "edge", "card"):
        assert config.load(ROOT / "configs" / folder / "twin.toml").model.name == "nano-vit"


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.stem)
def test_a_script_names_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    named = re.findall(r"configs/[\w/.-]+\.(?:toml|py)", text)
    assert named and all((ROOT / name).is_file() for name in named)
    trained = re.search(r"sflam compare .*?--methods ([\w,+-]+)", text, re.DOTALL)
    if trained:
        assert {name.partition("+")[0] for name in trained[1].split(",")} <= set(METHODS)


def test_every_script_is_on_the_page_of_the_papers() -> None:
    page = (ROOT / "docs" / "explanation" / "paper.md").read_text(encoding="utf-8")
    assert [path.name for path in FIGURES if path.name not in page] == []


def test_a_sweep_writes_numbers_and_a_picture(tmp_path: Path) -> None:
    job = ROOT / "configs" / "sflam" / "twin.toml"
    options = [
        "--key",
        "network.bandwidth_mhz",
        "--values",
        "1,2",
        "--methods",
        "optimal,equal",
        "--draws",
        "1",
    ]
    script = ROOT / "configs" / "figures" / "sweep.py"
    subprocess.run(
        [sys.executable, script, job, *options, "--out", tmp_path], check=True, capture_output=True
    )
    with (tmp_path / "sweep.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and (tmp_path / "sweep.png").stat().st_size > 1000
    best = {
        row["network.bandwidth_mhz"]: float(row["objective"]) for row in rows if row["method"] == "optimal"
    }
    assert all(float(row["objective"]) >= best[row["network.bandwidth_mhz"]] for row in rows)
    assert best["2.0"] < best["1.0"]
