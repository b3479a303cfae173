"""``privacy.sample_clip`` in a run: what is counted for every device, what that covers, and that a run resumes."""

from __future__ import annotations

import math

import pytest
import torch

import sflam
from sflam.config import load
from sflam.cost.privacy_loss import epsilon_of, epsilon_of_coins, most_visits
from sflam.cost.sampled_sums import epsilon_of_sums
from sflam.errors import ConfigError
from sflam.run.assemble import assemble
from sflam.run.compatibility import check
from sflam.run.protection import covers
from tests.run.finished import adapters, expect_resumed_is_whole, spent

CLIPPED = ("privacy.sample_clip=0.5", "privacy.sample_noise=8")
NOISE = ("privacy.clip=2", "privacy.noise=4")
HOME = ("model.labels=device", "privacy.clip_gradients=1")
LOSS = ("privacy.clip_loss=2", "privacy.noise_loss=5")
TOKENS = 17


@pytest.mark.parametrize("draw", ["passes", "poisson"])
def test_all_that_leaves_a_device_counts_and_covers_a_sample(small, tmp_path, draw):
    """A visit is 17 tokens up, 17 gradients, a noisy sum of gradients and a noisy sum of losses."""
    job = load(
        None, [*small, *CLIPPED, *NOISE, *HOME, *LOSS, f"data.draw={draw}", "learn.rounds=2", "learn.batch=2"]
    )
    expect_resumed_is_whole(job, tmp_path)
    visit = 2 * TOKENS * (2 / 4) ** 2 + (2 / 8) ** 2 + (1 / 5) ** 2
    for number, each in enumerate(spent(tmp_path / "whole"), start=1):
        assert each.covers == "sample"
        for device, part in enumerate(assemble(job).parts):
            steps = job.learn.local_steps or job.learn.local_epochs * -(-len(part) // 2)
            if draw == "passes":
                wanted = epsilon_of(math.sqrt(number * most_visits(len(part), 2, steps, 0) * visit), 1e-5)
            else:
                wanted = epsilon_of_coins(number * steps, each.rate[device], visit, 0.0, 1e-5)
            assert each.epsilon[device] == pytest.approx(wanted)
    card = (tmp_path / "whole" / "adapter" / "README.md").read_text()
    assert "covering a sample" in card
    assert (
        "each sample's loss counted up to 2 in what a device reports and Gaussian noise of 5 times that"
        in card
    )


def test_of_what_the_server_keeps_coins_show_all_but_the_activations(small, tmp_path):
    """Activations go up once; gradients, sums and losses in every visit that a coin decides."""
    settings = ("model.cut=0", "learn.cache=server", "data.draw=poisson", "learn.rounds=2", "learn.batch=2")
    sflam.train(load(None, [*small, *CLIPPED, *NOISE, *HOME, *LOSS, *settings]), tmp_path / "run")
    last = spent(tmp_path / "run")[-1]
    visit, once = TOKENS * (2 / 4) ** 2 + (2 / 8) ** 2 + (1 / 5) ** 2, TOKENS * (2 / 4) ** 2
    for device, epsilon in enumerate(last.epsilon):
        assert last.coins[device] > 0 and last.mu[device] == pytest.approx(math.sqrt(once))
        wanted = epsilon_of_coins(last.coins[device], last.rate[device], visit, once, 1e-5)
        assert epsilon == pytest.approx(wanted)


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
        ((*CLIPPED, *NOISE, *HOME, "privacy.clip_loss=2"), "activations only", ("the mean loss",)),
        ((*CLIPPED, *NOISE, *HOME, *LOSS), "sample", ()),
        ((*NOISE, *HOME, *LOSS), "activations only", ("what devices train goes up as it is",)),
        (
            (*NOISE, *HOME, *LOSS, "privacy.adapters=user", "learn.local_steps=1", "learn.state=reset"),
            "sample",
            (),
        ),
        (
            (
                *NOISE,
                *HOME,
                *LOSS,
                "privacy.adapters=user",
                "learn.local_steps=1",
                "learn.state=reset",
                "learn.personal=device-half",
                "model.cut=2",
            ),
            "activations only",
            ("what a step trained shows",),
        ),
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
        (("privacy.noise_loss=1", "model.labels=device"), "set that above 0 (about the loss of a guess)"),
        (("privacy.clip_loss=1", "model.labels=server"), "the server knows the loss"),
        (("privacy.clip_loss=1", "model.labels=device", "device.runtime=lean"), "no loss of each sample"),
        (("privacy.sample_clip=1", "model.cut=0"), "devices train nothing; cut later"),
        (("privacy.sample_clip=1", "device.runtime=lean"), "has no gradient of each sample"),
        (("privacy.sample_clip=1", "quant.scheme=topk"), "it adds to another's"),
    ],
)
def test_what_does_not_go_together_is_one_line(settings, named):
    with pytest.raises(ConfigError) as refusal:
        check(load(None, settings))
    assert named in str(refusal.value) and "\n" not in str(refusal.value)
