"""The optimisers in NumPy move as torch's do, through the learner's own schedule and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sflam.device import optimizer as lean
from sflam.device.optimizer import VectorOptimizer, clip
from sflam.errors import RunError
from sflam.learn.optimizers import optimizer as torch_optimizer
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.model.stack import AdapterStack

SIZE, STEPS = 301, 40
KINDS = [
    {"optimizer": "adamw"},
    {"optimizer": "adamw", "weight_decay": 0.1},
    {"optimizer": "adam"},
    {"optimizer": "adam", "weight_decay": 0.1},
    {"optimizer": "sgd", "lr": 0.1},
    {"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.1},
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9},
    {"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.1},
]
FALLING = {"schedule": "cosine", "warmup": 0.2, "decay": 0.9, "rounds": 4}


def settings_of(**keys):
    return LearnSettings(**{"lr": 3e-2, "clip": 0.0} | keys)


def both(settings, dtype, steps=STEPS, size=SIZE, scratch=None):
    """Return where the two optimisers end after the same gradients, of very unlike sizes."""
    rng = np.random.default_rng(5)
    start = rng.normal(size=size)
    stack = AdapterStack({"w": torch.from_numpy(start)}, 1, getattr(torch, dtype))
    theirs = torch_optimizer(settings, stack.rows)
    values = start.astype(dtype)
    ours = VectorOptimizer(settings, size, values.dtype, scratch)
    for step in range(steps):
        gradient = rng.normal(size=size) * 10.0 ** rng.uniform(-6, 1, size)
        now = rate(settings, Moment(step // 10, step % 10, 10))
        stack.begin([0])
        stack.grads[0] = torch.from_numpy(gradient).to(stack.values)
        stack.hand_out(settings.clip)
        theirs.param_groups[0]["lr"] = now
        theirs.step()
        gradient = gradient.astype(dtype)
        clip(gradient, settings.clip)
        ours.step(values, gradient, now)
    return values, stack.values.detach()[0].numpy(), ours


def difference(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize("clipped", [0.0, 0.5])
@pytest.mark.parametrize("schedule", [{}, FALLING], ids=["constant", "falling"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_many_steps_in_float64(kind, schedule, clipped):
    ours, theirs, _ = both(settings_of(**kind, **schedule, clip=clipped), "float64")
    assert difference(ours, theirs) < 1e-12


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_step_in_float32(kind):
    ours, theirs, _ = both(settings_of(**kind, clip=0.5), "float32", steps=1)
    assert ours.dtype == np.float32
    assert difference(ours, theirs) < 1e-6


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[7]], ids=str)
def test_slices_and_a_file_change_nothing(kind, tmp_path, monkeypatch):
    whole, _, _ = both(settings_of(**kind, clip=0.5), "float64")
    monkeypatch.setattr(lean, "SLICE", 7)
    sliced, _, ours = both(settings_of(**kind, clip=0.5), "float64", scratch=tmp_path / "moments")
    assert difference(sliced, whole) < 1e-15
    assert (
        ours._map is not None and list((tmp_path / "moments").iterdir()) == []
    )  # it has no name to leave behind


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_saved_state_goes_on(kind):
    settings = settings_of(**kind)
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(6, SIZE))
    values = rng.normal(size=SIZE)
    first = VectorOptimizer(settings, SIZE, values.dtype)
    for gradient in gradients[:3]:
        first.step(values, gradient.copy(), 0.1)
    saved = {name: np.copy(value) for name, value in first.state().items()}
    copied = values.copy()
    for gradient in gradients[3:]:
        first.step(values, gradient.copy(), 0.1)
    second = VectorOptimizer(settings, SIZE, values.dtype)
    second.restore(saved)
    for gradient in gradients[3:]:
        second.step(copied, gradient.copy(), 0.1)
    assert np.array_equal(values, copied)


def test_a_reset_optimiser_is_a_new_one():
    settings = settings_of(optimizer="sgd", momentum=0.9)
    values, again = np.zeros(4), np.zeros(4)
    used = VectorOptimizer(settings, 4, values.dtype)
    used.step(np.ones(4), np.ones(4), 1.0)
    used.reset()
    used.step(values, np.arange(4.0), 1.0)
    VectorOptimizer(settings, 4, again.dtype).step(again, np.arange(4.0), 1.0)
    assert np.array_equal(values, again) and used.steps == 1


def test_a_state_of_another_optimiser_is_refused():
    state = VectorOptimizer(settings_of(), 4, np.dtype("f8")).state()
    for other, size in (("sgd", 4), ("adamw", 5)):
        with pytest.raises(RunError, match="delete the state"):
            VectorOptimizer(settings_of(optimizer=other), size, np.dtype("f8")).restore(state)


def test_a_gradient_within_the_limit_is_left():
    gradient = np.array([0.3, -0.4])
    clip(gradient, 1.0)
    assert gradient.tolist() == [0.3, -0.4]
    clip(gradient, 0.25)
    assert np.linalg.norm(gradient) == pytest.approx(0.25, rel=1e-5)
    clip(np.empty(0), 1.0)
