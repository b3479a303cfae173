"""``privacy.sample_clip`` in a run: what is counted for every device, what that covers, and that a run resumes."""

from __future__ import annotations

import math

import pytest
import torch

import sflam
from sflam.config import load
from sflam.cost.privacy_loss import epsilon_of, epsilon_of_coins
from sflam.cost.sampled_sums import epsilon_of_sums
from sflam.errors import ConfigError
from sflam.run.assemble import assemble
from sflam.run.compatibility import check
from sflam.run.protection import covers
from tests.run.finished import adapters, expect_resumed_is_whole, spent

CLIPPED = ("privacy.sample_clip=0.5", "privacy.sample_noise=8")
NOISE = ("privacy.clip=2", "privacy.noise=4")
HOME = ("model.labels=device", "privacy.clip_gradients=1")
TOKENS = 17


def test_every_visit_to_a_sum_counts_beside_the_tokens_that_go_up(small, tmp_path):
    """Passes gain nothing: a sample of round r has been in r visits, each 17 noisy tokens and one noisy sum."""
    job = load(
        None, [*small, *NOISE, *CLIPPED, "learn.local_steps=0", "learn.local_epochs=2", "learn.rounds=2"]
    )
    sflam.train(job, tmp_path / "run")
    for number, each in enumerate(spent(tmp_path / "run"), start=1):
        wanted = number * 2 * (TOKENS * (2 / 4) ** 2 + (2 / 8) ** 2)
        assert each.mu == pytest.approx([math.sqrt(wanted)] * len(each.mu))
        assert each.epsilon == pytest.approx([epsilon_of(math.sqrt(wanted), 1e-5)] * len(each.mu))
        assert each.covers == "inputs only"
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert (
        "each sample's gradient of what the device trains clipped to norm 0.5 and Gaussian noise of 8" in card
    )
    assert "covering inputs only: labels go to the server as they are" in card


@pytest.mark.parametrize("noisy", [False, True])
def test_coins_hide_in_sums_from_who_sees_no_rows(small, tmp_path, noisy):
    """Without noise at the cut epsilon is of adapters alone, of sums over drawn samples; with it the coins show."""
    extra = NOISE if noisy else ()
    settings = [*small, *extra, *CLIPPED, "data.draw=poisson", "learn.rounds=2", "learn.batch=2"]
    job = load(None, settings)
    sflam.train(job, tmp_path / "run")
    last = spent(tmp_path / "run")[-1]
    for device, part in enumerate(assemble(job).parts):
        steps = 2 * (job.learn.local_steps or job.learn.local_epochs * -(-len(part) // 2))
        rate = 2 / len(part)
        shown = epsilon_of_coins(steps, rate, noisy * TOKENS * (2 / 4) ** 2 + (2 / 8) ** 2, 0.0, 1e-5)
        hidden = epsilon_of_sums(steps, len(part), rate, 8.0, 1e-5)
        assert last.coins[device] == steps and last.rate[device] == pytest.approx(rate)
        assert last.epsilon[device] == pytest.approx(shown if noisy else min(shown, hidden))
    assert last.covers == ("inputs only" if noisy else "adapters only")


def test_a_resumed_run_has_the_same_noise_and_goes_on_counting(small, tmp_path):
    settings = [*small, *CLIPPED, "learn.canonical=true", "learn.rounds=3", "learn.state=keep"]
    job = load(None, settings)
    expect_resumed_is_whole(job, tmp_path)
    whole = adapters(tmp_path / "whole")
    sflam.train(load(None, [*settings, "privacy.sample_noise=9"]), tmp_path / "other")
    assert not all(torch.equal(value, adapters(tmp_path / "other")[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("settings", "covered", "reasons"),
    [
        (CLIPPED, "adapters only", ("activations have no noise", "the trunk's weights")),
        ((*CLIPPED, *NOISE), "inputs only", ("labels go to the server",)),
        (
            (*CLIPPED, *NOISE, "model.labels=device"),
            "activations only",
            ("the mean loss", "gradients of the loss"),
        ),
        ((*CLIPPED, *NOISE, *HOME), "activations only", ("the mean loss",)),
        ((*NOISE, *HOME), "activations only", ("the mean loss", "what devices train goes up as it is")),
        (("privacy.sample_clip=1", *NOISE), "activations only", ("labels go", "what devices train goes up")),
    ],
)
def test_what_is_covered_is_named_for_every_composition(settings, covered, reasons):
    what, found = covers(load(None, settings), True)
    assert what == covered and len(found) == len(reasons)
    assert all(reason in line for reason, line in zip(reasons, found, strict=True))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("privacy.sample_noise=1",), "noise is in units of privacy.sample_clip; set that above 0"),
        (("privacy.sample_clip=-1",), "privacy.sample_clip is -1.0; it must be 0 or more"),
        (("privacy.sample_clip=1", "model.cut=0"), "devices train nothing; cut later"),
        (("privacy.sample_clip=1", "device.runtime=lean"), "has no gradient of each sample"),
        (("privacy.sample_clip=1", "quant.scheme=topk"), "it adds to another's"),
    ],
)
def test_what_does_not_go_together_is_one_line(settings, named):
    with pytest.raises(ConfigError) as refusal:
        check(load(None, settings))
    assert named in str(refusal.value) and "\n" not in str(refusal.value)
