"""Class mixes are read from the adapters of unlike devices, and not from their sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.config import load
from sflam.errors import ConfigError
from sflam.privacy.class_mix import by_updates, expect_pretended, mix_of, overlap, to_mix
from sflam.privacy.settings import PrivacySettings
from sflam.privacy.subject import subject_of


@given(st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=1, max_size=6))
def test_mixes_are_the_nearest_shares(values):
    rows = np.array(values)
    found = to_mix(rows)
    assert (found >= 0).all() and np.allclose(found.sum(1), 1)
    assert np.allclose(to_mix(found), found)
    rng = np.random.default_rng(0)
    for other in rng.dirichlet(np.ones(4), 20):  # no other mix is nearer
        assert (((rows - found) ** 2).sum(1) <= ((rows - other) ** 2).sum(1) + 1e-9).all()


def test_overlap_is_one_less_the_distance():
    one, other = mix_of(np.array([0, 0, 1, 2]), 4), mix_of(np.array([3, 0]), 4)
    assert overlap(one[None], one[None]) == 1
    assert overlap(one[None], other[None]) == pytest.approx(1 - abs(one - other).sum() / 2)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    job = tmp_path_factory.mktemp("job") / "job.toml"
    job.write_text("")
    settings = ["data.alpha=0.1", "learn.device=cpu", "fleet.devices=8", "learn.local_steps=4", "seed=1"]
    return subject_of(job, settings)


def test_unlike_devices_show_their_classes_and_their_sum_does_not(subject):
    open_, device = by_updates(subject, 24)
    assert open_.score > open_.guess + 0.2
    assert device.attack == "average, by a device" and device.score < open_.guess + 0.1
    grids = replace(subject.job.quant, adapters_scale="common")
    summed = replace(subject.job, privacy=PrivacySettings(secure_aggregation=True), quant=grids)
    hidden, same = by_updates(replace(subject, job=summed), 24)
    assert same == device
    assert hidden.guess == open_.guess and hidden.score < open_.guess + 0.1 < open_.score


def test_what_trains_nothing_before_the_cut_sends_nothing(subject):
    job = load(None, ["model.cut=0", "learn.device=cpu"])
    assert by_updates(replace(subject, job=job), 32) == ()
    assert by_updates(subject, 0) == ()
    with pytest.raises(ConfigError, match="--pretend is 3; give 8 or more"):
        expect_pretended(3)
