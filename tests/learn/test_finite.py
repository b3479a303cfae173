"""A guarded trunk learns nothing from what is not finite, and names who sent it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.learn.device import Devices
from sflam.learn.finite import Spoiled
from sflam.learn.frames import Frame
from sflam.learn.server import Trunk
from sflam.model.split import split
from tests.learn.builders import LEARN, adapted, parts_of

LARGEST = 3e38


def frames_and_trunks(update, labels="server", shared=True):
    """Return frames of three devices, and two like trunks that have both learnt from them once."""
    backbone, model, examples = adapted("vit", dtype=torch.float32)
    devices = Devices(split(backbone, model, [1] * 3, labels=labels)[0], [1] * 3, LEARN)
    batches = {k: examples.take(part) for k, part in enumerate(parts_of([4, 2, 3]))}
    hidden = devices.forward(batches, dict.fromkeys(batches, 0))
    kept = labels == "server"
    frames = [Frame(k, 1, hidden[k], None, batch.labels if kept else None) for k, batch in batches.items()]
    learn = replace(LEARN, method="sfl-v2" if shared else "sflam", server_update=update, optimizer="adamw")
    trunks = [
        Trunk(
            split(backbone, model, [1] * 3, shared=shared, labels=labels)[1],
            backbone.task,
            learn,
            shared=shared,
        )
        for _ in range(2)
    ]
    for trunk in trunks:
        trunk.guarded = True
        if kept:
            trunk.step(frames, 5)
    return frames, trunks


def spoilt(frame):
    return replace(frame, hidden=torch.full_like(frame.hidden, LARGEST))


def expect_same(one, other):
    assert torch.equal(one.segment.stack.values, other.segment.stack.values)
    for mine, theirs in zip(one.segment.stack.rows, other.segment.stack.rows, strict=True):
        kept = [trunk.optimizer.state[row] for trunk, row in ((one, mine), (other, theirs))]
        assert kept[0].keys() == kept[1].keys()
        for name in kept[0]:
            assert torch.equal(kept[0][name], kept[1][name]), name


@pytest.mark.parametrize(
    ("update", "shared"), [("sequential", True), ("batched", True), ("mixed", True), ("", False)]
)
def test_a_spoilt_step_changes_nothing_and_names_its_device(update, shared):
    frames, (trunk, untouched) = frames_and_trunks(update, shared=shared)
    with pytest.raises(Spoiled) as found:
        trunk.step([frames[0], spoilt(frames[1]), frames[2]], 6)
    assert found.value.devices == (1,)
    expect_same(trunk, untouched)
    others = [frames[0], frames[2]]
    for one, other in zip(trunk.step(others, 6), untouched.step(others, 6), strict=True):
        assert one.loss == other.loss and torch.equal(one.gradient, other.gradient)
    expect_same(trunk, untouched)


def test_labels_on_devices_a_gradient_that_is_too_large_teaches_nothing():
    frames, (trunk, untouched) = frames_and_trunks("batched", labels="device")
    last = trunk.forward(frames, 6)
    gradients = {device: torch.full_like(out, 0.01) for device, out in last.items()}
    gradients[2] = torch.full_like(last[2], LARGEST)
    with pytest.raises(Spoiled) as found:
        trunk.backward(gradients)
    assert found.value.devices == (2,)
    expect_same(trunk, untouched)
    gradients[2] = torch.zeros_like(last[2])
    trunk.backward(gradients)
    untouched.forward(frames, 6)
    untouched.backward(gradients)
    expect_same(trunk, untouched)
