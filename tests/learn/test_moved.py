"""How far a device moved what it trained: the norm by hand, in every fleet's history."""

from __future__ import annotations

import math

import pytest
import torch

import sflam
from sflam import config
from sflam.learn.moved import moved
from sflam.records import history


def test_the_norm_is_hand_arithmetic() -> None:
    start = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]]), "c": torch.tensor([7.0])}
    states = {
        4: {"a": torch.tensor([4.0, 2.0]), "b": torch.tensor([[-1.0]])},
        2: {"b": torch.tensor([[3.0]]), "c": torch.tensor([5.0])},
        1: {},
    }
    assert moved(start, states) == {4: 5.0, 2: 2.0, 1: 0.0}


@pytest.mark.parametrize("method", ["sflam", "fedlora", "sflam-mixed"])
def test_histories_have_it(small, tmp_path, method) -> None:
    sflam.train(config.load(None, [*small, f"learn.method={method}", "fleet.selected=2"]), tmp_path / "run")
    for record in history.read(tmp_path / "run" / "history.jsonl")[1]:
        assert len(record.device_moved) == len(record.participants) == 2
        assert all(
            length is not None and length > 0 and math.isfinite(length) for length in record.device_moved
        )


def test_under_masks_the_server_knows_none(small, tmp_path) -> None:
    masks = ("fleet.devices=3", "privacy.secure_aggregation=true", "quant.adapters_scale=common")
    sflam.train(config.load(None, [*small, *masks]), tmp_path / "run")
    assert all(not record.device_moved for record in history.read(tmp_path / "run" / "history.jsonl")[1])
