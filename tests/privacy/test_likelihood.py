"""The likelihood ratio finds members whose losses alone hide them; on an overfitted run, more of them than the loss."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sflam
from sflam import config
from sflam.data.sources import digits
from sflam.privacy.likelihood import confidence, likelihood
from sflam.privacy.membership import caught, separation
from tests.conftest import assert_refused, sets


@given(st.floats(1e-9, 30))
def test_confidence_is_the_logit_of_the_probability(loss):
    p = np.exp(-loss)
    assert confidence(loss) == pytest.approx(np.log(p) - np.log(-np.expm1(-loss)), rel=1e-6, abs=1e-9)


def test_what_is_hard_hides_members_from_the_loss_alone():
    """Losses differ far more between samples than by membership; the runs without a sample show how hard it is."""
    rng = np.random.default_rng(0)
    count, samples = 8, 800
    hard = rng.normal(0, 3, samples)
    member = np.arange(samples) < samples // 2
    seen = rng.random((count, samples)) < 0.5
    seen[:, ~member] = False

    def losses(inside):
        phi = hard + inside * 2.0 + rng.normal(0, 0.5, inside.shape)
        return np.log1p(np.exp(-phi))

    own, shadows = losses(member.astype(float)), losses(seen.astype(float))
    enough = (~seen).sum(0) >= 2
    score = likelihood(own[enough], shadows[:, enough], ~seen[:, enough])
    inside = member[enough]
    assert separation(score[inside], score[~inside]) > 0.97 > 0.75 > separation(own[member], own[~member])
    assert caught(score[inside], score[~inside]) > 0.5 > 0.1 > caught(own[member], own[~member])


def test_runs_that_tell_nothing_leave_a_guess():
    rng = np.random.default_rng(1)
    own, shadows = rng.exponential(1, 600), rng.exponential(1, (6, 600))
    score = likelihood(own, shadows, rng.random((6, 600)) < 0.9)
    assert abs(separation(score[:300], score[300:]) - 0.5) < 0.07


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory):
    """A run that learnt 48 digits by heart, three in ten of them with a wrong label, as those held out have."""
    folder, whole, rng = tmp_path_factory.mktemp("overfitted"), digits(), np.random.default_rng(0)
    rows = rng.permutation(len(whole.labels))[:120]
    labels = np.asarray(whole.labels)[rows].copy()
    wrong = rng.random(len(rows)) < 0.3
    labels[wrong] = rng.integers(0, 10, wrong.sum())
    np.savez(folder / "digits.npz", image=whole.inputs[rows], label=labels)
    settings = (
        *(f"data.name={folder / 'digits.npz'}", "data.test=0.5", "data.partition=iid", "fleet.devices=2"),
        *("model.rank=8", "model.trainable=lora+head", "learn.lr=0.01", "learn.batch=16"),
        *("learn.rounds=10", "learn.local_epochs=2", "learn.evaluate_every=0", "learn.device=cpu"),
    )
    sflam.train(config.load(None, settings), folder / "run")
    return folder / "run"


def test_an_overfitted_run_gives_its_members_away(overfitted, tmp_path, cli):
    options = ("--cuts", 1, "--bits", 8, "--samples", 1, "--steps", 1, "--shadows", 4, "--pretend", 0)
    output = cli("audit", overfitted, *options, "--out", tmp_path / "out", "--json")
    assert output.code == 0, output.err
    found = json.loads(output.out[-1])
    members = {each["attack"]: each for each in found["findings"] if each["about"] == "members"}
    ratio, loss = members["likelihood ratio"], members["loss"]
    assert ratio["score"] > 0.75 and ratio["more"]["caught_at_1_percent"] > 0.05
    assert ratio["score"] >= loss["score"] - 0.02
    assert ratio["more"]["caught_at_1_percent"] >= loss["more"]["caught_at_1_percent"]
    assert any(line.startswith("members: the attack by") for line in found["sentences"])
    assert "likelihood ratio" in (tmp_path / "out" / "audit.html").read_text()


def test_shadows_that_show_nothing_are_refused(finished, small, tmp_path, cli):
    assert_refused(cli("audit", finished, "--shadows", 2), "--shadows is 2; give 4 or more")
    job = tmp_path / "job.toml"
    job.write_text("")
    assert_refused(
        cli("audit", job, *sets(*small), "--shadows", 4), "this job was not trained; give a run's folder"
    )
    assert_refused(cli("audit", job, *sets(*small), "--pretend", 2), "--pretend is 2; give 8 or more")
