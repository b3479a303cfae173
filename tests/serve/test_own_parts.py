"""Ranks of devices' own, and heads of their own where the server has them: served is simulated."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.learn.settings import LearnSettings
from sflam.model.adapters import state_of
from tests.learn import builders
from tests.learn.builders import IDENTITY, adapted, assert_equal_states, local_fleet, parts_of
from tests.serve.threads import KINDS, SIZES, Rig

LEARN = LearnSettings(
    rounds=2,
    batch=2,
    local_steps=3,
    lr=1e-2,
    clip=0.5,
    state="keep",
    optimizer="adam",
    device="cpu",
    canonical=True,
)
RANKS = (1, 2, 1)

pytestmark = pytest.mark.usefixtures("one_thread")


def expect_bits(found, wanted):
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def both(tmp_path, kind, lean=(), **job):
    """Return the simulated fleet and its outcome, and the server and its outcome."""
    backbone, model, examples = adapted(kind)
    local = local_fleet(backbone, model, examples, parts_of(SIZES), **job)
    records, state = builders.run(local, state_of(model), job["learn"].rounds)
    rig = Rig(tmp_path, kind, lean=lean, **job)
    return (local, records, state), (rig, *rig.run())


@KINDS
@pytest.mark.parametrize(
    ("method", "labels"), [("sflam", "server"), ("sflam-mixed", "server"), ("sflam", "device")]
)
def test_devices_of_their_own_ranks(tmp_path, method, labels, lean):
    """A device of a lower rank holds and sends that much; the server pads it with zeros as a simulation does."""
    job = {"cuts": (1, 1, 2), "labels": labels, "quant": IDENTITY, "ranks": RANKS}
    (_, records, state), (rig, served, found) = both(
        tmp_path, "bert", lean, learn=replace(LEARN, method=method), **job
    )
    assert_equal_states(found, state)
    sizes = [contract.adapters for contract in rig.contracts.values()]
    assert sizes[0] < sizes[1] < 2 * sizes[0] + 1, "the second is twice the first, but what has no rank"
    for mine, theirs in zip(served, records, strict=True):
        assert mine.adapter_bytes_up == theirs.adapter_bytes_up > 0
        assert mine.adapter_bytes_down == theirs.adapter_bytes_down


@KINDS
def test_a_head_of_each_device_s_own(tmp_path, lean):
    job = {"cuts": (1, 0, 2), "labels": "server", "quant": IDENTITY, "learn": replace(LEARN, personal="head")}
    (local, _, state), (rig, _, found) = both(tmp_path, "bert", lean, **job)
    assert_equal_states(found, state) if lean else expect_bits(found, state)
    own, theirs = rig.fleet.own_parts(), local.own_parts()
    assert own.keys() == theirs.keys() == set(range(len(SIZES)))
    for device, parts in own.items():
        assert parts.keys() == theirs[device].keys() != set()
        assert_equal_states(parts, theirs[device]) if lean else expect_bits(parts, theirs[device])
        assert any(not torch.equal(parts[name], state[name]) for name in parts)
