"""Activations and their gradients, in blocks that stay in the cache.

Both forms of GELU are one: x (1 + tanh(x Q(x^2))) / 2. For ``tanh`` Q is the line of Hendrycks and Gimpel
(arXiv:1606.08415); for the exact one it is a polynomial fitted so that |tanh(x Q(x^2)) - erf(x / sqrt 2)| < 6e-8
for every x (2e-7 with float32 rounding). float64 takes ``math.erf``: exact, and used by tests alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sflam.device.kernels.scratch import Array, Scratch

TANH_GELU = (math.sqrt(2 / math.pi), 0.044715 * math.sqrt(2 / math.pi))
EXACT_GELU = (
    *(0.7978849414604346, 0.03633308457369512, -3.259497531661081e-05, -5.530619381742447e-05),
    *(3.964744438741682e-06, -1.3226334145824746e-07, 1.7561708012649291e-09),
)
ERF = tuple(math.sqrt(2) * c * 2**k for k, c in enumerate(EXACT_GELU))
LARGEST_SQUARE = 64.0  # tanh(x Q(x^2)) is 1 well before; beyond, the powers of x would overflow

_erf_of_numbers = np.frompyfunc(math.erf, 1, 1)


def erf(out: Array, x: Array, scratch: Scratch) -> None:
    """Error function; |error| < 4e-7 in float32."""
    if x.dtype == np.float64:
        out[...] = _erf_of_numbers(x)
        return
    t = scratch.array(0, x.shape, x.dtype)
    np.minimum(np.square(x, out=t), LARGEST_SQUARE / 2, out=t)
    q = _polynomial(t, ERF, scratch.array(1, x.shape, x.dtype))
    np.tanh(np.multiply(q, x, out=out), out=out)


def gelu(out: Array, x: Array, scratch: Scratch, *, approximate: bool) -> None:
    """x Phi(x), Phi the normal distribution function or its approximation by tanh."""
    t = scratch.array(0, x.shape, x.dtype)
    _twice_phi(t, x, scratch, approximate)
    t *= 0.5
    np.multiply(x, t, out=out)


def gelu_grad(out: Array, grad: Array, x: Array, scratch: Scratch, *, approximate: bool) -> None:
    """grad (Phi(x) + x Phi'(x))."""
    t = scratch.array(0, x.shape, x.dtype)
    _twice_phi(t, x, scratch, approximate)  # 1 + tanh
    slope, square = scratch.array(1, x.shape, x.dtype), scratch.array(2, x.shape, x.dtype)
    np.square(x, out=square)
    if approximate:  # (1 + tanh) / 2 * (1 + x (1 - tanh) (c0 + 3 c1 x^2))
        np.minimum(square, LARGEST_SQUARE, out=square)
        np.multiply(square, 3 * TANH_GELU[1], out=slope)
        slope += TANH_GELU[0]
        slope *= x
        slope *= np.subtract(2, t, out=square)
        slope += 1
        t *= slope
        t *= 0.5
    else:
        square *= -0.5
        np.exp(square, out=slope)
        slope *= x
        slope *= 1 / math.sqrt(2 * math.pi)
        t *= 0.5
        t += slope
    np.multiply(grad, t, out=out)


def sigmoid(out: Array, x: Array, scratch: Scratch) -> None:
    """1 / (1 + exp(-x)), by tanh: it neither overflows nor loses digits at either end."""
    t = scratch.array(0, x.shape, x.dtype)
    np.tanh(np.multiply(x, 0.5, out=t), out=t)
    t += 1
    np.multiply(t, 0.5, out=out)


def silu(out: Array, x: Array, scratch: Scratch) -> None:
    """x sigmoid(x)."""
    t = scratch.array(1, x.shape, x.dtype)
    sigmoid(t, x, scratch)
    np.multiply(x, t, out=out)


def silu_grad(out: Array, grad: Array, x: Array, scratch: Scratch) -> None:
    """grad s (1 + x (1 - s)), s = sigmoid(x)."""
    s, t = scratch.array(1, x.shape, x.dtype), scratch.array(2, x.shape, x.dtype)
    sigmoid(s, x, scratch)
    np.subtract(1, s, out=t)
    t *= x
    t += 1
    t *= s
    np.multiply(grad, t, out=out)


def relu(out: Array, x: Array, scratch: Scratch) -> None:
    """max(x, 0)."""
    np.maximum(x, 0, out=out)


def _twice_phi(out: Array, x: Array, scratch: Scratch, approximate: bool) -> None:
    """1 + tanh(x Q(x^2)); it uses slots 1 and 2."""
    if not approximate and x.dtype == np.float64:
        np.multiply(x, math.sqrt(0.5), out=out)
        out[...] = _erf_of_numbers(out)
    else:
        square = scratch.array(1, x.shape, x.dtype)
        np.minimum(np.square(x, out=square), LARGEST_SQUARE, out=square)
        _polynomial(square, TANH_GELU if approximate else EXACT_GELU, out)
        out *= x
        np.tanh(out, out=out)
    out += 1


def _polynomial(x: Array, coefficients: Sequence[float], out: Array) -> Array:
    """Return the polynomial in ``out``, by Horner's rule."""
    np.multiply(x, coefficients[-1], out=out)
    for coefficient in coefficients[-2:0:-1]:
        out += coefficient
        out *= x
    out += coefficients[0]
    return out
