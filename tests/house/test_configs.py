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
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*/*.toml") if path.name != "study.toml")
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((), "611 MB as it stands"),
        (("model.cut=0",), "model.cut = 0 with batch 128 (69 MB)"),
        (("learn.batch=12",), "learn.batch = 12 (93 MB)"),
        (("model.trainable=full", "model.cut=0", "learn.batch=64"), "batch 64 (88 MB)"),
        (("model.cut=2", "learn.batch=4"), "more than 4 images"),
        (("model.cut=2", "learn.batch=5"), "more than 4 images"),
    ],
)
def test_the_main_setting_says_what_fits_a_hundred_megabytes(changes: tuple[str, ...], words: str) -> None:
    path = ROOT / "configs" / "sflam" / "cifar10.toml"
    job = config.load(path, list(changes))
    need = planning.workload_of(job).device_memory[job.model.cut] / 1e6
    text = " ".join(path.read_text(encoding="utf-8").replace("\n# ", " ").split())
    assert words in text
    named = re.search(r"(\d+) MB", words)
    assert round(need) == int(named[1]) if named else (need < 100) == (job.learn.batch == 4)
    assert (need < 100) == ("as it stands" not in words and job.learn.batch != 5)


def test_a_sweep_that_trains_writes_numbers_and_a_picture(tmp_path: Path) -> None:
    job, script = ROOT / "configs/sflam/twin.toml", ROOT / "configs/figures/trained.py"
    small = ("learn.rounds=1", "learn.local_epochs=1", "fleet.selected=2", "learn.local_steps=1")
    options = ["--key", "devices", "--values", "4,6", "--methods", "optimal", "--seeds", "1"]
    options += [word for setting in small for word in ("--set", setting)]
    subprocess.run(
        [sys.executable, script, job, *options, "--out", tmp_path], check=True, capture_output=True
    )
    with (tmp_path / "trained.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["devices"] for row in rows] == ["4.0", "6.0"]
    assert all(0 <= float(row["accuracy"]) <= 1 and float(row["energy_j"]) > 0 for row in rows)
    assert (tmp_path / "trained.png").stat().st_size > 1000


def test_the_memory_of_every_cut_is_written(tmp_path: Path) -> None:
    script = ROOT / "configs/figures/memory.py"
    job = ROOT / "configs/sflam/cifar10.toml"
    subprocess.run([sys.executable, script, job, "--out", tmp_path], check=True, capture_output=True)
    with (tmp_path / "memory.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 13 and (tmp_path / "memory.png").stat().st_size > 1000
    assert [row["megabytes"][:5] for row in rows if row["cut"] == "0"][-1] == "68.57"
