"""Devices that keep tokens at home: served is simulated, and a device that dies draws the same again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sflam.codec.guard import guard_of
from sflam.codec.settings import QuantSettings
from sflam.privacy.settings import PrivacySettings
from tests.learn.builders import LEARN, assert_equal_states
from tests.serve.test_phases import Fault, faulty
from tests.serve.threads import LEAN, Rig, simulated

DROPPED = PrivacySettings(drop_tokens=0.5)
LOOP = replace(LEARN, rounds=2, local_epochs=1, local_steps=2, canonical=True)
JOB = {
    "cuts": (1, 2, 1),
    "quant": QuantSettings(bits_up=6, bits_down=6),
    "learn": LOOP,
    "guard": guard_of(DROPPED, 3),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_served_is_simulated_bit_for_bit(tmp_path, labels, kind):
    job = JOB | {"labels": labels}
    wanted, state = simulated(kind, **job)
    records, found = Rig(tmp_path, kind, **job).run()
    assert all(torch.equal(found[name], state[name]) for name in state)
    plain = simulated(kind, **(job | {"guard": None}))
    assert not any(torch.equal(plain[1][name], state[name]) for name in state)
    for mine, theirs, whole in zip(records, wanted, plain[0], strict=True):
        assert mine.bytes_up == theirs.bytes_up < 0.9 * whole.bytes_up
        assert mine.bytes_down == theirs.bytes_down < 0.9 * whole.bytes_down


@pytest.mark.parametrize("labels", ["server", "device"])
def test_with_noise_and_clipped_samples_and_a_draw_for_the_whole_run(tmp_path, labels):
    """With a device that dies within a round: it draws the same tokens again."""
    privacy = PrivacySettings(
        drop_tokens=0.4, drop_draw="sample", clip=3.0, noise=0.1, sample_clip=0.02, sample_noise=0.5
    )
    job = JOB | {"labels": labels, "guard": guard_of(privacy, 3)}
    _, state = simulated("bert", **job)
    where = "steps/1" if labels == "server" else "steps/1/backward"
    rig = Rig(tmp_path, "bert", links={1: faulty(Fault.DIE_AFTER_ANSWER, where)}, **job)
    _, found = rig.run()
    assert rig.deaths == 1
    assert all(torch.equal(found[name], state[name]) for name in state)
    other = simulated("bert", **(job | {"guard": guard_of(replace(privacy, drop_draw="step"), 3)}))
    assert not any(torch.equal(other[1][name], state[name]) for name in state)


@pytest.mark.parametrize("draw", ["step", "sample"])
@pytest.mark.parametrize("labels", ["server", "device"])
@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_a_device_without_torch_sends_the_same_tokens(tmp_path, kind, labels, draw):
    """With raw floats, so that rounding alone differs."""
    guard = guard_of(replace(DROPPED, drop_draw=draw), 3)
    job = JOB | {"labels": labels, "quant": QuantSettings(scheme="identity"), "guard": guard}
    wanted, state = simulated(kind, **job)
    records, found = Rig(tmp_path, kind, lean=LEAN, **job).run()
    assert_equal_states(found, state)
    assert [each.bytes_up for each in records] == [each.bytes_up for each in wanted]
    assert [each.bytes_down for each in records] == [each.bytes_down for each in wanted]
