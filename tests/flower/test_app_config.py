"""The flat configuration of a Flower run is a job, and what the app needs beside it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from sflam.errors import ConfigError
from sflam.flower.app_config import AppConfig, read
from sflam.run.compatibility import problems_of
from sflam.run.conditions import FLOWER, SERVE

APP = Path(__file__).parents[2] / "examples" / "flower"


def flat(values, at=""):
    """Return nested tables as Flower gives them."""
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{at}{key}.") if isinstance(value, dict) else {at + key: value}
    return found


def test_the_example_is_a_job_that_goes_through_flower():
    project = tomllib.loads((APP / "pyproject.toml").read_text())
    how, job = read(flat(project["tool"]["flwr"]["app"]["config"]))
    assert how == AppConfig(folder="", gather=300.0) and job.fleet.devices == 2
    assert problems_of(job, SERVE) == problems_of(job, FLOWER) == []
    for component in project["tool"]["flwr"]["app"]["components"].values():
        module, name = component.split(":")
        assert f"{name} = " in (APP / f"{module.replace('.', '/')}.py").read_text()


def test_keys_change_a_job_file(tmp_path):
    (tmp_path / "job.toml").write_text("[learn]\nrounds = 7\nbatch = 3\n")
    how, job = read(
        {
            "flower.job": str(tmp_path / "job.toml"), "learn.rounds": 2, "learn.canonical": True, "learn.lr": 0.5,
            "fleet.cuts": "[1, 2]", "fleet.devices": 2, "data.name": "digits",
        }
    )  # fmt: skip
    assert (job.learn.rounds, job.learn.batch, job.learn.canonical, job.learn.lr) == (2, 3, True, 0.5)
    assert job.fleet.cuts == (1, 2) and job.data.name == "digits" and how.job


def test_all_that_is_wrong_is_named_at_once():
    with pytest.raises(ConfigError) as raised:
        read({"flower.prot": 1, "flower.port": "eight", "flower.gather": 3})
    assert len(raised.value.problems) == 2 and "flower.port is 'eight'; it must be a whole number" in str(
        raised.value
    )
    with pytest.raises(ConfigError, match=r"unknown key of .learn. 'rouns'"):
        read({"learn.rouns": 3})


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ConfigError, match=r"flower.host is '0.0.0.0'.*set flower.address"):
        read({"flower.host": "0.0.0.0"})
    how, _ = read({"flower.host": "0.0.0.0", "flower.address": "link.example.org:9000"})
    assert how.name == "link.example.org"
