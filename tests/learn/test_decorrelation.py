"""Distance correlation at the cut: its value, its gradient, and that training against it lowers it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from sflam.codec.guard import guard_of
from sflam.learn.decorrelation import Decorrelation, correlation_of
from sflam.learn.examples import Minibatch
from sflam.model.adapters import state_of
from sflam.privacy.settings import PrivacySettings
from tests.learn.builders import LEARN, adapted, local_fleet, run


def by_hand(x, z):
    """The definition, row by row, in NumPy."""
    a, b = cdist(x, x), cdist(z, z)

    def centred(d):
        return d - d.mean(0)[None, :] - d.mean(1)[:, None] + d.mean()

    a, b = centred(a), centred(b)
    own = (a * a).mean() * (b * b).mean()
    return np.sqrt(max(0.0, (a * b).mean()) / np.sqrt(own)) if own > 0 else 0.0


def images(x):
    return Minibatch({"pixel_values": torch.from_numpy(x)}, None, torch.zeros(len(x), dtype=torch.long))


def texts(ids, lengths):
    return Minibatch({"input_ids": ids}, lengths, torch.zeros(len(ids), dtype=torch.long))


@given(st.integers(2, 12), st.integers(0, 2**30))
def test_it_is_the_definition(rows, seed):
    draw = np.random.default_rng(seed)
    x, z = draw.normal(size=(rows, 1, 2, 3)), draw.normal(size=(rows, 4, 5))
    found = float(correlation_of(images(x), torch.from_numpy(z)))
    assert found == pytest.approx(by_hand(x.reshape(rows, -1), z.reshape(rows, -1)), abs=1e-9)
    assert 0 <= found <= 1 + 1e-9


def test_a_rotation_has_all_of_it_and_a_constant_none():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(9, 1, 2, 3))
    turn = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    turned = torch.from_numpy(x.reshape(9, 6) @ turn).unsqueeze(1)
    assert float(correlation_of(images(x), turned)) == pytest.approx(1.0)
    assert float(correlation_of(images(x), torch.ones(9, 1, 6, dtype=torch.float64))) == 0
    gradient = Decorrelation(2.0).gradient(images(x), torch.ones(9, 1, 6, dtype=torch.float64))
    assert gradient.shape == (9, 1, 6) and not gradient.any()
    one = Decorrelation(2.0).gradient(images(x[:1]), turned[:1])
    assert not one.any(), "a single row is correlated with nothing"


def test_texts_are_looked_at_token_by_token_and_padding_is_not():
    ids = torch.tensor([[3, 5, 3, 0], [5, 7, 9, 3]])
    lengths, hidden = torch.tensor([3, 4]), torch.randn(2, 4, 6, dtype=torch.float64)
    tokens = torch.tensor([3, 5, 3, 5, 7, 9, 3])
    sent = torch.cat([hidden[0, :3], hidden[1]])
    one_hot = torch.nn.functional.one_hot(tokens, 10).double()
    found = float(correlation_of(texts(ids, lengths), hidden))
    assert found == pytest.approx(by_hand(one_hot.numpy(), sent.numpy()))
    gradient = Decorrelation(1.0).gradient(texts(ids, lengths), hidden)
    assert gradient[0, :3].any() and not gradient[0, 3].any()


def test_of_many_tokens_every_so_many_th_counts():
    ids = torch.randint(0, 50, (20, 60))
    hidden = torch.randn(20, 60, 3, dtype=torch.float64)
    gradient = Decorrelation(1.0).gradient(texts(ids, None), hidden)
    looked_at = gradient.flatten(0, 1).any(1).nonzero()[:, 0]
    assert looked_at.tolist() == list(range(0, 1200, 3))


def test_its_gradient_is_that_of_differences():
    draw = np.random.default_rng(1)
    batch, z = images(draw.normal(size=(5, 1, 2, 2))), torch.from_numpy(draw.normal(size=(5, 2, 3)))
    assert torch.autograd.gradcheck(lambda x: correlation_of(batch, x), z.requires_grad_())
    found = Decorrelation(3.0).gradient(batch, z)
    (wanted,) = torch.autograd.grad(3.0 * correlation_of(batch, z), z)
    assert torch.equal(found, wanted)


def correlations(fleet, state):
    """dCor of every device's first samples with its activations, at its cut, from the adapters ``state``."""
    fleet.devices.protect(None)
    for device in fleet.devices.segment.stack.seated:
        fleet.devices.segment.stack.write(device, state)
    batches = {device: fleet.examples.take(part[:8]) for device, part in enumerate(fleet.parts)}
    hidden = fleet.devices.forward(batches, dict.fromkeys(batches, 0))
    return [float(correlation_of(batches[device], hidden[device].double())) for device in batches]


@pytest.mark.parametrize("kind", ["vit", "bert"])
@pytest.mark.parametrize("labels", ["server", "device"])
def test_devices_that_train_against_it_send_less_of_it(kind, labels):
    found = {}
    for weight in (0.0, 20.0):
        backbone, model, examples = adapted(kind)
        guard = guard_of(PrivacySettings(distance_correlation=weight), 3)
        parts = [np.arange(8), np.arange(8, 16)]
        learn = replace(LEARN, rounds=6, batch=8, local_steps=4, lr=0.01)
        fleet = local_fleet(backbone, model, examples, parts, cut=2, guard=guard, labels=labels, learn=learn)
        _, state = run(fleet, state_of(model), 6)
        found[weight] = correlations(fleet, state)
    assert all(less < 0.97 * plain for less, plain in zip(found[20.0], found[0.0], strict=True)), found
    assert guard_of(PrivacySettings(), 3) is None
