"""The loss that devices with labels at home report: of clipped losses, with noise, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sflam.codec.guard import guard_of
from sflam.learn.reported_loss import ReportedLoss
from sflam.privacy.settings import PrivacySettings
from tests.learn.builders import LEARN, adapted, local_fleet, parts_of, run, state_of
from tests.tiny import KINDS

SIZES = (7, 12, 5)


def trained(kind, privacy, *, sizes=SIZES, batch=4, **options):
    """Return what a run of two rounds recorded, and its adapters."""
    backbone, model, examples = adapted(kind)
    learn = replace(LEARN, rounds=2, local_steps=2, batch=batch, canonical=True)
    guard = guard_of(privacy, 3) if privacy else None
    fleet = local_fleet(
        backbone,
        model,
        examples,
        parts_of(sizes),
        cut=1,
        labels="device",
        learn=learn,
        guard=guard,
        **options,
    )
    return run(fleet, state_of(model), 2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_endless_clip_without_noise_reports_the_mean(kind):
    """Mean of means: of texts to be continued, each sample counts once, whatever its length."""
    plain, state = trained(kind, None)
    found, same = trained(kind, PrivacySettings(clip_loss=1e9))
    assert all(torch.equal(same[name], value) for name, value in state.items())
    if kind != "gpt2-lm":
        assert [record.loss for record in found] == pytest.approx(
            [record.loss for record in plain], rel=1e-12
        )
        devices = [record.device_loss for record in found]
        assert np.allclose(devices, [record.device_loss for record in plain], rtol=1e-12)


def test_each_sample_counts_up_to_the_clip_and_learning_stays():
    """Batches of one sample: every step's loss is that of one sample, so a device's mean is of clipped ones."""
    single = trained("vit", None, batch=1)
    losses = [loss for record in single[0] for loss in record.device_loss]
    bound = float(np.median(losses))
    found, state = trained("vit", PrivacySettings(clip_loss=bound), batch=1)
    assert all(torch.equal(state[name], value) for name, value in single[1].items())
    mine = [loss for record in found for loss in record.device_loss]
    assert max(mine) <= bound + 1e-12 and min(losses) < bound < max(losses)
    assert all(low <= high + 1e-12 for low, high in zip(mine, losses, strict=True))


def test_noise_has_its_size_and_is_that_of_its_step():
    privacy = PrivacySettings(clip_loss=2.0, noise_loss=3.0)
    reported = ReportedLoss(guard_of(privacy, 3))
    losses = torch.full((4,), 5.0)
    drawn = [reported.means(losses, [4], [seed])[0] for seed in range(2000)]
    assert np.mean(drawn) == pytest.approx(2.0, abs=4 * 1.5 / np.sqrt(2000))
    assert np.std(drawn) == pytest.approx(3.0 * 2.0 / 4, rel=0.1)
    assert reported.means(losses, [4], [7]) == [drawn[7]]
    assert reported.means(torch.full((6,), 5.0), [4, 2], [7, 8])[0] == drawn[7]
    reported.at_attempt(1)
    assert reported.means(losses, [4], [7]) == [drawn[7]]  # of the run's seed, whatever the attempt
    own = ReportedLoss(guard_of(privacy, 3, b"secret"))
    first = own.means(losses, [4], [7])
    own.at_attempt(1)
    assert first != own.means(losses, [4], [7]) and first != [drawn[7]]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    st.integers(0, 19),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e3),
)
def test_another_sample_moves_the_sum_by_the_clip_at_most(losses, place, other, clip):
    guard = guard_of(PrivacySettings(clip_loss=clip), 1)
    changed = list(losses)
    changed[place % len(losses)] = other
    moved = len(losses) * abs(guard.mean_loss(np.array(losses), 0) - guard.mean_loss(np.array(changed), 0))
    assert moved <= clip * (1 + 1e-9)
