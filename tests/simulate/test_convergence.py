"""The bound beside a real training: its constants as they are by definition, wherever each device is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sflam.cost.convergence import gradient_bound, quantization_noise
from sflam.learn.evaluate import Score
from sflam.learn.round import train
from sflam.model.adapters import state_of
from sflam.simulate.convergence import PathPoint, compared, look, path
from sflam.simulate.sensitivity import GradientNoise, measured, slowdown
from tests.learn.builders import IDENTITY, LEARN, adapted, local_fleet, parts_of


def noise(gradient, **values):
    plain = {"plain": 2.0, "plain_error": 0.1, "added": 3.0, "added_error": 0.6, "bias": 0.5, "batches": 8}
    return GradientNoise(round=0, gradient=gradient, **(plain | values))


def point(steps, gradient, adapters, *, devices=1, **values):
    vector = torch.tensor(gradient, dtype=torch.float64)
    each = tuple(noise(float(vector @ vector), **values) for _ in range(devices))
    at = torch.tensor(adapters, dtype=torch.float64)
    return PathPoint(steps=steps, loss=1.5, noise=each, gradient=vector, adapters=at)


def test_the_step_is_what_follows_the_gradient_and_the_smoothness_what_turns_it():
    """Gradient descent on (4 x^2 + y^2) / 2 with a step of 0.02: L is 4 at most, and eta the step."""
    at, points = torch.tensor([1.0, 2.0], dtype=torch.float64), []
    for steps in range(4):
        gradient = at * torch.tensor([4.0, 1.0])
        points.append(point(steps, gradient.tolist(), at.tolist()))
        at = at - 0.02 * gradient
    curved, step, cosine = path(points)
    assert 1 < curved <= 4 and step == pytest.approx(0.02, rel=0.05) and cosine > 0.99
    still = [point(0, [1.0, 0.0], [0.0, 0.0]), point(5, [1.0, 0.0], [0.0, 0.0])]
    assert path(still) == (0.0, 0.0, 0.0)


def test_the_bound_is_of_the_largest_constants_on_the_way():
    points = [
        point(0, [2.0, 0.0], [0.0, 0.0], devices=2),
        point(10, [1.0, 0.0], [-1.5, 0.0], devices=2, added=9.0),
    ]
    found = compared(points, [1, 3], [[2, 3], [3, 2]])
    assert found["smoothness"] == pytest.approx(1 / 1.5) and found["step"] == pytest.approx(1.5 / 15)
    first, last = found["points"]
    assert first["bound"] is None and last["mean_gradient"] == pytest.approx((4 + 1) / 2)
    v = quantization_noise(np.array([[2, 3], [3, 2]]))
    share = np.array([0.25, 0.75])
    variance, bias = (
        max(share**2 @ (2.0 + 9.0 * row) for row in v),
        max(share @ (np.sqrt(0.5) * row) for row in v),
    )
    assert found["variance"] == pytest.approx(variance) and found["squared_bias"] == pytest.approx(bias**2)
    by_hand = gradient_bound(gap=1.5, step=0.1, smoothness=1 / 1.5, rounds=10, variance=variance, bias=bias)
    assert last["bound"] == pytest.approx(by_hand) and last["bound_plain"] < last["bound"]
    assert found["holds"] == (by_hand >= 2.5)
    assert found["least_bits"] == [2, 2]  # 0.5 v^2 <= 1 / 4 at 2 bits, not at 1
    promised = [row["promised_steps"] for row in found["widths"]]
    assert promised[-1] is not None and promised == sorted(promised, key=lambda n: -(n or np.inf))
    plain = compared(points, [1, 3], ())
    assert plain["variance"] == plain["variance_plain"] and plain["squared_bias"] == 0


def test_a_device_that_never_sends_adds_no_noise_at_any_width():
    points = [point(at, [2.0 - at, 0.0], [-1.5 * at, 0.0], devices=2) for at in (0, 1)]
    found = compared(points, [1, 3], [[4, np.inf], [4, np.inf]])
    alone = compared(points, [1, 3], [[4, 4], [4, 4]])
    for mine, whole in zip(found["widths"], alone["widths"], strict=True):
        assert mine["bias_share"] == pytest.approx(0.25**2 * whole["bias_share"])
        assert mine["rounds_factor"] - 1 == pytest.approx((whole["rounds_factor"] - 1) / 10)  # 1 of 1 + 9


def test_the_fewest_bits_leave_room_for_the_error_of_the_bias():
    """0.5 v^2 <= 1 / 4 from 2 bits on, 30.5 v^2 only from 3: 3^4 / 4 < 30.5 < 7^4 / 4."""
    points = [point(at, [1.0, 0.0], [-1.5 * at, 0.0]) for at in (0, 1)]
    unsure = [point(at, [1.0, 0.0], [-1.5 * at, 0.0], bias_error=30.0) for at in (0, 1)]
    found = [compared(each, [1], [[4]])["least_bits"] for each in (points, unsure)]
    assert found == [[2], [3]]
    assert slowdown(unsure[0].noise, [1]).floor.tolist() == [3]  # what is planned is what is shown


def test_steps_beyond_the_theory_have_no_bound():
    found = compared([point(0, [2.0, 0.0], [0.0, 0.0]), point(1, [-2.0, 0.0], [-4.0, 0.0])], [1], ())
    assert found["step"] == 0.0 or found["points"][1]["bound"] is None
    far = compared([point(0, [2.0, 0.0], [0.0, 0.0]), point(1, [-1.0, 0.0], [-4.0, 0.0])], [1], ())
    assert far["step"] * far["smoothness"] > 1 and far["points"][1]["bound"] is None


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_the_gradient_is_the_same_wherever_devices_are_cut(kind):
    found = []
    for cuts in ((1, 1, 1), (0, 1, 2)):
        backbone, model, examples = adapted(kind, dtype=torch.float64)
        fleet = local_fleet(
            backbone, model, examples, parts_of([5, 20, 9]), quant=IDENTITY, learn=LEARN, cuts=cuts
        )
        found.append(measured(fleet, state_of(model), (0, 1, 2), round=0, batches=3))
    a, b = found
    assert a.loss == pytest.approx(b.loss, rel=1e-9)
    shared = min(len(a.mean), len(b.mean))
    assert a.noise[0].gradient == pytest.approx(b.noise[0].gradient, rel=1e-9) and shared > 0
    assert float(a.mean.norm()) == pytest.approx(float(b.mean.norm()), rel=1e-9)
    assert float(a.adapters.norm()) == pytest.approx(float(b.adapters.norm()), rel=1e-9)


def test_the_step_of_gradient_descent_is_its_learning_rate():
    """One shared trunk that steps on all rows at once, devices' halves averaged each round: descent on the mean."""
    rate = 3e-3
    learn = replace(
        LEARN, lr=rate, optimizer="sgd", clip=0.0, weight_decay=0.0, method="sfl-v1", local_steps=1
    )
    backbone, model, examples = adapted("vit", dtype=torch.float64)
    fleet = local_fleet(backbone, model, examples, parts_of([20, 20, 20]), quant=IDENTITY, learn=learn)
    state = state_of(model)
    points = [look(fleet, state, steps=0, batches=5)]
    for number in range(6):
        [(_, state)] = train(fleet, state, lambda _: Score(0.0, 0.0), range(number, number + 1))
        points.append(look(fleet, state, steps=number + 1, batches=5))
    _, step, cosine = path(points)
    assert step == pytest.approx(rate, rel=0.25) and cosine > 0.5
    assert points[-1].loss < points[0].loss
