"""The bounds of section 2.4: their algebra, and that they hold on a quantized regression small enough to compute."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sflam.cost import convergence as theory

FLEET = theory.GradientModel(
    share=np.array([0.2, 0.3, 0.5]),
    plain=np.array([1.0, 4.0, 0.25]),
    added=np.array([0.5, 0.1, 2.0]),
    bias=np.array([0.02, 0.003, 0.15]),
)


def chi() -> np.ndarray:
    """Return chi of the fleet, as it would be measured at 4 bits."""
    noise = float(theory.quantization_noise(4))
    return theory.measured_slowdown(FLEET.share, FLEET.plain + FLEET.added * noise, FLEET.plain, 4)


def test_noise() -> None:
    np.testing.assert_allclose(theory.quantization_noise([1, 2, 8, np.inf]), [1, 1 / 9, 255.0**-2, 0])


def test_variance_is_linear_in_noise() -> None:
    bits, plain = np.array([2, 3, 4]), FLEET.variance(np.inf)
    assert plain == pytest.approx(0.04 * 1 + 0.09 * 4 + 0.25 * 0.25)
    assert FLEET.variance(bits) == pytest.approx(
        plain * (1 + chi() @ theory.quantization_noise(bits)), rel=1e-12
    )
    assert theory.rounds_factor(chi(), bits) == pytest.approx(FLEET.variance(bits) / plain)


def test_bias_falls_with_v() -> None:
    assert FLEET.bias_at(3) / FLEET.bias_at(5) == pytest.approx((31 / 7) ** 2)
    assert FLEET.bias_at(2) == pytest.approx(FLEET.share @ np.sqrt(FLEET.bias) / 9)
    assert (replace(FLEET, bias=np.array([-1.0, -2.0, 0.0])).biases(1) == 0).all()  # as measured, about 0


def test_measured_slowdowns_are_relative_to_the_aggregate() -> None:
    plain = np.array([1.0, 4.0, 0.25])
    chi = np.array([0.5, 2.0, 1.0])
    whole = float(FLEET.share**2 @ plain)
    at_four = plain + chi * whole * theory.quantization_noise(4) / FLEET.share**2
    np.testing.assert_allclose(theory.measured_slowdown(FLEET.share, at_four, plain, 4), chi, rtol=1e-9)


def test_rounds_meet_the_bound_exactly() -> None:
    """At the step of (2.15) and its rounds, (2.14) is the target, or less where the step is capped at 1 / L."""
    for target in (1e-3, 1e-2, 10.0):
        given = {"gap": 3.0, "smoothness": 2.0, "variance": 0.5, "bias": 0.02}
        rounds = theory.rounds_to(target, **given)
        step = min(0.5, (target - 0.02**2) / (2 * 2.0 * 0.5))
        bound = theory.gradient_bound(step=step, rounds=rounds, **given)
        assert bound <= target * (1 + 1e-12)
        if step < 0.5:
            assert bound == pytest.approx(target)


def test_below_the_floor_no_number_of_rounds_suffices() -> None:
    assert theory.rounds_to(1e-4, gap=1.0, smoothness=1.0, variance=1.0, bias=0.011) == math.inf


def test_in_the_noise_dominated_regime_rounds_grow_by_the_factor() -> None:
    bits = np.array([6, 7, 8])
    with_noise, without = (
        theory.rounds_to(1e-3, gap=1.0, smoothness=1.0, variance=FLEET.variance(width))
        for width in (bits, np.inf)
    )
    assert with_noise / without == pytest.approx(theory.rounds_factor(chi(), bits), rel=1e-6)


def test_the_way_down_adds_noise() -> None:
    up = theory.rounds_factor([1.0, 1.0], 4)
    assert theory.rounds_factor([1.0, 1.0], 4, down=[1.0, 1.0], bits_down=4) - up == pytest.approx(2 / 225)


def test_least_bits_are_least() -> None:
    bias = FLEET.bias
    for target in (1e-8, 1e-4, 1.0):
        for bits, device in zip(theory.least_bits(bias, target).tolist(), range(3), strict=True):
            assert FLEET.biases(bits)[device] ** 2 <= target / 4
            assert bits == 1 or FLEET.biases(bits - 1)[device] ** 2 > target / 4
    assert theory.least_bits(bias, [1e-4, 1e-4, np.inf]).tolist()[2] == 1
    assert theory.least_bits(bias, 1e-30).tolist() == [16, 16, 16]
    assert theory.least_bits(0.0, 0.0) == 1


def test_the_bias_of_a_curved_map_is_of_second_order() -> None:
    """Gradients through a smooth nonlinearity at randomly rounded inputs: bias ~ v, variance ~ v (2.12), (2.13)."""
    draw = np.random.default_rng(1)
    x = draw.uniform(-1, 1, 512)
    found = []
    for bits in (2, 3, 4):
        step = 2 / (2**bits - 1)
        up = (np.floor((x + 1) / step) + 1) * step - 1
        low = up - step
        chance = (x - low) / step
        value = np.tanh(1.5 * np.stack([low, up]))
        mean = (1 - chance) * value[0] + chance * value[1]
        spread = chance * (1 - chance) * (value[1] - value[0]) ** 2
        found.append((np.sqrt(((mean - np.tanh(1.5 * x)) ** 2).mean()), spread.mean()))
    noise = theory.quantization_noise([2, 3, 4])
    for each in np.array(found).T:
        ratio = each / noise
        assert ratio.max() / ratio.min() < 1.5
