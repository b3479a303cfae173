"""The error of the approximated functions, over everything that can come."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sflam.device.kernels import activations
from sflam.device.kernels.scratch import Array, Scratch

pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # the engine ignores them

POINTS = np.concatenate(
    [np.linspace(-12, 12, 200_001), np.geomspace(1e-30, 1e30, 2001), -np.geomspace(1e-30, 1e30, 2001)]
)
erf = np.vectorize(math.erf, otypes=[float])


def room(x: Array) -> Scratch:
    return Scratch(np.empty(4 * x.nbytes, np.uint8), x.nbytes)


def test_erf_in_float32() -> None:
    x = POINTS.astype(np.float32)
    out = np.empty_like(x)
    activations.erf(out, x, room(x))
    assert np.abs(out - erf(x.astype(float))).max() < 2e-7


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_in_float32(approximate: bool) -> None:
    x = POINTS.astype(np.float32)
    wide = x.astype(float)
    out, slope = np.empty_like(x), np.empty_like(x)
    activations.gelu(out, x, room(x), approximate=approximate)
    activations.gelu_grad(slope, np.ones_like(x), x, room(x), approximate=approximate)
    if approximate:
        t = np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))
        phi = (1 + t) / 2
        change = (1 - t**2) / 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * wide**2)
    else:
        phi, change = (1 + erf(wide / math.sqrt(2))) / 2, np.exp(-(wide**2) / 2) / math.sqrt(2 * math.pi)
    with np.errstate(invalid="ignore"):
        change = np.where(np.abs(wide) > 40, 0, wide * change)
    assert np.abs(out - wide * phi)[np.abs(wide) < 40].max() < 6e-7
    np.testing.assert_array_equal(out[wide >= 40], x[wide >= 40])
    np.testing.assert_array_equal(out[wide <= -40], 0)
    # 1 - tanh has lost digits where x (1 + x^2) is large, as it has in torch
    assert np.abs(slope - (phi + change)).max() < (3e-6 if approximate else 1e-6)


def test_sigmoid_keeps_both_ends() -> None:
    x = np.array([-200, -90, -1, 0, 1, 90, 200], np.float64)
    out = np.empty_like(x)
    activations.sigmoid(out, x, room(x))
    np.testing.assert_allclose(out, 1 / (1 + np.exp(-x)), atol=1e-16)
