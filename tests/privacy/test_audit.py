"""``sflam audit``: on a run and on a job, images and texts, without touching the run's own files."""

from __future__ import annotations

import json

import numpy as np
import pytest

import sflam
from sflam import config
from sflam.learn.methods import method_of
from sflam.learn.round import SERVER
from sflam.privacy.observer import Observer
from sflam.privacy.subject import subject_of
from sflam.run.assemble import assemble
from tests.conftest import assert_refused, sets
from tests.reviews import write_reviews

FEW = ("--samples", 3, "--steps", 3, "--pretend", 8)


def scores(found, about, cut, bits):
    return {
        each["attack"]: each["score"]
        for each in found["findings"]
        if (each["about"], each["cut"], each["bits"]) == (about, cut, bits)
    }


def test_a_run_is_audited_at_every_cut_and_width(finished, tmp_path, cli):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    output = cli("audit", finished, *FEW, "--out", tmp_path / "out", "--json")
    assert output.code == 0, output.err
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    found = json.loads(output.out[-1])
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == found
    assert (tmp_path / "out" / "audit.png").read_bytes().startswith(b"\x89PNG")
    cells = [(cell["cut"], cell["bits"]) for cell in found["cells"]]
    assert cells == [(cut, bits) for cut in range(4) for bits in (2, 8, None)]
    sizes = [cell["bytes_up"] for cell in found["cells"][:3]]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 8
    first = scores(found, "images", 0, None)
    assert first["inversion"] > 0.95 and found["trained"] and found["samples"] == 3
    assert "inversion" not in scores(found, "images", 1, 8)
    assert {each["attack"] for each in found["findings"] if each["about"] == "members"} == {
        "loss",
        "gradient norm",
    }
    mix, device = [each for each in found["findings"] if each["about"] == "class mix"]
    assert device["attack"] == "average, by a device" and 0 <= device["score"] <= 1
    assert 0 <= mix["score"] <= 1 and 0 < mix["guess"] < 1 and mix["more"]["devices"] == 3
    assert any(line.startswith("class mix of a device") for line in found["sentences"])
    assert any("recommended" in line or "no cut" in line for line in found["sentences"])
    again = cli("audit", finished, *FEW, "--out", tmp_path / "out", "--json")
    assert json.loads(again.out[-1]) == found  # the same draws and noise


def test_devices_may_be_audited_with_another_quantizer(finished, tmp_path, cli):
    """Rotated bits are of other sizes and tell something else; the run itself stays as it was."""
    few = ("--cuts", "1", "--bits", "2", *FEW, "--json")
    own, other = (
        json.loads(cli("audit", finished, *few, *more, "--out", tmp_path / "out").out[-1])
        for more in ((), ("--scheme", "rotated"))
    )
    assert (own["scheme"], other["scheme"]) == ("uniform", "rotated")
    assert scores(own, "images", 1, 2) != scores(other, "images", 1, 2)


def test_a_run_that_trained_every_weight_is_audited(small, tmp_path, cli):
    """Its model is the merged one: accuracy on floats is that of the run."""
    job = config.load(None, [*small, "model.trainable=full", "learn.rounds=2"])
    result = sflam.train(job, tmp_path / "run")
    output = cli("audit", tmp_path / "run", *FEW, "--cuts", "1", "--bits", "32", "--json")
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    assert found["trained"] and found["cells"][0]["accuracy"] == pytest.approx(result.accuracy)


def test_a_job_is_audited_before_any_training(small, tmp_path, cli):
    job = tmp_path / "job.toml"
    job.write_text("")
    options = ("--cuts", "0", "--bits", "32", "--out", tmp_path / "out", "--json")
    output = cli("audit", job, *sets(*small), *FEW, *options)
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    assert not found["trained"] and [cell["bits"] for cell in found["cells"]] == [None]
    assert not any(each["about"] == "members" for each in found["findings"])


def test_texts_are_read_at_cut_0(tmp_path, cli):
    write_reviews(tmp_path)
    settings = (f"model.name={tmp_path / 'bert'}", f"data.name={tmp_path / 'reviews.csv'}", "fleet.devices=2")
    job = tmp_path / "job.toml"
    job.write_text("")
    options = ("--cuts", "0,1", "--bits", "8", "--out", tmp_path / "out", "--json")
    output = cli("audit", job, *sets(*settings, "model.rank=2", "learn.device=cpu"), *FEW, *options)
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    assert scores(found, "texts", 0, 8)["lookup"] > 0.99
    assert "lookup" not in scores(found, "texts", 1, 8)


def test_the_server_of_an_audit_sees_what_the_fleet_sends(small):
    """Activations of the observer, at cut and adapters of the job, are those of its device halves."""
    job = config.load(None, small)
    assembly = assemble(job)
    assert method_of(job).split and assembly.halves is not None
    fleet = assembly.halves
    batch = fleet.examples.take(np.arange(4))
    fleet.seat((0,))
    fleet.put(0, assembly.state)
    devices = fleet.devices
    devices.segment.eval()
    hidden = devices.forward({0: batch}, {0: 0, SERVER: 0})[0]
    seen = Observer(assembly.backbone, assembly.model, job.model.cut, job.quant.scheme, 0)
    assert float((seen.exact(batch) - hidden).abs().max()) < 1e-5


@pytest.mark.parametrize(
    "options, named",
    [
        (("--cuts", "9"), "--cuts holds 9; this model has cuts 0 to 3"),
        (("--cuts", "nan"), "--cuts holds nan; give whole numbers"),
        (("--bits", "32,1e400"), "--bits holds inf; give whole numbers"),
        (("--cuts", "1.5"), "--cuts holds 1.5; give whole numbers"),
        (("--bits", "17"), "--bits holds 17; give widths from 1 to 16, or 32 for floats"),
        (("--samples", "0"), "--samples is 0"),
        (("--set", "learn.lr=1"), "--set changes a job"),
        (("--scheme", "coarse"), "quant.scheme: unknown scheme 'coarse'"),
    ],
)
def test_bad_options_are_one_line(finished, cli, options, named):
    assert_refused(cli("audit", finished, *options), named)


def test_what_sends_no_activations_is_refused(small, tmp_path, cli):
    sflam.train(config.load(None, [*small, "learn.method=fedlora", "learn.rounds=1"]), tmp_path / "run")
    assert_refused(cli("audit", tmp_path / "run"), "sends no activations")
    assert_refused(cli("audit", tmp_path / "missing"), "missing")


def test_unfinished_runs_are_refused(small, tmp_path):
    run = sflam.start(config.load(None, [*small, "learn.rounds=2"]), tmp_path / "run")
    next(run.rounds())
    with pytest.raises(sflam.SflamError):
        subject_of(tmp_path / "run")
