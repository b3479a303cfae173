"""``[privacy]`` in a run: what is spent is in the history and on the card, and a resumed run goes on with both."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sflam
from sflam import config
from sflam.config import digest, load, plain, to_toml
from sflam.cost.privacy_loss import epsilon_of, most_visits
from sflam.errors import ConfigError
from sflam.records import history
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServedRound
from sflam.run.assemble import assemble
from sflam.run.compatibility import check
from sflam.run.protection import AccountedFleet, covers
from tests.run.finished import adapters, expect_resumed_is_whole, spent

NOISE = ("privacy.clip=2", "privacy.noise=4")
TOKENS = 17


def test_every_round_says_what_was_spent(small, tmp_path):
    """Three steps of 8 of 32 samples: a sample goes up at most once a round, with all its tokens."""
    job = load(None, [*small, *NOISE, "learn.rounds=3", "privacy.delta=1e-3"])
    sflam.train(job, tmp_path / "run")
    found = spent(tmp_path / "run")
    steps = -(-job.learn.local_steps * job.learn.batch // min(len(p) for p in parts_of(job)))
    assert steps >= 1
    for number, each in enumerate(found, start=1):
        for device, part in enumerate(parts_of(job)):
            per_pass = -(-len(part) // job.learn.batch)
            visits = (
                -(-job.learn.local_steps // per_pass) if job.learn.local_steps else job.learn.local_epochs
            )
            mu2 = number * visits * TOKENS * (2 / 4) ** 2
            assert each.mu[device] == pytest.approx(np.sqrt(mu2))
            assert each.epsilon[device] == pytest.approx(epsilon_of(np.sqrt(mu2), 1e-3))
        assert each.covers == "activations only" and each.delta == 1e-3
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "activations clipped to norm 2 and Gaussian noise of 4 times that" in card
    assert f"epsilon {max(found[-1].epsilon):.3g} at delta 0.001" in card
    assert "labels go to the server as they are" in card and "neither noise nor" not in card


def parts_of(job):
    return assemble(job).parts


def test_a_resumed_run_has_the_same_noise_and_goes_on_counting(small, tmp_path):
    settings = [*small, *NOISE, "learn.canonical=true", "privacy.adapters=user", "privacy.clip_adapters=0.1"]
    job = load(None, [*settings, "learn.rounds=3", "fleet.selected=1"])
    expect_resumed_is_whole(job, tmp_path)
    whole = adapters(tmp_path / "whole")
    assert sum(each > 0 for each in spent(tmp_path / "whole")[0].epsilon) == 1
    sflam.train(load(None, [*settings[:-2], "learn.rounds=3", "fleet.selected=1"]), tmp_path / "other")
    other = adapters(tmp_path / "other")
    assert not all(torch.equal(whole[name], other[name]) for name in whole)


def test_activations_that_the_server_keeps_count_once(small, tmp_path):
    frozen = [*small, *NOISE, "model.cut=0", "learn.rounds=3"]
    sflam.train(load(None, [*frozen, "learn.cache=server"]), tmp_path / "kept")
    kept = [each.mu for each in spent(tmp_path / "kept")]
    assert kept[0] == kept[1] == kept[2] == pytest.approx((np.sqrt(TOKENS) / 2,) * len(kept[0]))
    sflam.train(load(None, frozen), tmp_path / "sent")
    assert spent(tmp_path / "sent")[2].mu[0] > kept[2][0]


def test_every_opening_counts_for_every_device_that_was_asked(small):
    """Opened for devices 0 and 1, and once more for 0 and 2, who did not deliver: all have sent their rows."""
    assembly = assemble(load(None, [*small, *NOISE, "learn.rounds=1"]))
    fleet = AccountedFleet(assembly.fleet, assembly, [])
    fleet.select(0)
    none = dict.fromkeys(
        ("finish", "upload_s", "away_s", "bytes_up", "bytes_down", "payload_up", "payload_down"), ()
    )
    none |= dict.fromkeys(("cuts", "bits_up", "bits_down"), ())
    measured = ServedRound(seconds=1.0, openings=2, server_s=0.0, asked=(0, 1, 2), times=(2, 1, 1), **none)
    record = RoundRecord(round=0, loss=0.0, participants=(0,), measured=measured)
    fleet._asked = {0, 1}
    mu = fleet.after(record).spent.mu
    assert mu[0] == pytest.approx(math.sqrt(2) * mu[1]) and mu[1] > 0 and mu[2] > 0


def test_global_draws_are_of_the_devices_of_the_round(small, tmp_path):
    """Two of three devices share a step's rows, so a sample of theirs comes oftener than of the whole fleet."""
    job = load(
        None,
        [
            *small,
            *NOISE,
            "data.sampling=global",
            "fleet.selected=2",
            "learn.local_steps=7",
            "learn.rounds=1",
        ],
    )
    sflam.train(job, tmp_path / "run")
    held = [len(part) for part in parts_of(job)]
    (record,) = history.read(tmp_path / "run" / "history.jsonl")[1]
    pool = sum(held[device] for device in record.participants)
    visits = most_visits(pool, 2 * job.learn.batch, 7, 0)
    assert visits > most_visits(sum(held), 2 * job.learn.batch, 7, 0)
    found = record.spent.mu
    assert [found[device] for device in record.participants] == pytest.approx(
        [math.sqrt(visits * TOKENS / 4)] * 2
    )


