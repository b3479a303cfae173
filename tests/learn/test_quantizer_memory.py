"""What a quantizer with memory left out: of each device and leg apart, kept through a stop, gone in a new place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sflam
from sflam.codec.legs import DOWN, HEAD_DOWN, HEAD_UP, UP
from sflam.learn.exchange import Exchange, Position
from sflam.learn.split_fleet import LocalFleet
from sflam.plan import Placement
from sflam.run.run import Run
from tests.simulate.builders import timeless

TOPK = (
    "quant.scheme=topk",
    "quant.bits_up=4",
    "quant.bits_down=2",
    "learn.rounds=3",
    "learn.evaluate_every=0",
)
LEGS = {"server": {DOWN}, "device": {DOWN, HEAD_UP}}


def started(small: tuple[str, ...], folder: Path, *settings: str) -> Run:
    return sflam.start(sflam.load(None, [*small, *TOPK, *settings]), folder)


def halves(run: Run) -> LocalFleet:
    assert run.assembly.halves is not None
    return run.assembly.halves


def memory(run: Run) -> dict[int, dict[int, np.ndarray]]:
    return halves(run).exchange.left


def assert_same_memory(one: Run, other: Run) -> None:
    mine, theirs = memory(one), memory(other)
    assert mine.keys() == theirs.keys()
    for device, legs in mine.items():
        assert legs.keys() == theirs[device].keys()
        assert all(left.tobytes() == theirs[device][leg].tobytes() for leg, left in legs.items())


@pytest.mark.parametrize("labels", LEGS)
@pytest.mark.parametrize("selected", [0, 2])
def test_a_run_that_stops_and_goes_on_is_the_run_that_never_stopped(
    small: tuple[str, ...], tmp_path: Path, labels: str, selected: int
) -> None:
    settings = f"model.labels={labels}", f"fleet.selected={selected}"
    whole = started(small, tmp_path / "whole", *settings)
    list(whole.rounds())
    stopped = started(small, tmp_path / "stopped", *settings)
    next(stopped.rounds())
    again = sflam.resume(tmp_path / "stopped")
    assert memory(again) and memory(again) is not memory(stopped)
    assert_same_memory(again, stopped)
    list(again.rounds())
    assert timeless(again.records) == timeless(whole.records)
    assert all(torch.equal(again.state[name], whole.state[name]) for name in whole.state)
    assert_same_memory(again, whole)
    assert {leg for legs in memory(whole).values() for leg in legs} == LEGS[labels]


def test_without_its_memory_a_resumed_run_would_be_another(small: tuple[str, ...], tmp_path: Path) -> None:
    whole = started(small, tmp_path / "whole")
    list(whole.rounds())
    forgetful = started(small, tmp_path / "forgetful")
    for record in forgetful.rounds():
        if record.round == 0:
            halves(forgetful).exchange.remember({})
    assert any(not torch.equal(forgetful.state[name], whole.state[name]) for name in whole.state)


def test_devices_share_no_memory(small: tuple[str, ...], tmp_path: Path) -> None:
    run = started(small, tmp_path / "run", "fleet.selected=2")
    before: dict[int, bytes] = {}
    for record in run.rounds():
        found = {device: legs[DOWN].tobytes() for device, legs in memory(run).items()}
        resting = before.keys() - set(record.participants)
        assert all(found[device] == before[device] for device in resting)
        assert all(found[device] != before.get(device) for device in record.participants)
        before = found
    assert set(before) == {0, 1, 2} and len(set(before.values())) == 3


def test_a_device_in_a_new_place_starts_anew(small: tuple[str, ...], tmp_path: Path) -> None:
    run = started(small, tmp_path / "run")
    next(run.rounds())
    fleet = halves(run)
    fleet.place([Placement(device=0, cut=fleet.placements[0].cut, bits_up=3, bits_down=3)])
    assert memory(run).keys() == {0, 1, 2}  # other bits are no other place
    fleet.place([Placement(device=0, cut=2, bits_up=3, bits_down=3)])
    assert memory(run) == {}


def test_activations_are_not_remembered_and_what_is_kept_is_a_copy() -> None:
    exchange = Exchange("topk", 0, {0: (2, 2)})
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    for leg in (UP, HEAD_DOWN):
        exchange.token_message(Position(0, 0, 0), leg, x, None)
    assert exchange.left == {}
    exchange.token_message(Position(0, 0, 0), DOWN, x, None)
    kept = exchange.memory()
    assert exchange.with_bits({0: (3, 3)}).left is exchange.left
    exchange.token_message(Position(0, 1, 0), DOWN, x, None)
    assert not np.array_equal(kept[0][DOWN].numpy(), exchange.left[0][DOWN])
    exchange.remember(kept)
    assert np.array_equal(kept[0][DOWN].numpy(), exchange.left[0][DOWN])


def test_messages_are_within_those_of_uniform_and_nothing_counts_as_saved(
    small: tuple[str, ...], tmp_path: Path
) -> None:
    topk, uniform = (
        next(started(small, tmp_path / scheme, f"quant.scheme={scheme}").rounds())
        for scheme in ("topk", "uniform")
    )
    assert 0 < topk.code_bytes <= uniform.code_bytes and topk.saved_bytes == 0
    assert topk.bytes_up <= uniform.bytes_up and topk.bytes_down <= uniform.bytes_down
