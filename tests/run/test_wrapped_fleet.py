"""A fleet of the user's own around the job's: it trains with the plan's bits, resumes as itself, and is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import sflam
from sflam.config import load
from sflam.errors import ConfigError, RunError
from sflam.learn.fleet import FleetAround
from sflam.simulate.fleet import SimulatedFleet
from tests.simulate.builders import timeless

BITS = (
    "network.simulate=true",
    "learn.local_steps=0",
    'plan.optimize=["clock","bits"]',
    "plan.sensitivity=0.3",
)
SERVERS = ("fleet.cuts=[1,2,3]", "fleet.servers=[0,1,-1]", "fleet.bits_up=[3,4,5]")


class Watcher(FleetAround):
    """Changes nothing."""


class ServerMomentum(FleetAround):
    """FedAvgM: the average moves on by what it moved before."""

    def __init__(self, inner: Any, beta: float = 0.9) -> None:
        super().__init__(inner)
        self.beta = beta
        self.start: dict[str, torch.Tensor] = {}
        self.velocity: dict[str, torch.Tensor] = {}

    def download(self, round: int, devices: Any, state: Any) -> int:
        self.start = state
        return super().download(round, devices, state)

    def average(self, round: int, devices: Any, steps: Any) -> Any:
        found = super().average(round, devices, steps)
        moved = {name: found.state[name] - self.start[name] for name in found.state}
        self.velocity = {
            name: self.beta * self.velocity[name] + moved[name] if self.velocity else moved[name]
            for name in moved
        }
        return replace(found, state={name: self.start[name] + self.velocity[name] for name in moved})

    def state(self) -> dict[str, Any]:
        return super().state() | {"velocity": dict(self.velocity)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.velocity = dict(state["velocity"])


def finished(small: Any, folder: Path, around: Any = None, *settings: str) -> Any:
    run = sflam.start(load(None, [*small, *settings]), folder, around=around)
    list(run.rounds())
    return run


@pytest.mark.parametrize(
    "settings", [BITS, SERVERS, (*BITS, "fleet.selected=2")], ids=["bits", "servers", "selected"]
)
def test_it_trains_with_the_plans_bits_cuts_and_servers(small, tmp_path, settings) -> None:
    plain = finished(small, tmp_path / "plain", None, *settings)
    wrapped = finished(small, tmp_path / "wrapped", Watcher, *settings)
    assert timeless(wrapped.records) == timeless(plain.records)
    assert all(torch.equal(wrapped.state[name], plain.state[name]) for name in plain.state)
    codes = [record.code_bytes for record in plain.records]
    assert codes != [record.code_bytes for record in finished(small, tmp_path / "eight").records]


def test_momentum_is_felt_and_the_result_names_who_trained(small, tmp_path) -> None:
    plain = finished(small, tmp_path / "plain", None, *BITS)
    run = finished(small, tmp_path / "momentum", ServerMomentum, *BITS)
    assert [record.bytes_up for record in run.records] == [record.bytes_up for record in plain.records]
    assert any(not torch.equal(run.state[name], plain.state[name]) for name in plain.state)
    assert run.finish().fleet == "ServerMomentum" and plain.finish().fleet == "LocalFleet"
    assert json.loads((tmp_path / "momentum" / "result.json").read_text())["fleet"] == "ServerMomentum"


@pytest.mark.parametrize("settings", [(), BITS], ids=["trained", "simulated"])
def test_it_resumes_as_itself_or_not_at_all(small, tmp_path, settings) -> None:
    settings = (*settings, "learn.rounds=3")
    whole = finished(small, tmp_path / "whole", ServerMomentum, *settings)
    run = sflam.start(load(None, [*small, *settings]), tmp_path / "stopped", around=ServerMomentum)
    next(run.rounds())
    for other in (None, Watcher):
        with pytest.raises(RunError, match=r"trained by the fleet 'ServerMomentum'.*around="):
            sflam.resume(tmp_path / "stopped", around=other)
    run = sflam.resume(tmp_path / "stopped", around=ServerMomentum)
    list(run.rounds())
    assert timeless(run.records) == timeless(whole.records)
    assert all(torch.equal(run.state[name], whole.state[name]) for name in whole.state)


def test_half_a_fleet_is_refused_before_anything_is_written(small, tmp_path) -> None:
    class Half:
        def __init__(self, inner: Any) -> None:
            self.select = inner.select

    with pytest.raises(ConfigError, match=r"Half is no fleet: it lacks .*place.*sflam\.FleetAround"):
        sflam.start(load(None, [*small]), tmp_path / "run", around=Half)
    assert not (tmp_path / "run").exists()


def test_every_question_reaches_the_wrapped_fleet() -> None:
    """A fleet around another answers nothing of the protocol with the protocol's own default."""
    asked = {name for name in vars(sflam.FleetAround.__mro__[1]) if not name.startswith("_")}
    assert asked - {"name"} <= set(vars(FleetAround))
    assert {"before", "average", "after", "state", "restore", "place", "select"} <= set(vars(SimulatedFleet))