def test_a_job_without_defences_is_named_and_written_as_before():
    job = config.Job()
    assert "privacy" not in plain(job) and "[privacy]" not in to_toml(job)
    noisy = load(None, NOISE)
    assert digest(noisy) != digest(job) and "noise = 4.0" in to_toml(noisy)
    assert load(None, config.overrides(noisy)) == noisy


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        (("privacy.clip=1",), {"activations have no noise", "labels go"}),
        ((), {"labels go", "what devices train goes up"}),
        (("model.labels=device",), {"the mean loss", "gradients of the loss", "what devices train"}),
        (
            (
                "model.labels=device",
                "privacy.clip_gradients=1",
                "privacy.adapters=user",
                "learn.local_steps=1",
            ),
            {"the mean loss"},
        ),
        (
            (
                "model.labels=device",
                "privacy.clip_gradients=1",
                "privacy.adapters=user",
                "learn.local_steps=2",
            ),
            {"the mean loss", "shows in the activations of the next"},
        ),
    ],
)
def test_epsilon_is_of_a_sample_only_where_all_of_it_is_noisy(settings, reasons):
    noisy = () if settings == ("privacy.clip=1",) else NOISE
    what, found = covers(load(None, [*noisy, *settings]), True)
    assert what == ("adapters only" if not noisy else "activations only")
    assert all(any(reason in line for line in found) for reason in reasons if noisy)
    assert not noisy or len(found) == len(reasons)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("privacy.noise=1",), "privacy.noise is 1.0; noise is in units of privacy.clip; set that above 0"),
        (("privacy.clip=-1",), "privacy.clip is -1.0; it must be 0 or more"),
        (("privacy.delta=0",), "privacy.delta is 0.0; it must be in (0, 1)"),
        (("privacy.adapters=some",), "choose one of none, user"),
        (("privacy.clip=1", "learn.method=fedlora"), "this method has no cut to guard"),
        (("privacy.clip=1", "quant.delta=true"), "noise on noise"),
        (("privacy.adapters=user", "quant.adapters_scale=common"), "would cut noise off"),
        (("privacy.adapters=user", "learn.method=sl"), "not its change"),
        (("privacy.clip_gradients=1",), 'model.labels = "device"'),
        (("privacy.noise_adapters=2",), 'privacy.adapters = "user"'),
        (("privacy.delta=1e-6",), "there is no noise"),
    ],
)
def test_what_does_not_go_together_is_one_line(settings, named):
    with pytest.raises(ConfigError) as refusal:
        check(load(None, settings))
    assert named in str(refusal.value) and "\n" not in str(refusal.value)
