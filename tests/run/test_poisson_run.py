"""``data.draw = "poisson"`` in a run: what is spent by coins, resuming, and what a simulation charges."""

from __future__ import annotations

import numpy as np
import pytest

import sflam
from sflam.config import load
from sflam.cost.privacy_loss import epsilon_of, epsilon_of_coins
from sflam.records import history
from sflam.run.assemble import assemble
from tests.run.finished import expect_resumed_is_whole
from tests.simulate.builders import ran

COINS = ("data.draw=poisson", "learn.batch=4", "learn.local_steps=5", "learn.canonical=true")
NOISE = ("privacy.clip=2", "privacy.noise=4", "privacy.delta=1e-3")
TOKENS = 17


def records(folder):
    return history.read(folder / "history.jsonl")[1]


def test_epsilon_counts_coins_and_a_resumed_run_goes_on_counting(small, tmp_path):
    job = load(None, [*small, *COINS, *NOISE, "learn.rounds=3"])
    expect_resumed_is_whole(job, tmp_path)
    found = [record.spent for record in records(tmp_path / "whole")]
    for number, spent in enumerate(found, start=1):
        for device, part in enumerate(assemble(job).parts):
            q, visit = min(1.0, 4 / len(part)), TOKENS * (2 / 4) ** 2
            wanted = epsilon_of_coins(5 * number, q, visit, 0.0, 1e-3)
            assert spent.epsilon[device] == pytest.approx(wanted)
            assert spent.epsilon[device] <= epsilon_of(np.sqrt(5 * number * visit), 1e-3)
            assert (spent.coins[device], spent.rate[device], spent.mu[device]) == (5 * number, q, 0.0)
    assert any(
        0 in record.device_samples or len(set(record.device_samples)) > 1
        for record in records(tmp_path / "cut")
    )


def test_what_is_certain_counts_beside_the_coins(small, tmp_path):
    user = ("privacy.adapters=user", "privacy.clip_adapters=0.1", "privacy.noise_adapters=2")
    job = load(None, [*small, *COINS, *NOISE, *user, "learn.rounds=2"])
    sflam.train(job, tmp_path / "run")
    last = records(tmp_path / "run")[-1].spent
    for device in range(job.fleet.devices):
        assert last.mu[device] == pytest.approx(np.sqrt(2.0))
        wanted = epsilon_of_coins(10, last.rate[device], TOKENS / 4, 2.0, 1e-3)
        assert last.epsilon[device] == pytest.approx(wanted)


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("learn.method=sfl-v2", "learn.server_update=batched", "learn.weights=samples"),
        ('plan.optimize=["clock", "bits"]', "plan.sensitivity=1"),
        ("fleet.selected=2", "fleet.policy=samples"),
    ],
)
def test_a_simulation_charges_the_rows_that_came(small, tmp_path, more):
    run = ran(small, tmp_path / "run", "data.draw=poisson", "learn.batch=4", "learn.local_steps=5", *more)
    for record in run.records:
        charge = record.charge
        rows = np.array(record.device_samples)
        assert len(set(rows.tolist())) > 1 or len(rows) == 1
        assert charge.charged_s == pytest.approx(charge.predicted_s, rel=1e-9)
        assert charge.charged_j == pytest.approx(charge.predicted_j, rel=1e-9)
        work = run.fleet.planner.workload
        per_row = np.array([work.up_bits(bits) for bits in charge.bits_up]) / run.job.learn.batch
        assert np.allclose(charge.payload_up, per_row * rows)


@pytest.mark.parametrize("method", ["sflam", "sflam-mixed"])
def test_poisson_draws_stand_in_for_the_draws_of_every_method(method):
    more = ["learn.server_update=batched"] * (method == "sflam-mixed")
    job = load(None, [f"learn.method={method}", "data.draw=poisson", *more])
    assert job.sampling == "poisson"
