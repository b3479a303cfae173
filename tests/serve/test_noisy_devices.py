"""Devices that clip and add noise: served is simulated, and a device's secret is its own and is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam import config
from sflam.codec.guard import guard_of
from sflam.codec.legs import UP
from sflam.codec.settings import QuantSettings
from sflam.errors import ServeError
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.link.noise_secret import FILE, own_guard
from sflam.privacy.settings import PrivacySettings
from tests.learn.builders import LEARN, assert_equal_states
from tests.serve.test_phases import Fault, faulty
from tests.serve.threads import KINDS, LEAN, Rig, simulated

NOISY = PrivacySettings(clip=3.0, noise=0.1, clip_gradients=0.05, adapters="user", noise_adapters=0.01)
LOOP = replace(LEARN, rounds=2, local_epochs=1, local_steps=2, canonical=True)
JOB = {
    "cuts": (1, 2, 1),
    "quant": QuantSettings(bits_up=6, bits_down=6),
    "learn": LOOP,
    "guard": guard_of(NOISY, 3),
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("labels", ["server", "device"])
def test_served_is_simulated_bit_for_bit(tmp_path, labels):
    job = JOB | {"labels": labels}
    wanted, state = simulated("bert", **job)
    records, found = Rig(tmp_path, "bert", **job).run()
    assert all(torch.equal(found[name], state[name]) for name in state)
    plain = simulated("bert", **(job | {"guard": None}))
    assert not any(torch.equal(plain[1][name], state[name]) for name in state)
    for mine, theirs, unguarded in zip(records, wanted, plain[0], strict=True):
        assert (mine.bytes_up, mine.adapter_bytes_up) == (theirs.bytes_up, theirs.adapter_bytes_up)
        assert mine.bytes_up == unguarded.bytes_up


@pytest.mark.parametrize(("labels", "kind"), [("server", "vit"), ("device", "bert")])
def test_served_is_simulated_bit_for_bit_where_devices_train_against_what_they_send(tmp_path, labels, kind):
    privacy = replace(NOISY, adapters="none", distance_correlation=2.0)
    job = JOB | {"labels": labels, "guard": guard_of(privacy, 3)}
    _, state = simulated(kind, **job)
    _, found = Rig(tmp_path, kind, **job).run()
    assert all(torch.equal(found[name], state[name]) for name in state)
    without = guard_of(replace(privacy, distance_correlation=0.0), 3)
    plain = simulated(kind, **(job | {"guard": without}))[1]
    assert not all(torch.equal(plain[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("labels", "sampling", "kind"), [("server", "poisson", "vit"), ("device", "local", "bert")]
)
def test_served_is_simulated_bit_for_bit_where_samples_are_clipped(tmp_path, labels, sampling, kind):
    """With a device that dies within a round, cuts of their own, and noise on both activations and sums."""
    privacy = replace(NOISY, adapters="none", sample_clip=0.02, sample_noise=0.5)
    if labels == "device":
        privacy = replace(privacy, clip_loss=0.5, noise_loss=2.0)
    job = JOB | {"labels": labels, "sampling": sampling, "guard": guard_of(privacy, 3)}
    wanted, state = simulated(kind, **job)
    where = "steps/1" if labels == "server" else "steps/1/backward"
    rig = Rig(tmp_path, kind, links={1: faulty(Fault.DIE_AFTER_ANSWER, where)}, **job)
    records, found = rig.run()
    assert rig.deaths == 1
    assert all(torch.equal(found[name], state[name]) for name in state)
    losses = [record.loss for record in wanted]
    assert [record.loss for record in records] == pytest.approx(losses, rel=1e-6)
    plain = simulated(kind, **(job | {"guard": guard_of(replace(privacy, sample_clip=0, sample_noise=0), 3)}))
    assert not any(torch.equal(plain[1][name], state[name]) for name in state)


@KINDS
def test_a_device_that_dies_sends_the_same_noise_again(tmp_path, lean):
    job = JOB | {"labels": "server"}
    links = {1: faulty(Fault.DIE_AFTER_ANSWER, "steps/1")}
    rig = Rig(tmp_path / "faulty", "bert", links=links, lean=lean, **job)
    _, found = rig.run()
    assert rig.deaths == 1
    calm = Rig(tmp_path / "calm", "bert", lean=lean, **job).run() if lean else simulated("bert", **job)
    assert all(torch.equal(found[name], calm[1][name]) for name in found)


@pytest.mark.slow
def test_devices_without_torch_send_the_noise_of_a_simulation(tmp_path):
    job = JOB | {"labels": "device", "quant": QuantSettings(scheme="identity")}
    _, state = simulated("bert", **job)
    _, found = Rig(tmp_path, "bert", lean=LEAN, **job).run()
    assert_equal_states(found, state, 1e-3)


def test_a_secret_is_made_once_kept_and_left_out_where_all_is_reproducible(tmp_path):
    job = config.load(None, ["privacy.clip=1", "privacy.noise=1"])
    first, again = own_guard(job, tmp_path), own_guard(job, tmp_path)
    assert first == again and len(first.secret) == 32
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0
    assert own_guard(job, tmp_path / "other").secret != first.secret
    public = config.load(None, ["privacy.clip=1", "privacy.noise=1", "privacy.reproducible=true"])
    assert own_guard(public, tmp_path / "none") == guard_of(public.privacy, 0)
    assert own_guard(config.load(None, []), tmp_path / "none") is None and not (tmp_path / "none").exists()
    (tmp_path / FILE).write_bytes(b"short")
    with pytest.raises(ServeError, match="holds 5 bytes, not a secret of 32; choose another --folder"):
        own_guard(job, tmp_path)


def test_a_round_opened_anew_has_noise_of_its_own_with_a_secret_alone():
    x = np.ones((2, 4), np.float32)
    for secret in (b"", b"own"):
        guard = guard_of(NOISY, 3, secret)
        exchange = TokenExchange(NumpyCoder("uniform"), "uniform", 3, 0, 4, 32, (4, 4), guard=guard)
        first, again = (exchange.for_round(4, 4, attempt).guard.tokens(x, UP, 0, 0, 0) for attempt in (1, 2))
        assert np.array_equal(first, again) == (not secret)
