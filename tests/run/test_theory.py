"""``sflam theory``: a run's gradients beside the bound, without touching the run."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

import sflam
from sflam import config
from sflam.run import theory
from sflam.run.start import start
from sflam.run.theory import theory_of
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
        ("model.labels=device", "activations in both directions"),
        ("quant.delta=true", "differences between activations"),
    ):
        run = tmp_path / more.replace("=", "-")
        sflam.train(config.load(None, [*small, "learn.rounds=1", more]), run)
        assert_refused(cli("theory", run), text)


def test_a_device_without_a_seat_is_measured_as_with_one(small, tmp_path):
    """Of a round one device is chosen: its fleet holds one at a time."""
    jobs = [config.load(None, [*small, "learn.rounds=1", f"fleet.selected={number}"]) for number in (0, 1)]
    for number, job in enumerate(jobs):
        sflam.train(job, tmp_path / str(number))
    every, one = (theory_of(tmp_path / str(number), every=1, batches=3) for number in (0, 1))
    assert one["points"][0]["gradient"] == pytest.approx(every["points"][0]["gradient"], rel=1e-4)
    assert one["widths"][3]["promised_steps"] and len(one["least_bits"]) == 3


@pytest.mark.parametrize(
    "more",
    [
        ("network.simulate=true", "network.scenario=square", "network.servers=2", "fleet.servers=[0,1,-1]"),
        ("fleet.servers=[0,-1,0]",),
    ],
)
def test_a_device_that_sends_nothing_is_not_rounded(small, tmp_path, more):
    run = start(config.load(None, [*small, "learn.rounds=1", *more]), tmp_path / "run")
    (record,) = run.rounds()
    away = run.job.fleet.servers.index(-1)
    assert [width == np.inf for width in theory._bits(run.job, record)] == [k == away for k in range(3)]
    run.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        json.dumps(theory_of(tmp_path / "run", every=1, batches=3), allow_nan=False)


def test_where_training_stops_early_is_measured(small, tmp_path):
    job = config.load(None, [*small, "learn.rounds=9", "learn.stop_after=1", "learn.lr=1e-9"])
    run = start(job, tmp_path / "run")
    done = len(list(run.rounds()))
    run.finish()
    assert done < 5
    found = theory_of(tmp_path / "run", every=5, batches=3)
    assert [row["steps"] for row in found["points"]] == [0, 2 * done]
