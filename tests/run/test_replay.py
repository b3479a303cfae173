"""Rounds that are charged anew: what a simulation with the other settings would have charged, and recorded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sflam import config
from sflam.errors import ConfigError, RunError
from sflam.records.history import RoundRecord
from sflam.run.replay import Recording, learning, replay
from tests.simulate.builders import SQUARE, ran, timeless

NETWORK = (
    "network.bandwidth_mhz=3",
    "network.downlink_mbps=5",
    "network.server_kappa=1e-27",
    "plan.latency_weight=0.8",
)
"""Another network and another weight than the run's."""
METHODS = {
    "sflam": (),
    "mixed": ("learn.method=sflam-mixed",),
    "one trunk": ("learn.method=sfl-v2",),
    "relay": ("learn.method=sl",),
    "whole": ("learn.method=fedlora",),
    "some, by samples": ("fleet.selected=2", "data.sampling=global"),
    "averaged halves": ("learn.device_half=averaged", "learn.trunk=shared"),
    "labels at home": ("model.labels=device",),
    "ranks": ("fleet.ranks=[1, 2, 2]",),
    "activations": ("plan.counts=activations",),
    "codes of variable size": ("quant.scheme=topk",),
    "adapters in codes": ("quant.bits_adapters=8",),
}
CHANGES = {
    "network": NETWORK,
    "allocator": ("plan.method=equal", "plan.optimize=[]"),
    "airtime": ("network.access=airtime", "network.downlink_mbps=20"),
    "every other round": ("plan.every=2", "network.idle_always=true"),
}


def charges(records: list[RoundRecord]) -> list[RoundRecord]:
    return timeless(records)


def finished(small, folder, *settings):
    run = ran(small, folder, *settings)
    run.finish()
    return run


@pytest.mark.parametrize("method", METHODS)
def test_a_replay_is_what_a_simulation_charges(small, tmp_path, method):
    """Bit for bit, whatever is trained: with the run's own settings, and with others."""
    settings = (*METHODS[method], "learn.rounds=3", "learn.evaluate_every=0")
    run = finished(small, tmp_path / "run", *settings)
    recording = Recording(tmp_path / "run")
    assert charges(recording.charged(run.job)) == charges(run.records)
    other = ran(small, tmp_path / "other", *settings, *NETWORK)
    assert charges(recording.charged(recording.job_with(NETWORK))) == charges(other.records)
    assert other.records[0].charge.seconds != run.records[0].charge.seconds


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_of_network_and_plan(small, tmp_path, change):
    run = finished(small, tmp_path / "run", "learn.rounds=3", "learn.evaluate_every=0")
    recording = Recording(tmp_path / "run")
    other = ran(small, tmp_path / "other", "learn.rounds=3", "learn.evaluate_every=0", *CHANGES[change])
    found = recording.charged(recording.job_with(CHANGES[change]))
    assert charges(found) == charges(other.records)
    assert charges(recording.charged(run.job)) == charges(
        run.records
    )  # one replay leaves nothing to the next


def test_several_servers(small, tmp_path):
    settings = (
        *SQUARE,
        "learn.method=sflam",
        "learn.rounds=2",
        "learn.evaluate_every=0",
        "fleet.plan=computed",
    )
    run = finished(small, tmp_path / "run", *settings)
    recording = Recording(tmp_path / "run")
    assert charges(recording.charged(run.job)) == charges(run.records)


def test_a_written_replay_is_a_finished_run(small, tmp_path, cli):
    finished(small, tmp_path / "run", "learn.rounds=2")
    records = replay(tmp_path / "run", NETWORK, tmp_path / "new")
    again = Recording(tmp_path / "new")
    assert again.records == records
    assert again.result["virtual_s"] == sum(record.charge.seconds for record in records)
    assert again.result["accuracy"] == Recording(tmp_path / "run").result["accuracy"]
    for name in ("adapter", "partition.json", "curves.png", "config.toml"):
        assert (tmp_path / "new" / name).exists()
    assert cli("report", tmp_path / "new").code == 0
    with pytest.raises(RunError, match="already holds a run"):
        replay(tmp_path / "run", NETWORK, tmp_path / "new")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("learn.lr=0.1",), "learn.lr would change what is learnt"),
        (("quant.bits_up=4", "seed=3"), "seed, quant.bits_up|quant.bits_up, seed"),
        (("network.simulate=false",), "network.simulate = false charges nothing"),
        (
            ("plan.measure_every=1", 'plan.optimize=["bits"]'),
            "plan.measure_every = 1 measures while it trains",
        ),
        (("network.calibrate=true",), "network.calibrate = true measures while it trains"),
        (("plan.method=cut", "plan.subchannels=9"), "do not go together"),
    ],
)
def test_what_would_learn_something_else_is_refused(small, tmp_path, settings, message):
    finished(small, tmp_path / "run", "learn.rounds=1")
    with pytest.raises(ConfigError, match=message):
        replay(tmp_path / "run", settings)


def test_plans_that_would_have_trained_something_else_are_refused(small, tmp_path):
    run = finished(small, tmp_path / "run", "learn.rounds=1", "network.circuit_power_w=0.2")
    recording = Recording(tmp_path / "run")
    with pytest.raises(RunError, match=r"round 1: the plan gives device 0 2 bits up where 8 was trained"):
        recording.charged(recording.job_with(['plan.optimize=["clock", "bits"]']))
    cap = sorted(run.records[0].charge.device_j)[1] * 0.2
    with pytest.raises(RunError, match=r"round 1: the plan leaves out device \d, which trained"):
        recording.charged(recording.job_with([f"plan.energy_cap={cap}", "plan.late=drop"]))


def test_what_is_no_finished_simulation_is_refused(run, small, tmp_path):
    with pytest.raises(RunError, match="was trained without a network"):
        replay(run)
    ran(small, tmp_path / "half", "learn.rounds=1")
    with pytest.raises(RunError, match="holds no finished run"):
        replay(tmp_path / "half")
    with pytest.raises(RunError, match="holds no run"):
        replay(tmp_path / "none")


def test_a_record_that_does_not_add_up_is_refused(small, tmp_path):
    run = finished(small, tmp_path / "run", "learn.rounds=1")
    recording = Recording(tmp_path / "run")
    recording.records = [replace(run.records[0], bytes_up=run.records[0].bytes_up + 1)]
    with pytest.raises(RunError, match="were recorded"):
        recording.charged(run.job)


def test_the_command(small, tmp_path, cli):
    finished(small, tmp_path / "run", "learn.rounds=2")
    found = cli("replay", tmp_path / "run", "--set", "network.bandwidth_mhz=1", "--json")
    assert found.code == 0
    values = json.loads(found.out[-1])
    assert values["replayed"]["virtual_s"] > values["recorded"]["virtual_s"]
    assert values["replayed"]["accuracy"] == values["recorded"]["accuracy"]
    refused = cli("replay", tmp_path / "run", "--set", "learn.lr=1")
    assert refused.code == 2 and len(refused.err) == 1


def test_jobs_that_learn_alike_have_one_digest():
    job = config.load(None, ["network.simulate=true"])
    alike = config.load(None, ["network.simulate=true", *NETWORK])
    assert learning(job) == learning(alike) != learning(config.load(None, ["quant.bits_up=4"]))
