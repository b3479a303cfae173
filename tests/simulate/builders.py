"""Short simulated runs for tests."""

from __future__ import annotations

from dataclasses import replace

import torch

from sflam import config
from sflam.run import start as jobs

SIMULATED = ("network.simulate=true", "learn.local_steps=0", "quant.bits_adapters=32")
SQUARE = (
    "fleet.devices=5",
    "network.scenario=square",
    "network.servers=2",
    "network.side_m=900",
    "network.bandwidth_mhz=2",
    "network.server_kappa=1e-28",
    "network.server_flops_per_cycle=1024",
    'network.profiles={"raspberry-pi-4"=3, "jetson-orin-nano"=2}',
    "plan.stability_weight=0",
)
"""Five users between two servers."""


def started(small, folder, *settings):
    """Return a simulated run on the tiny model, not yet run."""
    return jobs.start(config.load(None, [*small, *SIMULATED, *settings]), folder)


def ran(small, folder, *settings):
    """Return a simulated run after its last round."""
    run = started(small, folder, *settings)
    assert len(list(run.rounds())) == run.job.learn.rounds
    return run


def timeless(records):
    """Return the records without the host's time."""
    return [
        replace(record, seconds=0.0, planning_s=0.0, measuring_s=0.0, evaluating_s=0.0) for record in records
    ]


def assert_resumes(small, folder, settings, *, stops):
    """A run that stops after so many rounds, and again, and is resumed, is the run that was never stopped."""
    whole = ran(small, folder / "whole", *settings)
    run = started(small, folder / "stopped", *settings)
    for stop in stops:
        for record in run.rounds():
            if record.round + 1 == stop:
                break
        run = jobs.resume(folder / "stopped")
    list(run.rounds())
    assert timeless(run.records) == timeless(whole.records)
    assert run.state.keys() == whole.state.keys()
    assert all(torch.equal(run.state[name], whole.state[name]) for name in whole.state)
