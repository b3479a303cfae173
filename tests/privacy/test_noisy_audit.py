"""``sflam audit --noise``: what noise hides and what it leaves, and which rows no other beats."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sflam import config
from sflam.privacy.front import on_front, recommended
from sflam.privacy.observer import Observer
from sflam.privacy.subject import subject_of
from tests.conftest import assert_refused


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """The nano ViT before any training, on the bundled digits."""
    job = tmp_path_factory.mktemp("nano") / "job.toml"
    job.write_text(config.to_toml(config.load(None, ["fleet.devices=2", "learn.device=cpu"])))
    return job


def test_noise_lowers_what_is_reconstructed_of_the_nano_vit(nano, tmp_path, cli):
    options = ("--cuts", "1", "--bits", "8", "--samples", 6, "--steps", 3, "--noise", "0,0.1,0.5")
    output = cli("audit", nano, *options, "--pretend", 0, "--out", tmp_path, "--json")
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    leaks = [cell["leak"] for cell in found["cells"]]
    assert [cell["noise"] for cell in found["cells"]] == [0, 0.1, 0.5]
    assert leaks[0] > leaks[1] + 0.05 > leaks[2] + 0.15 and leaks[0] > 0.9, leaks
    assert found["cells"][0]["clip"] == 0 and found["cells"][1]["clip"] == found["cells"][2]["clip"] > 0
    labels = {f["noise"]: f["score"] for f in found["findings"] if f["attack"] == "class means"}
    assert labels[0] > labels[0.5]
    page = (tmp_path / "audit.html").read_text()
    assert 'href="data:image/png' in page and "<script" not in page


def test_rows_of_a_finished_run_have_accuracy_time_and_energy(finished, tmp_path, cli):
    options = (
        "--cuts",
        "0,2",
        "--bits",
        "4,8",
        "--samples",
        2,
        "--steps",
        2,
        "--noise",
        "0,0.5",
        "--clip",
        "3",
    )
    output = cli("audit", finished, *options, "--pretend", 0, "--out", tmp_path, "--json")
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    cells = {(cell["cut"], cell["bits"], cell["noise"]): cell for cell in found["cells"]}
    assert len(cells) == 8 and cells[0, 4, 0.5]["clip"] == 3
    assert all(0 <= cell["accuracy"] <= 1 and cell["energy_j"] > 0 for cell in cells.values())
    assert cells[0, 4, 0]["latency_s"] < cells[0, 8, 0]["latency_s"] == cells[0, 8, 0.5]["latency_s"]
    assert any(cell["front"] for cell in cells.values())
    members = [(each["cut"], each["noise"]) for each in found["findings"] if each["about"] == "members"]
    assert {(0, 0), (0, 0.5), (2, 0.5)} <= set(members)
    assert sum("recommended: " in line for line in found["sentences"]) == 1
    assert sum(line.startswith("limit: ") for line in found["sentences"]) == 3


def test_other_samples_have_other_noise_and_the_same_ones_the_same(finished):
    subject = subject_of(finished)
    seen = Observer(subject.backbone, subject.model, 1, "uniform", 0)
    batch, other = (subject.members.take(np.array(ids)) for ids in ([1, 2], [1, 3]))
    plain = [seen.received(each, None)[0] for each in (batch, other)]
    assert float((plain[0] - plain[1]).abs().max()) < 1e-5
    seen.protect(1e6, 1e-6)
    noisy = [seen.received(each, None)[0] for each in (batch, other, batch)]
    assert (noisy[0] == noisy[2]).all() and float((noisy[0] - noisy[1]).abs().max()) > 0.1


def row(leak, accuracy, latency=1.0, energy=1.0):
    return {"leak": leak, "accuracy": accuracy, "latency_s": latency, "energy_j": energy}


def test_the_front_is_of_rows_that_no_other_beats():
    rows = [
        row(0.9, 0.99),
        row(0.5, 0.98),
        row(0.5, 0.9),
        row(0.2, 0.5),
        row(0.9, 0.99, 2.0),
        row(0.5, 0.9, 0.5),
    ]
    assert on_front(rows) == [True, True, False, True, False, True]
    assert recommended(rows) == rows[1]
    unknown = [row(0.9, None), row(0.5, None)]
    assert on_front(unknown) == [False, True] and recommended(unknown) is None


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--noise", "-1"), "--noise or --clip is negative"),
        (("--noise", "some"), "--noise holds 'some'"),
        (("--clip", "-2"), "--noise or --clip is negative"),
    ],
)
def test_bad_options_are_one_line(finished, cli, options, named):
    assert_refused(cli("audit", finished, *options), named)
