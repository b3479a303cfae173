"""``sflam theory``: a run's gradients beside the bound, without touching the run."""

from __future__ import annotations

import json

import pytest

import sflam
from sflam import config
from tests.conftest import assert_refused


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "more", [(), ("learn.method=sflam-mixed",), ("quant.scheme=identity",), ("learn.method=sflam",)]
)
def test_a_run_is_measured_as_it_was_trained(small, tmp_path, cli, more):
    job = config.load(None, [*small, "learn.rounds=3", *more])
    sflam.train(job, tmp_path / "run")
    before = contents(tmp_path / "run")
    output = cli(
        "theory", tmp_path / "run", "--every", 2, "--batches", 3, "--out", tmp_path / "out", "--json"
    )
    assert output.code == 0 and contents(tmp_path / "run") == before
    found = json.loads(output.out[-1])
    assert json.loads((tmp_path / "out" / "theory.json").read_text()) == found
    assert (tmp_path / "out" / "theory.png").exists()
    assert [row["steps"] for row in found["points"]] == [0, 4, 6]
    assert (
        all(row["gradient_error"] > 0 for row in found["points"])
        and found["gap"] == found["points"][0]["loss"]
    )
    assert len(found["least_bits"]) == job.fleet.devices
    if "quant.scheme=identity" in more:
        assert found["variance"] == found["variance_plain"] and found["squared_bias"] == 0
    else:
        assert found["squared_bias"] > 0
    text = "\n".join(cli("theory", tmp_path / "run", "--batches", 3).out)
    assert "steps promised" in text and "measured: L =" in text
    assert (tmp_path / "run" / "theory.png").exists()


def test_what_theory_says_nothing_about_is_refused(small, finished, tmp_path, cli):
    assert_refused(cli("theory", tmp_path), "holds no run")
    assert_refused(cli("theory", finished, "--every", 0), "--every is 0")
    assert_refused(cli("theory", finished, "--batches", 2), "--batches 2; give")
    for more, text in (
        ("learn.method=fedlora", "sends no quantized"),
        ("quant.scheme=topk", "leaves values out"),
    ):
        run = tmp_path / more.replace("=", "-")
        sflam.train(config.load(None, [*small, "learn.rounds=1", more]), run)
        assert_refused(cli("theory", run), text)
